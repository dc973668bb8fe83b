"""Rule choose_codes: the codes of the chosen quantizer -> codes.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    chosen = code_files.read(snakemake.input.codes, "codes")
    code_files.write(snakemake.output.codes, "codes", chosen.ids, [chosen.codes], chosen.sizes)
    log.info("wrote %s from %s", snakemake.output.codes, snakemake.input.codes)
