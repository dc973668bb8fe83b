"""Rule render_text: the catalogue -> text.parquet and rejects.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.items.render import render

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    render(
        snakemake.output.text,
        snakemake.output.rejects,
        snakemake.params.sids,
        **snakemake.params.catalogue,
    )
    log.info("wrote %s", snakemake.output.text)
