"""Rule encode_items: vectors, a quantizer and categories, if any -> codes.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, quantizer_file, vector_store
from sidmill.numeric import category_codes
from sidmill.quantize import encode_processes
from sidmill.quantize.encode_processes import Files
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.job import of_job
from sidmill.settings.quantize import Encoding

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    settings = of_job(snakemake, Encoding)
    items = vector_store.open_store(snakemake.input.vectors, snakemake.input.ids)
    fitted = quantizer_file.read(snakemake.input.quantizer)
    category_codes.check_level(fitted, of_job(snakemake, CategoryLevel), snakemake.input.quantizer)
    quantizer_file.check_fingerprint(fitted, items.fingerprint, snakemake.input.quantizer)
    blocks = encode_processes.encode(
        Files(
            snakemake.input.quantizer,
            snakemake.input.vectors,
            snakemake.input.ids,
            snakemake.input.categories,
        ),
        settings,
        snakemake.output.codes,
        n_processes=snakemake.resources.tasks,
    )
    code_files.write(snakemake.output.codes, "codes", items.ids, blocks, fitted.codebook_sizes)
    log.info("wrote %s, %d rows", snakemake.output.codes, len(items.ids))
