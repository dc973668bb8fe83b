"""Rule align_quantizer: a quantizer of this run and the published ledger -> the aligned one."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import catalogue_match, code_files, ledger_file, quantizer_file
from sidmill.sids import refresh

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    aligned = refresh.align(
        quantizer_file.read(snakemake.input.quantizer),
        code_files.read(snakemake.input.codes, "codes").codes,
        ledger_file.read(snakemake.input.ledger),
        catalogue_match.read(snakemake.input.match),
    )
    quantizer_file.write(snakemake.output.quantizer, aligned)
    log.info("wrote %s, codebooks %s", snakemake.output.quantizer, aligned.codebook_sizes)
