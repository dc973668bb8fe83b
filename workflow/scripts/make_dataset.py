"""Rule make_dataset: files of all shards -> one folder, when what was left out is within bounds."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.datasets.counts import total
from sidmill.datasets.write import gather
from sidmill.io import json_report
from sidmill.settings.datasets import Datasets
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    settings = of_job(snakemake, Datasets)
    counts = total([*snakemake.input.counts], snakemake.wildcards.dataset, settings)
    files = gather([*snakemake.input.parts], snakemake.output.dataset)
    json_report.write(snakemake.output.counts, counts)
    log.info("wrote %s, %d files", snakemake.output.dataset, files)
