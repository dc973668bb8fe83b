"""Rule read_interactions: interaction log -> sequences.parquet, rejects.parquet, report.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.interactions.read import read
from sidmill.io import json_report
from sidmill.settings.interactions import Interactions
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    figures = read(
        snakemake.input.text,
        snakemake.output.sequences,
        snakemake.output.rejects,
        of_job(snakemake, Interactions),
    )
    json_report.write(snakemake.output.report, figures)
    log.info("wrote %s, %d users", snakemake.output.sequences, figures["users"])
