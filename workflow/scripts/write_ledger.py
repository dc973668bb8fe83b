"""Rule write_ledger: pid2sid.parquet and the ledger before -> ledger.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import codes, ledger, text
from sidmill.sids import kept

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    named = codes.read(snakemake.input.pid2sid, "sid")
    written = kept.carry_on(
        kept.ledger_before(snakemake.input.ledger),
        named.ids,
        named.codes,
        named.sizes,
        codes.read(snakemake.input.codes, "codes").codes,
        text.digests(snakemake.input.text),
        **snakemake.params.published,
    )
    ledger.write(snakemake.output.ledger, written)
    log.info("wrote %s, version %d", snakemake.output.ledger, written.version)
