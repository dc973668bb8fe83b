"""Rule plot_quality: quality.json -> three plots."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.report import plots

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    figures = json_report.read(snakemake.input.quality)
    plots.code_usage(figures, snakemake.output.code_usage)
    plots.prefix_sizes(figures, snakemake.output.prefix_sizes)
    plots.reconstruction(figures, snakemake.output.reconstruction)
    log.info("wrote %s", snakemake.output)
