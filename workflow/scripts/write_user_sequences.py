"""Rule write_user_sequences: sequences.parquet -> padded user_sequence rows by split."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.interactions import peers

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    counts = peers.write_user_sequences(
        snakemake.input.sequences,
        snakemake.input.text,
        [snakemake.output.train, snakemake.output.valid, snakemake.output.test],
    )
    log.info("wrote %s: %s", snakemake.output[0], counts)
