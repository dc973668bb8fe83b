"""Rule search_bm25: texts of passages and queries -> the run bm25."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import run_files
from sidmill.retrieval import bm25
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Bm25, Retrieval

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    run = bm25.search(
        snakemake.input.corpus,
        snakemake.input.queries,
        f"{snakemake.output.topk}.words",
        of_job(snakemake, Retrieval),
        of_job(snakemake, Bm25),
    )
    run_files.write(*snakemake.output, run, "bm25")
    log.info("wrote %s %s", snakemake.output.topk, run.scores.shape)
