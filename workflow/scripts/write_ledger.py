"""Rule write_ledger: pid2sid.parquet and the ledger before -> ledger.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, item_text, ledger_file
from sidmill.settings.job import of_job
from sidmill.settings.sids import Published
from sidmill.sids import published_sids

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    named = code_files.read(snakemake.input.pid2sid, "sid")
    written = published_sids.carry_on(
        published_sids.ledger_before(snakemake.input.ledger),
        named.ids,
        named.codes,
        named.sizes,
        code_files.read(snakemake.input.codes, "codes").codes,
        item_text.digests(snakemake.input.text),
        of_job(snakemake, Published),
    )
    ledger_file.write(snakemake.output.ledger, written)
    log.info("wrote %s, version %d", snakemake.output.ledger, written.version)
