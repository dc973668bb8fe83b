"""Rule render_text: the catalogue -> text.parquet and rejects.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.items.render import render
from sidmill.settings.items import Items
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    render(
        snakemake.output.text,
        snakemake.output.rejects,
        of_job(snakemake, Items, "catalogue"),
        snakemake.params.given["given_sids"],
    )
    log.info("wrote %s", snakemake.output.text)
