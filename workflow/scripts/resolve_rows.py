"""Rule resolve_rows: users or items -> numbers of items, in buckets of a random order."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.core.no_pandas import without_pandas
from sidmill.datasets.inputs import Shard
from sidmill.datasets.item_lookup import ItemFiles
from sidmill.datasets.resolve import resolve
from sidmill.datasets.tasks import parse_dataset
from sidmill.settings.datasets import Datasets
from sidmill.settings.job import of_job
from sidmill.settings.run import Run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    without_pandas()
    settings = of_job(snakemake, Datasets)
    resources = Path(snakemake.scriptdir).resolve().parent / "resources"
    texts = [*snakemake.input.get("texts", [])]
    resolve(
        snakemake.output.rows,
        snakemake.output.counts,
        parse_dataset(snakemake.wildcards.dataset, resources),
        [*snakemake.input.get("rows", [])],
        ItemFiles(snakemake.input.pid2sid, settings.product_pid2sid, texts),
        settings,
        Shard(int(snakemake.wildcards.shard), int(snakemake.wildcards.shards)),
        of_job(snakemake, Run).seed,
    )
    log.info("wrote %s", snakemake.output.rows)
