"""Rule train_cross: pairs -> a cross encoder."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.retrieval import cross
from sidmill.retrieval.training import Folders
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Cross
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    figures = cross.train(
        snakemake.input.pairs,
        Folders(snakemake.output.model, f"{snakemake.output.model}.state"),
        of_job(snakemake, Cross),
        of_job(snakemake, Run).seed,
        snakemake.params.code["code"],
    )
    log.info("wrote %s: %s", snakemake.output.model, figures)
