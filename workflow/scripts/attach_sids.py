"""Rule attach_sids: res.topk and pid2sid.parquet -> answers.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, run_files
from sidmill.retrieval.answers import attach

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    rows = attach(
        run_files.read(snakemake.input.topk),
        code_files.read(snakemake.input.pid2sid, "sid"),
        snakemake.output.answers,
    )
    log.info("wrote %s, %d rows", snakemake.output.answers, rows)
