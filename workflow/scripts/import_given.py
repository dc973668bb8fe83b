"""Rule import_given: SIDs that exist -> codes.parquet in the order of the catalogue."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files, quantizer_file
from sidmill.sids import given

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    loaded = given.load(
        snakemake.input.text,
        snakemake.input.ledger,
        id_type=snakemake.params.id_type,
        **snakemake.params.given,
    )
    code_files.write(snakemake.output.codes, "codes", loaded.ids, [loaded.codes], loaded.sizes)
    quantizer_file.write(
        snakemake.output.quantizer, given.quantizer_of(loaded, snakemake.params.given["path"])
    )
    given.write_rejects(snakemake.output.rejects, loaded)
    log.info(
        "wrote %s, %d SIDs of tokens of %s values; %d SIDs of other items",
        snakemake.output.codes,
        len(loaded.ids),
        loaded.sizes,
        len(loaded.others),
    )
