"""Rule import_published: a published version, checked -> its quantizer and its ledger."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import ledger, quantizer, version

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    manifest = version.verify(snakemake.input.version)
    quantizer.write(
        snakemake.output.quantizer,
        quantizer.read(
            version.file_of(snakemake.input.version, "quantizer.safetensors"),
            without_codebooks=True,
        ),
    )
    ledger.write(
        snakemake.output.ledger,
        ledger.read(version.file_of(snakemake.input.version, "ledger.parquet")),
    )
    log.info("version %d, %d files as published", manifest["version"], len(manifest["files"]))
