"""Rule store_vectors: embedding shards -> vectors.npy and ids.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed.store import store
from sidmill.settings.embedding import Store
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    shape = store(
        snakemake.input.shards,
        snakemake.input.text,
        snakemake.output.vectors,
        snakemake.output.ids,
        of_job(snakemake, Store),
    )
    log.info("wrote %s %s", snakemake.output.vectors, shape)
