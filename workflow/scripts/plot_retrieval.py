"""Rule plot_retrieval: metrics.json -> retrieval.svg and metrics.tsv."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.report import retrieval

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    figures = json_report.read(snakemake.input.metrics)
    retrieval.plot(figures, snakemake.output.plot)
    retrieval.table(figures, snakemake.output.table)
    log.info("wrote %s", snakemake.output)
