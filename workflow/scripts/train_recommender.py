"""Rule train_recommender: sequences.parquet and item vectors -> model.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.recommend import checkpoint, item_features, state
from sidmill.recommend.train import fit

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    known = item_features.load(
        snakemake.input.get("vectors"), snakemake.input.get("ids"), snakemake.input.get("mmap")
    )
    machine = snakemake.config["recommender"]
    state_path = f"{snakemake.output.model}.state"
    fitted, curve = fit(
        snakemake.input.sequences,
        known,
        load=snakemake.input.start or None,
        save_steps=machine["save_steps"],
        device=machine["device"],
        memory_mb=machine["memory_mb"],
        **snakemake.params.run,
        state_path=state_path,
        **snakemake.params.code,
        **snakemake.params.recommender,
    )
    checkpoint.save(snakemake.output.model, fitted)
    json_report.write(snakemake.output.training, {"epochs": curve})
    state.discard(state_path)
    log.info("wrote %s", snakemake.output.model)
