"""Rule read_categories: the catalogue and text.parquet -> categories.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.items import categories
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.items import Items
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    categories.read(
        snakemake.output.categories,
        snakemake.input.text,
        snakemake.input.rejects,
        of_job(snakemake, Items, "catalogue"),
        of_job(snakemake, CategoryLevel),
    )
    log.info("wrote %s", snakemake.output.categories)
