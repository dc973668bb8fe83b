"""Rule write_pool: training triples and the corpus -> texts to mine from."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.retrieval.mine import write_pool

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    write_pool(
        snakemake.input.triples,
        snakemake.input.get("corpus") or None,
        snakemake.output.pool,
        snakemake.output.queries,
    )
    log.info("wrote %s", snakemake.output.pool)
