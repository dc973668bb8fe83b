"""Rule explore_sids: SIDs and texts -> explorer.html."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.report import explorer

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    shown = explorer.write(
        snakemake.output.page,
        template_path=snakemake.input.template,
        pid2sid_path=snakemake.input.pid2sid,
        codes_path=snakemake.input.codes,
        text_path=snakemake.input.text,
        **snakemake.params.run,
        **snakemake.params.explorer,
    )
    log.info("wrote %s, %d of %d items", snakemake.output.page, shown.shown, shown.items)
