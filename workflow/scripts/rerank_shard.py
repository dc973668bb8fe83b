"""Rule rerank_shard: a run and texts -> the new order of some queries' passages."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import neighbour_lists, run_files
from sidmill.retrieval.rerank import rerank_shard

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    machine = snakemake.config["rerank"]
    found = rerank_shard(
        run_files.read(snakemake.input.topk),
        snakemake.input.corpus,
        snakemake.input.queries,
        shard=int(snakemake.wildcards.shard),
        shards=int(snakemake.wildcards.shards),
        batch_size=machine["batch_size"],
        device=machine["device"],
        **snakemake.params.rerank,
    )
    neighbour_lists.write(snakemake.output.found, found)
    log.info("wrote %s %s", snakemake.output.found, found.scores.shape)
