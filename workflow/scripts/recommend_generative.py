"""Rule recommend_generative: model.safetensors -> topk.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.recommend.generative import sid_items, topk
from sidmill.settings.generative import GenerativeTopk
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
    n_users = topk.recommend(
        snakemake.input.sequences,
        items,
        snakemake.input.model,
        snakemake.output.topk,
        of_job(snakemake, GenerativeTopk),
    )
    log.info("wrote %s: lists of %d users", snakemake.output.topk, n_users)
