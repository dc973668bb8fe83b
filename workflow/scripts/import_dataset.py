"""Rule import_dataset: files of a published data set -> catalogue, interaction log, overlay."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.imports import dataset
from sidmill.settings.imported import Imported
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    settings = of_job(snakemake, Imported)
    report = dataset.run(
        snakemake.wildcards.source,
        str(settings.path),
        Path(snakemake.output.overlay).parent,
        settings,
        for_workflow=True,
    )
    log.info("wrote %s, %d users", snakemake.output.interactions, report["log"]["users"])
