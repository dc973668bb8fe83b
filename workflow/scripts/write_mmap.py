"""Rule write_mmap: vectors.npy -> memory maps, mmap.json and item_index.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed.export import write_mmap

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    facts = write_mmap(
        snakemake.input.vectors,
        snakemake.input.ids,
        snakemake.output.facts,
        snakemake.output.index,
    )
    log.info("wrote %s and %s", facts["mmap_idx_path"], facts["mmap_emb_path"])
