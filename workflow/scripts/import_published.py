"""Rule import_published: a published version, checked -> its quantizer and its ledger."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import ledger_file, quantizer_file, version_folder

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    manifest = version_folder.verify(snakemake.input.version)
    quantizer_file.write(
        snakemake.output.quantizer,
        quantizer_file.read(
            version_folder.file_of(snakemake.input.version, "quantizer.safetensors"),
            without_codebooks=True,
        ),
    )
    ledger_file.write(
        snakemake.output.ledger,
        ledger_file.read(version_folder.file_of(snakemake.input.version, "ledger.parquet")),
    )
    log.info("version %d, %d files as published", manifest["version"], len(manifest["files"]))
