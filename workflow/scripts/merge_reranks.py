"""Rule merge_reranks: a run and the shards of its reranking -> the run cross."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import run_files
from sidmill.retrieval.rerank import merge

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    run = merge(run_files.read(snakemake.input.topk), snakemake.input.shards)
    run_files.write(*snakemake.output, run, "cross")
    log.info("wrote %s %s", snakemake.output.topk, run.scores.shape)
