"""Rule search_shard: vectors of passages and queries -> the best rows of one shard."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import neighbour_lists, vector_store
from sidmill.retrieval.search import search_shard

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    machine = snakemake.config["retrieval"]
    shard, shards = int(snakemake.wildcards.shard), int(snakemake.wildcards.shards)
    found = search_shard(
        vector_store.open_store(snakemake.input.vectors, snakemake.input.ids),
        vector_store.open_store(snakemake.input.queries, snakemake.input.query_ids),
        snakemake.input.get("index") or None,
        shard=shard,
        shards=shards,
        **snakemake.params.retrieval,
        search_batch=machine["search_batch"],
        device=machine["device"],
        memory_mb=machine["memory_mb"],
        **snakemake.params.faiss,
    )
    neighbour_lists.write(snakemake.output.found, found)
    log.info("wrote %s %s", snakemake.output.found, found.rows.shape)
