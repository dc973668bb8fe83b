"""Rule train_rqvae: vectors.npy -> quantizer.safetensors of rqvae, rqkmeans_plus or fsq."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import quantizer_file, vector_store
from sidmill.quantize.rqvae import fit, tracking

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    settings = {**snakemake.params.run, **snakemake.params.rqvae}
    machine = snakemake.config["rqvae"]
    folder = Path(snakemake.output.quantizer).with_name("checkpoints")
    trained = fit.fit(
        [snakemake.input.vectors],
        device=machine["device"],
        memory_mb=machine["memory_mb"],
        processes=machine["processes"],
        folder=str(folder),
        **snakemake.params.code,
        fingerprint=items.fingerprint,
        warm_start=snakemake.input.get("warm_start") or None,
        **snakemake.params.grid,
        ids_path=snakemake.input.ids,
        sequences_path=snakemake.input.get("pairs") or None,
        **settings,
    )
    fitted = quantizer_file.Quantizer(
        snakemake.wildcards.learned,
        trained.codebooks,
        settings | {"checkpoint": trained.figures},
        items.fingerprint,
        trained.encoder,
        trained.decoder,
    )
    quantizer_file.write(snakemake.output.quantizer, fitted)
    tracking.publish(folder, snakemake.output.metrics)
    log.info("wrote %s, codebooks %s", snakemake.output.quantizer, fitted.codebook_sizes)
