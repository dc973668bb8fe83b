"""Rule choose_run: the chosen run -> res.topk and run.trec."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.retrieval.choose import choose
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Retrieval

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    choose(
        snakemake.input.chosen,
        snakemake.input.trec,
        snakemake.input.queries,
        snakemake.output.topk,
        snakemake.output.trec,
        of_job(snakemake, Retrieval),
    )
    log.info("wrote %s", snakemake.output.topk)
