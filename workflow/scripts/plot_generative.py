"""Rule plot_generative: metrics.json -> a plot."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.report import recommender_plot

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    recommender_plot.draw(json_report.read(snakemake.input.metrics), snakemake.output.plot)
    log.info("wrote %s", snakemake.output.plot)
