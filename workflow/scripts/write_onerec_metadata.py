"""Rule write_onerec_metadata: sequences.parquet -> metadata.parquet of OneRec."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.interactions import peers

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    counts = peers.write_onerec(snakemake.input.sequences, snakemake.output.metadata)
    log.info("wrote %s: %s", snakemake.output[0], counts)
