"""Rule choose_codes: the codes of the chosen quantizer -> codes.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import codes

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    chosen = codes.read(snakemake.input.codes, "codes")
    codes.write(snakemake.output.codes, "codes", chosen.ids, [chosen.codes], chosen.sizes)
    log.info("wrote %s from %s", snakemake.output.codes, snakemake.input.codes)
