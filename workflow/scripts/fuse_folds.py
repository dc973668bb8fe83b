"""Rule fuse_folds: vectors.npy, sequences.parquet -> fused_folds.npy, fused_folds_ids.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.fuse.fuse import Files, fuse_folds
from sidmill.settings.fuse import Fuse
from sidmill.settings.job import of_job
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    files = Files(
        snakemake.input.vectors,
        snakemake.input.ids,
        snakemake.input.sequences,
        snakemake.output.vectors,
        snakemake.output.ids,
    )
    shape = fuse_folds(
        files,
        snakemake.input.fused_ids,
        of_job(snakemake, Fuse),
        seed=of_job(snakemake, Run).seed,
    )
    log.info("wrote %s %s", snakemake.output.vectors, shape)
