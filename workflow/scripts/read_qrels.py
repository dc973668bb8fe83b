"""Rule read_qrels: the user's judgements -> qrels.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.retrieval.read import read_qrels
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Retrieval

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    rows = read_qrels(
        snakemake.output.qrels, snakemake.output.rejects, of_job(snakemake, Retrieval)
    )
    log.info("wrote %s, %d judgements", snakemake.output.qrels, rows)
