"""Rule fit_categories: vectors and categories -> the category level and its residuals."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import category_file, quantizer_file, vector_store
from sidmill.quantize import category_level
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    items = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    names = category_file.of_ids(snakemake.input.categories, items.ids)
    fitted = category_level.fit(
        items.vectors, names, of_job(snakemake, CategoryLevel), items.fingerprint
    )
    fingerprint = category_level.residual_fingerprint(fitted.quantizer)
    blocks = category_level.residuals(items.vectors, fitted)
    shape = items.vectors.shape
    digests = vector_store.write(snakemake.output.vectors, shape, "float32", blocks)
    vector_store.write_ids(snakemake.output.ids, items.ids, shape, fingerprint, digests)
    quantizer_file.write(snakemake.output.level, fitted.quantizer)
    log.info("wrote %s, %d codes", snakemake.output.level, len(fitted.quantizer.codebooks[0]))
