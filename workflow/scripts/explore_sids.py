"""Rule explore_sids: SIDs and texts -> explorer.html."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.report import explorer
from sidmill.settings.job import of_job
from sidmill.settings.report import Explorer
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    sources = explorer.Sources(
        snakemake.input.template,
        snakemake.input.pid2sid,
        snakemake.input.codes,
        snakemake.input.text,
        snakemake.input.quantizer,
    )
    shown = explorer.write(
        snakemake.output.page, sources, of_job(snakemake, Explorer), of_job(snakemake, Run).seed
    )
    log.info("wrote %s, %d of %d items", snakemake.output.page, shown.shown, shown.items)
