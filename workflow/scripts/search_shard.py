"""Rule search_shard: vectors of passages and queries -> the best rows of one shard."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import neighbour_lists, vector_store
from sidmill.retrieval.search import search_shard
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Faiss, Retrieval

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    shard, shards = int(snakemake.wildcards.shard), int(snakemake.wildcards.shards)
    found = search_shard(
        vector_store.open_store(snakemake.input.vectors, snakemake.input.ids),
        vector_store.open_store(snakemake.input.queries, snakemake.input.query_ids),
        snakemake.input.get("index") or None,
        shard,
        shards,
        of_job(snakemake, Retrieval),
        of_job(snakemake, Faiss),
    )
    neighbour_lists.write(snakemake.output.found, found)
    log.info("wrote %s %s", snakemake.output.found, found.rows.shape)
