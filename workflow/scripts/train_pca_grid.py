"""Rule train_pca_grid: vectors.npy -> quantizer.safetensors."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import quantizer_file, vector_store
from sidmill.quantize import category_level, pca_grid
from sidmill.settings import base
from sidmill.settings.job import of_job
from sidmill.settings.quantize import PcaGrid
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    settings, run = of_job(snakemake, PcaGrid), of_job(snakemake, Run)
    budget = snakemake.params.budget["codebook_sizes"]
    codebooks = pca_grid.fit(items.vectors, settings, codebook_sizes=budget, seed=run.seed)
    identity = base.identity(run) | snakemake.params.budget | base.identity(settings)
    fitted = quantizer_file.Quantizer("pca_grid", codebooks, identity, items.fingerprint)
    fitted = category_level.join_file(snakemake.input.level, fitted)
    quantizer_file.write(snakemake.output.quantizer, fitted)
    log.info("wrote %s, codebooks %s", snakemake.output.quantizer, fitted.codebook_sizes)
