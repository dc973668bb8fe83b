"""Rule write_item_h5: vectors.npy and text.parquet -> item_data.h5 and item_index.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed.export import ItemFiles, write_item_h5
from sidmill.settings.embedding import Embedding
from sidmill.settings.interactions import H5
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    files = ItemFiles(
        snakemake.input.vectors,
        snakemake.input.ids,
        snakemake.input.text,
        snakemake.output.item_data,
        snakemake.output.index,
    )
    shape = write_item_h5(files, of_job(snakemake, Embedding), of_job(snakemake, H5))
    log.info("wrote %s, %d items, %d dimensions, %d tokens", snakemake.output.item_data, *shape)
