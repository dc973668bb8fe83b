"""Rule read_training: the user's training lines -> dual.parquet or cross.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.retrieval.training_data import read_training
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Training

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    rows = read_training(
        snakemake.output.rows,
        snakemake.output.rejects,
        snakemake.input.get("corpus"),
        snakemake.input.get("queries"),
        snakemake.wildcards.kind,
        of_job(snakemake, Training),
    )
    log.info("wrote %s, %d rows", snakemake.output.rows, rows)
