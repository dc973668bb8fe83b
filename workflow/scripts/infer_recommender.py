"""Rule infer_recommender: model.safetensors -> vectors of all items and users."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.recommend import item_features
from sidmill.recommend.infer import Files, infer
from sidmill.settings.job import of_job
from sidmill.settings.recommend import Recommender

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = item_features.load(
        snakemake.input.get("vectors"), snakemake.input.get("ids"), snakemake.input.get("mmap")
    )
    files = Files(
        Path(snakemake.output.listing).parent,
        snakemake.output.item_ids,
        snakemake.output.user_ids,
        snakemake.output.listing,
    )
    infer(
        snakemake.input.sequences,
        items,
        snakemake.input.model,
        files,
        of_job(snakemake, Recommender).device,
    )
    log.info("wrote %s", snakemake.output.listing)
