"""Rule describe_run: all that lies in results -> run.json."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.report import run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    described = run.describe(
        Path(snakemake.output.run).parent,
        Path(snakemake.scriptdir).resolve().parents[1],  # Snakemake gives workflow/rules/../scripts
        snakemake.params.settings,
    )
    json_report.write(snakemake.output.run, described)
    log.info("wrote %s", snakemake.output.run)
