"""Rule train_generative: sequences.parquet and SIDs -> model.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.io import json_report
from sidmill.recommend.generative import models, sid_items, train
from sidmill.settings.generative import Generative
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = sid_items.load(
        snakemake.input.sids,
        snakemake.input.quantizers,
        snakemake.input.get("vectors"),
        snakemake.input.get("ids"),
        fold_paths=snakemake.input.get("folds", []),
        similarity_paths=snakemake.input.get("similarity", []),
    )
    fitted, curves = train.fit(
        snakemake.input.sequences,
        items,
        of_job(snakemake, Generative),
        state_path=snakemake.output.model,
        **snakemake.params.run,
        **snakemake.params.code,
    )
    models.save(snakemake.output.model, fitted)
    json_report.write(snakemake.output.training, {"seeds": curves})
    train.discard_states(snakemake.output.model)
    log.info("wrote %s", snakemake.output.model)
