"""Rule describe_version: the files of this run -> version.json, for ``sidmill publish``."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import ledger, quantizer, report, version

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    given = ledger.read(snakemake.input.ledger)
    fitted = quantizer.read(snakemake.input.quantizer, without_codebooks=True)
    manifest = version.describe(
        dict(snakemake.input.items()),
        {
            "version": given.version,
            "items": given.n_live,
            "reserved": len(given.ids) - given.n_live,
            "quantizer": fitted.kind,
            "fingerprint": fitted.fingerprint,
            "collisions": snakemake.params.collisions,
            "published": snakemake.params.published,
        },
    )
    report.write(snakemake.output.version, manifest)
    log.info("wrote %s, version %d", snakemake.output.version, given.version)
