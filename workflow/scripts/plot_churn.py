"""Rule plot_churn: churn.json -> a plot."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.report import churn_plot

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    churn_plot.churn(json_report.read(snakemake.input.churn), snakemake.output.plot)
    log.info("wrote %s", snakemake.output.plot)
