"""Rule lint_datasets: datasets -> what is wrong with them."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.datasets.lint import lint
from sidmill.io import json_report

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    found = lint(
        [*snakemake.input.datasets],
        snakemake.input.pid2sid,
        snakemake.config["datasets"]["product_pid2sid"],
        Path(snakemake.scriptdir).parent / "resources/prompts",
        **snakemake.params.lint,
    )
    json_report.write(snakemake.output.lint, found)
    log.info("wrote %s", snakemake.output.lint)
