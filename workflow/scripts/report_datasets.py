"""Rule report_datasets: counts of all datasets and what the linter found -> report.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.datasets.counts import combine
from sidmill.io import json_report

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    json_report.write(
        snakemake.output.report, combine([*snakemake.input.counts], snakemake.input.lint)
    )
    log.info("wrote %s", snakemake.output.report)
