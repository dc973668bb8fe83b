"""Rule write_demo: nothing -> items.jsonl and interactions.jsonl."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.items import demo

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    demo.write(
        snakemake.output.catalogue,
        snakemake.output.histories,
        **snakemake.params.run,
        **snakemake.params.demo,
    )
    log.info("wrote %s", snakemake.output.catalogue)
