"""Rule choose_codes: the codes of the chosen quantizer -> codes.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.atomic import link_or_copy
from sidmill.core.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    link_or_copy(snakemake.input.codes, snakemake.output.codes)
    log.info("wrote %s from %s", snakemake.output.codes, snakemake.input.codes)
