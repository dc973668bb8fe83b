"""Rule measure_retrieval: runs and judgements -> metrics.json and per_query.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import qrels, run_files
from sidmill.io import json_report
from sidmill.retrieval.measure import measure, write_table
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import RetrievalMetrics
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    metrics = of_job(snakemake, RetrievalMetrics)
    figures, per_query = measure(
        run_files.read_all(snakemake.input.runs, metrics.runs),
        qrels.read(snakemake.input.qrels),
        snakemake.input.corpus,
        metrics,
        of_job(snakemake, Run).seed,
    )
    write_table(snakemake.output.per_query, per_query)
    json_report.write(snakemake.output.metrics, figures)
    log.info("wrote %s: %s", snakemake.output.metrics, figures["runs"])
