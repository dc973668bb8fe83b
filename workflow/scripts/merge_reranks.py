"""Rule merge_reranks: a run and the shards of its reranking -> the run cross."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import runs
from sidmill.retrieval.rerank import merge

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    run = merge(runs.read(snakemake.input.topk), snakemake.input.shards)
    runs.write(*snakemake.output, run, "cross")
    log.info("wrote %s %s", snakemake.output.topk, run.scores.shape)
