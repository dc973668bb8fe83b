"""Rule encode_items: vectors.npy and quantizer.safetensors -> codes.parquet."""

from typing import TYPE_CHECKING

from sidmill import codec
from sidmill.core.job import job
from sidmill.formats import codes, quantizer, vectors

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vectors.open_store(snakemake.input.vectors, snakemake.input.ids)
    fitted = quantizer.read(snakemake.input.quantizer)
    quantizer.check_fingerprint(fitted, items.fingerprint, snakemake.input.quantizer)
    blocks = codec.encode(
        items.vectors,
        fitted.codebooks,
        fitted.prices,
        fitted.encoder,
        **snakemake.config["encoding"],
    )
    codes.write(snakemake.output.codes, "codes", items.ids, blocks, fitted.codebook_sizes)
    log.info("wrote %s, %d rows", snakemake.output.codes, len(items.ids))
