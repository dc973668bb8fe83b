"""Rule lint_datasets: datasets -> what is wrong with them."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.datasets.lint import lint
from sidmill.io import json_report
from sidmill.settings.datasets import Datasets, Lint
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    found = lint(
        [*snakemake.input.datasets],
        snakemake.input.pid2sid,
        of_job(snakemake, Lint),
        product_pid2sid=of_job(snakemake, Datasets).product_pid2sid,
        prompts=Path(snakemake.scriptdir).parent / "resources/prompts",
    )
    json_report.write(snakemake.output.lint, found)
    log.info("wrote %s", snakemake.output.lint)
