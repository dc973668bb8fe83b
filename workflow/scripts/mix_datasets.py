"""Rule mix_datasets: datasets -> one, shuffled, by weights, with users held out."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.datasets.mix import mix
from sidmill.io import json_report

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    counts = mix(
        [*snakemake.input.datasets],
        snakemake.output.train,
        snakemake.output.test,
        dict(zip(snakemake.input.others, snakemake.params.others.values(), strict=True)),
        snakemake.wildcards.mixture == "rl",
        **snakemake.params.run,
        **snakemake.params.mixture,
    )
    json_report.write(snakemake.output.counts, counts)
    log.info("wrote %s", snakemake.output.train)
