"""Rule describe_version: the files of this run -> version.json, for ``sidmill publish``."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import ledger_file, quantizer_file, version_folder
from sidmill.io import json_report

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    given = ledger_file.read(snakemake.input.ledger)
    fitted = quantizer_file.read(snakemake.input.quantizer, without_codebooks=True)
    manifest = version_folder.describe(
        dict(snakemake.input.items()),
        {
            "version": given.version,
            "items": given.n_live,
            "reserved": len(given.ids) - given.n_live,
            "quantizer": fitted.kind,
            "fingerprint": fitted.fingerprint,
            "category_level": fitted.settings.get("category_level"),
            "collisions": snakemake.params.collisions,
            "published": snakemake.params.published,
        },
    )
    json_report.write(snakemake.output.version, manifest)
    log.info("wrote %s, version %d", snakemake.output.version, given.version)
