"""Rule write_demo: nothing -> items.jsonl and interactions.jsonl."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.items import demo
from sidmill.settings.items import Demo
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    demo.write(
        snakemake.output.catalogue,
        snakemake.output.histories,
        of_job(snakemake, Demo),
        snakemake.params.run["seed"],
    )
    log.info("wrote %s", snakemake.output.catalogue)
