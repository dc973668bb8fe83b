"""Rule read_queries: the user's queries -> text.parquet and rejects.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.retrieval.read import read_queries
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Retrieval

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    read_queries(
        snakemake.output.text,
        snakemake.output.rejects,
        of_job(snakemake, Retrieval),
        snakemake.wildcards.asked,
    )
    log.info("wrote %s", snakemake.output.text)
