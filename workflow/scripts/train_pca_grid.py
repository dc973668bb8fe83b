"""Rule train_pca_grid: vectors.npy -> quantizer.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import quantizer_file, vector_store
from sidmill.quantize import pca_grid

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    settings = {
        **snakemake.params.run,
        **snakemake.params.budget,
        **snakemake.params.pca_grid,
    }
    codebooks = pca_grid.fit(
        items.vectors, memory_mb=snakemake.config["pca_grid"]["memory_mb"], **settings
    )
    fitted = quantizer_file.Quantizer("pca_grid", codebooks, settings, items.fingerprint)
    quantizer_file.write(snakemake.output.quantizer, fitted)
    log.info("wrote %s, codebooks %s", snakemake.output.quantizer, fitted.codebook_sizes)
