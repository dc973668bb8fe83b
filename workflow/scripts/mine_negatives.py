"""Rule mine_negatives: vectors of the first round -> triples and pairs with hard negatives."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import vector_store
from sidmill.retrieval.mine import Texts, mine
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Mining, Retrieval

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    files = snakemake.input
    counts = mine(
        Texts(files.triples, files.pool, files.queries),
        vector_store.open_store(files.pool_vectors, files.pool_ids),
        vector_store.open_store(files.query_vectors, files.query_ids),
        snakemake.output.triples,
        snakemake.output.pairs,
        of_job(snakemake, Mining),
        of_job(snakemake, Retrieval),
    )
    log.info("wrote %s: %s", snakemake.output.triples, counts)
