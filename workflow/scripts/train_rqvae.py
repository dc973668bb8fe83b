"""Rule train_rqvae: vectors.npy -> quantizer.safetensors of rqvae, rqkmeans_plus or fsq."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import quantizer_file, vector_store
from sidmill.quantize import category_level
from sidmill.quantize.rqvae import fit, tracking
from sidmill.settings import base
from sidmill.settings.job import of_job
from sidmill.settings.quantize import Rqvae
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    settings, seed = of_job(snakemake, Rqvae), of_job(snakemake, Run).seed
    folder = Path(snakemake.output.quantizer).with_name("checkpoints")
    inputs = fit.Inputs(
        [snakemake.input.vectors],
        items.fingerprint,
        ids=snakemake.input.ids,
        sequences=snakemake.input.get("pairs") or None,
        warm_start=snakemake.input.get("warm_start") or None,
        grid_steps=snakemake.params.fsq["steps"],
        match=snakemake.input.get("match"),
        ledger=snakemake.input.get("ledger"),
    )
    trained = fit.fit(inputs, settings, fit.Run(str(folder), seed, snakemake.params.code["code"]))
    fitted = quantizer_file.Quantizer(
        snakemake.wildcards.learned,
        trained.codebooks,
        base.identity(settings) | {"seed": seed, "checkpoint": trained.figures},
        items.fingerprint,
        trained.encoder,
        trained.decoder,
    )
    fitted = category_level.join_file(snakemake.input.level, fitted)
    quantizer_file.write(snakemake.output.quantizer, fitted)
    tracking.publish(folder, snakemake.output.metrics)
    log.info("wrote %s, codebooks %s", snakemake.output.quantizer, fitted.codebook_sizes)
