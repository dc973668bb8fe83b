"""Rule measure_index: an index and exact search -> index.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import vector_store
from sidmill.io import json_report
from sidmill.retrieval import index
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Faiss, Retrieval
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    retrieval = of_job(snakemake, Retrieval)
    figures = index.measure(
        snakemake.input.index,
        vector_store.open_store(snakemake.input.vectors, snakemake.input.ids),
        vector_store.open_npy(snakemake.input.queries),
        retrieval,
        of_job(snakemake, Faiss),
        of_job(snakemake, Run).seed,
    )
    json_report.write(snakemake.output.figures, {"index": retrieval.index, **figures})
    log.info("wrote %s: %s", snakemake.output.figures, figures)
