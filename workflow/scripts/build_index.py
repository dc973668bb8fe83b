"""Rule build_index: vectors of the passages -> corpus.faiss."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import vector_store
from sidmill.retrieval import index
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Faiss, Retrieval
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    corpus = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    recipe = index.build(
        corpus.vectors,
        snakemake.output.index,
        of_job(snakemake, Retrieval).index,
        of_job(snakemake, Faiss),
        of_job(snakemake, Run).seed,
    )
    log.info("wrote %s, %s", snakemake.output.index, recipe)
