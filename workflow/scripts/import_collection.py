"""Rule import_collection: files of a retrieval collection -> passages, queries, judgements."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.imports import collection
from sidmill.settings.imported import Imported
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    settings = of_job(snakemake, Imported)
    report = collection.run(
        snakemake.wildcards.searched,
        str(settings.path),
        Path(snakemake.output.overlay).parent,
        settings,
        for_workflow=True,
    )
    log.info("wrote %s, %d passages", snakemake.output.corpus, report["passages"]["written"])
