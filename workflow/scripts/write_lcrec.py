"""Rule write_lcrec: sequences.parquet and text.parquet -> X.inter.json and X.item.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.interactions import peers

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    counts = peers.write_lcrec(
        snakemake.input.sequences,
        snakemake.input.text,
        snakemake.output.histories,
        snakemake.output.catalogue,
    )
    log.info("wrote %s: %s", snakemake.output[0], counts)
