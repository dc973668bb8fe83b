"""Rule plot_training: metrics.csv -> one plot."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.report import curves

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    curves.training(snakemake.input.metrics, snakemake.output.training)
    log.info("wrote %s", snakemake.output.training)
