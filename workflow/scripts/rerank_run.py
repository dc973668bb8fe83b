"""Rule rerank_run: a run and texts -> the run cross."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import runs
from sidmill.retrieval.rerank import rerank

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    machine = snakemake.config["rerank"]
    run = rerank(
        runs.read(snakemake.input.topk),
        snakemake.input.corpus,
        snakemake.input.queries,
        batch_size=machine["batch_size"],
        device=machine["device"],
        **snakemake.params.rerank,
    )
    runs.write(*snakemake.output, run, "cross")
    log.info("wrote %s %s", snakemake.output.topk, run.scores.shape)
