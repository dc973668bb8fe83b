"""Rule describe_run: all that lies in results -> run.json, runs.jsonl, runs.html."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.report import run, runs

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    folder = Path(snakemake.output.run).parent
    described = run.describe(
        folder,
        Path(snakemake.scriptdir).resolve().parents[1],  # Snakemake gives workflow/rules/../scripts
        snakemake.params.settings,
    )
    json_report.write(snakemake.output.run, described)
    known = runs.remember(folder, snakemake.output.history)
    runs.write_page(
        snakemake.output.page,
        snakemake.input.template,
        known,
        title=snakemake.params.explorer["title"],
        last=10,
    )
    log.info("wrote %s, run %d of its folder", snakemake.output.run, len(known))
