"""Rule match_published: text.parquet and the published ledger -> match.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import ledger_file
from sidmill.sids import published_sids

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    same = published_sids.match(
        snakemake.input.text, ledger_file.read(snakemake.input.ledger), snakemake.output.match
    )
    log.info("wrote %s, %d items with the published text", snakemake.output.match, same)
