"""Rule rerank_shard: a run and texts -> the new order of some queries' passages."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import neighbour_lists, run_files
from sidmill.retrieval.rerank import rerank_shard
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Rerank

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    found = rerank_shard(
        run_files.read(snakemake.input.topk),
        snakemake.input.corpus,
        snakemake.input.queries,
        int(snakemake.wildcards.shard),
        int(snakemake.wildcards.shards),
        of_job(snakemake, Rerank),
    )
    neighbour_lists.write(snakemake.output.found, found)
    log.info("wrote %s %s", snakemake.output.found, found.scores.shape)
