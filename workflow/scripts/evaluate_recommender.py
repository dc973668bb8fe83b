"""Rule evaluate_recommender: model.safetensors -> metrics.json and metrics.csv."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files
from sidmill.io import json_report
from sidmill.recommend import item_features, table
from sidmill.recommend.evaluate import evaluate
from sidmill.settings.job import of_job
from sidmill.settings.recommend import RecommenderEvaluation

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = item_features.load(
        snakemake.input.get("vectors"), snakemake.input.get("ids"), snakemake.input.get("mmap")
    )
    figures = evaluate(
        snakemake.input.sequences,
        items,
        snakemake.input.model,
        {
            "before": code_files.read(snakemake.input.codes, "codes"),
            "after": code_files.read(snakemake.input.pid2sid, "sid"),
        },
        of_job(snakemake, RecommenderEvaluation),
        **snakemake.params.run,
    )
    json_report.write(snakemake.output.metrics, figures)
    table.write(snakemake.output.table, figures)
    log.info("wrote %s", snakemake.output.metrics)
