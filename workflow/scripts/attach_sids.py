"""Rule attach_sids: res.topk and pid2sid.parquet -> answers.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import codes, runs
from sidmill.retrieval.answers import attach

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    rows = attach(
        runs.read(snakemake.input.topk),
        codes.read(snakemake.input.pid2sid, "sid"),
        snakemake.output.answers,
    )
    log.info("wrote %s, %d rows", snakemake.output.answers, rows)
