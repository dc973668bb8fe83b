"""Rule encode_folds: fused_folds.npy and quantizer.safetensors -> fold_codes.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, quantizer_file, vector_store
from sidmill.numeric import residual_codec
from sidmill.settings.job import of_job
from sidmill.settings.quantize import Encoding

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    settings = of_job(snakemake, Encoding)
    items = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    fitted = quantizer_file.read(snakemake.input.quantizer)
    quantizer_file.check_fingerprint(fitted, items.fingerprint, snakemake.input.quantizer)
    blocks = residual_codec.encode(
        items.vectors,
        fitted.codebooks,
        fitted.prices,
        fitted.encoder,
        device=settings.device,
        memory_mb=settings.memory_mb,
    )
    code_files.write(snakemake.output.codes, "codes", items.ids, blocks, fitted.codebook_sizes)
    log.info("wrote %s, %d rows", snakemake.output.codes, len(items.ids))
