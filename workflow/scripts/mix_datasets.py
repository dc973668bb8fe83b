"""Rule mix_datasets: datasets -> one, shuffled, by weights, with users held out."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.datasets.mix import mix
from sidmill.io import json_report
from sidmill.settings.datasets import Mixture
from sidmill.settings.job import of_job
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    counts = mix(
        [*snakemake.input.datasets],
        snakemake.output.train,
        snakemake.output.test,
        of_job(snakemake, Mixture),
        of_job(snakemake, Run).seed,
        others=dict(zip(snakemake.input.others, snakemake.params.others.values(), strict=True)),
        questions=snakemake.wildcards.mixture == "rl",
    )
    json_report.write(snakemake.output.counts, counts)
    log.info("wrote %s", snakemake.output.train)
