"""Rule mine_negatives: vectors of the first round -> triples and pairs with hard negatives."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import vector_store
from sidmill.retrieval.mine import mine

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    machine = snakemake.config["retrieval"]
    counts = mine(
        snakemake.input.triples,
        snakemake.input.pool,
        snakemake.input.queries,
        vector_store.open_store(snakemake.input.pool_vectors, snakemake.input.pool_ids),
        vector_store.open_store(snakemake.input.query_vectors, snakemake.input.query_ids),
        snakemake.output.triples,
        snakemake.output.pairs,
        search_batch=machine["search_batch"],
        device=machine["device"],
        memory_mb=machine["memory_mb"],
        **snakemake.params.mining,
    )
    log.info("wrote %s: %s", snakemake.output.triples, counts)
