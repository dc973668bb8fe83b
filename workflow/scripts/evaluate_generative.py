"""Rule evaluate_generative: model.safetensors -> metrics.json, metrics.csv and users.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.recommend import table
from sidmill.recommend.generative import evaluate, sid_items
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
        similarity_paths=snakemake.input.get("similarity", []),
    )
    recommender = evaluate.open_recommender(
        snakemake.input.get("recommender"),
        snakemake.input.get("text_vectors"),
        snakemake.input.get("text_ids"),
        snakemake.input.get("text_mmap"),
    )
    figures = evaluate.evaluate(
        snakemake.input.sequences,
        items,
        snakemake.input.model,
        recommender,
        of_job(snakemake, GenerativeEvaluation),
        **snakemake.params.run,
        users_path=snakemake.output.users,
    )
    json_report.write(snakemake.output.metrics, figures)
    table.write(snakemake.output.table, figures)
    log.info("wrote %s", snakemake.output.metrics)
