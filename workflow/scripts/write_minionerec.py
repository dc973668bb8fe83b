"""Rule write_minionerec: sequences.parquet -> X.train.inter, X.valid.inter and X.test.inter."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.interactions import peers

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    counts = peers.write_inter(
        snakemake.input.sequences,
        [snakemake.output.train, snakemake.output.valid, snakemake.output.test],
    )
    log.info("wrote %s: %s", snakemake.output[0], counts)
