"""Rule train_dual: triples -> a dual encoder."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.retrieval import dual

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    figures = dual.train(
        snakemake.input.triples,
        snakemake.output.model,
        f"{snakemake.output.model}.state",
        **snakemake.params.retrieval,
        **snakemake.params.embedding,
        device=snakemake.config["dual"]["device"],
        **snakemake.params.run,
        **snakemake.params.code,
        **snakemake.params.dual,
    )
    log.info("wrote %s: %s", snakemake.output.model, figures)
