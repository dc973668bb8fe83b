"""Rule store_vectors: embedding shards -> vectors.npy and ids.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed.store import store

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    shape = store(
        snakemake.input.shards,
        snakemake.input.text,
        snakemake.output.vectors,
        snakemake.output.ids,
        **snakemake.params.store,
    )
    log.info("wrote %s %s", snakemake.output.vectors, shape)
