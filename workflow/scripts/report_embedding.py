"""Rule report_embedding: what each shard took -> embedding.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed import cost
from sidmill.io import json_report

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    figures = cost.reckon(snakemake.input.speeds, **snakemake.params.embedding_cost)
    json_report.write(snakemake.output.report, figures)
    log.info("%s", figures)
