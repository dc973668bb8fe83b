"""Rule measure_index: an index and exact search -> index.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import vector_store
from sidmill.io import json_report
from sidmill.retrieval import index

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    machine = snakemake.config["retrieval"]
    figures = index.measure(
        snakemake.input.index,
        vector_store.open_store(snakemake.input.vectors, snakemake.input.ids),
        vector_store.open_npy(snakemake.input.queries),
        **snakemake.params.retrieval,
        search_batch=machine["search_batch"],
        memory_mb=machine["memory_mb"],
        device=machine["device"],
        **snakemake.params.run,
        **snakemake.params.faiss,
    )
    json_report.write(snakemake.output.figures, {"index": machine["index"], **figures})
    log.info("wrote %s: %s", snakemake.output.figures, figures)
