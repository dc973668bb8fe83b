"""Rule write_item_h5: vectors.npy and text.parquet -> item_data.h5 and item_index.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed.export import write_item_h5

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    shape = write_item_h5(
        snakemake.input.vectors,
        snakemake.input.ids,
        snakemake.input.text,
        snakemake.output.item_data,
        snakemake.output.index,
        **snakemake.params.tokenizer,
        **snakemake.params.h5,
    )
    log.info("wrote %s, %d items, %d dimensions, %d tokens", snakemake.output.item_data, *shape)
