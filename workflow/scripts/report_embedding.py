"""Rule report_embedding: what each shard took -> embedding.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed import throughput
from sidmill.io import json_report
from sidmill.settings.embedding import EmbeddingCost
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    figures = throughput.report(snakemake.input.speeds, of_job(snakemake, EmbeddingCost))
    json_report.write(snakemake.output.report, figures)
    log.info("%s", figures)
