"""Rule measure_recommender: models of several seeds -> their metrics on one split, alone."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import user_metrics
from sidmill.io import json_report
from sidmill.recommend.generative import measure, sid_items
from sidmill.settings.generative import GenerativeEvaluation
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = sid_items.load(
        snakemake.input.sids,
        snakemake.input.quantizers,
        snakemake.input.get("vectors"),
        snakemake.input.get("ids"),
    )
    figures, users = measure.measure(
        snakemake.input.sequences,
        items,
        snakemake.input.models,
        of_job(snakemake, GenerativeEvaluation),
        split=snakemake.wildcards.split,
        **snakemake.params.run,
    )
    user_metrics.write(snakemake.output.users, users)
    json_report.write(snakemake.output.metrics, figures)
    log.info("wrote %s, %d targets", snakemake.output.metrics, figures["targets"])
