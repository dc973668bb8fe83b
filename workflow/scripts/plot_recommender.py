"""Rule plot_recommender: metrics.json -> a plot."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import report
from sidmill.report import recommender_plot

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    recommender_plot.draw(report.read(snakemake.input.metrics), snakemake.output.plot)
    log.info("wrote %s", snakemake.output.plot)
