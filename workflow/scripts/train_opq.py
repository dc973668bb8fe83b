"""Rule train_opq: vectors.npy -> quantizer.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import quantizer_file, vector_store
from sidmill.quantize import opq

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    settings = {
        **snakemake.params.run,
        **snakemake.params.budget,
        **snakemake.params.opq,
    }
    codebooks = opq.fit(items.vectors, memory_mb=snakemake.config["opq"]["memory_mb"], **settings)
    fitted = quantizer_file.Quantizer("opq", codebooks, settings, items.fingerprint)
    quantizer_file.write(snakemake.output.quantizer, fitted)
    log.info("wrote %s, codebooks %s", snakemake.output.quantizer, fitted.codebook_sizes)
