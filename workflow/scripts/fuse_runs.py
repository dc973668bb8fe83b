"""Rule fuse_runs: runs -> the run fused."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import run_files
from sidmill.retrieval.fuse import fuse
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Fusion

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    run = fuse(run_files.read_list(snakemake.input.runs), of_job(snakemake, Fusion))
    run_files.write(*snakemake.output, run, "fused")
    log.info("wrote %s %s", snakemake.output.topk, run.scores.shape)
