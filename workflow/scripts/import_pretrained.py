"""Rule import_pretrained: a checkpoint made elsewhere -> quantizer.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import quantizer_file, vector_store
from sidmill.quantize import pretrained
from sidmill.settings.job import of_job
from sidmill.settings.quantize import Pretrained

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    settings = of_job(snakemake, Pretrained)
    loaded = pretrained.load(settings, dim=items.vectors.shape[1], fingerprint=items.fingerprint)
    quantizer_file.write(snakemake.output.quantizer, loaded)
    log.info("wrote %s, codebooks %s", snakemake.output.quantizer, loaded.codebook_sizes)
