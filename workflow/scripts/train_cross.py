"""Rule train_cross: pairs -> a cross encoder."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.retrieval import cross

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    figures = cross.train(
        snakemake.input.pairs,
        snakemake.output.model,
        f"{snakemake.output.model}.state",
        device=snakemake.config["cross"]["device"],
        **snakemake.params.run,
        **snakemake.params.code,
        **snakemake.params.cross,
    )
    log.info("wrote %s: %s", snakemake.output.model, figures)
