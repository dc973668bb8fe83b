"""Rule write_missrec: sequences.parquet and vectors.npy -> three .inter files and X.feat1CLS."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.interactions import peers

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    counts = peers.write_missrec(
        snakemake.input.sequences,
        snakemake.input.vectors,
        snakemake.input.ids,
        [snakemake.output.train, snakemake.output.valid, snakemake.output.test],
        snakemake.output.features,
        snakemake.output.index,
    )
    log.info("wrote %s: %s", snakemake.output[0], counts)
