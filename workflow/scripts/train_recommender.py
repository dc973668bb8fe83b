"""Rule train_recommender: sequences.parquet and item vectors -> model.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.recommend import checkpoint, item_features, state
from sidmill.recommend.train import fit
from sidmill.settings.job import of_job
from sidmill.settings.recommend import Recommender

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = item_features.load(
        snakemake.input.get("vectors"), snakemake.input.get("ids"), snakemake.input.get("mmap")
    )
    state_path = f"{snakemake.output.model}.state"
    fitted, curve = fit(
        snakemake.input.sequences,
        items,
        of_job(snakemake, Recommender),
        start=snakemake.input.start or None,
        state_path=state_path,
        **snakemake.params.run,
        **snakemake.params.code,
    )
    checkpoint.save(snakemake.output.model, fitted)
    json_report.write(snakemake.output.training, {"epochs": curve})
    state.discard(state_path)
    log.info("wrote %s", snakemake.output.model)
