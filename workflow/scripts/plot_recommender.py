"""Rule plot_recommender: metrics.json -> a plot."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.report import recommender_plot

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    metrics = json_report.read(snakemake.input.metrics)
    recommender_plot.draw(metrics, snakemake.output.plot, own=["recommender"])
    log.info("wrote %s", snakemake.output.plot)
