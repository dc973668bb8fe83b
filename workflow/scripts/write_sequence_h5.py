"""Rule write_sequence_h5: sequences.parquet -> sequence.h5."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.interactions.export import write_sequence_h5
from sidmill.settings.interactions import H5
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    facts = write_sequence_h5(
        snakemake.input.sequences,
        snakemake.input.text,
        snakemake.output.sequences,
        of_job(snakemake, H5),
    )
    log.info("wrote %s: %s", snakemake.output.sequences, facts)
