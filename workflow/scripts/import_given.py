"""Rule import_given: SIDs that exist -> codes.parquet in the order of the catalogue."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, quantizer_file
from sidmill.settings.job import of_job
from sidmill.settings.sids import Given
from sidmill.sids import given

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    settings = of_job(snakemake, Given)
    loaded = given.load(
        snakemake.input.text,
        snakemake.input.ledger,
        settings,
        snakemake.params.catalogue["id_type"],
    )
    code_files.write(snakemake.output.codes, "codes", loaded.ids, [loaded.codes], loaded.sizes)
    quantizer_file.write(snakemake.output.quantizer, given.quantizer_of(loaded, settings.path))
    given.write_rejects(snakemake.output.rejects, loaded)
    log.info(
        "wrote %s, %d SIDs of tokens of %s values; %d SIDs of other items",
        snakemake.output.codes,
        len(loaded.ids),
        loaded.sizes,
        len(loaded.others),
    )
