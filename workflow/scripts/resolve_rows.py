"""Rule resolve_rows: users or items -> numbers of items, in buckets of a random order."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.core.no_pandas import without_pandas
from sidmill.datasets.resolve import resolve

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    without_pandas()
    task, _, split = snakemake.wildcards.dataset.partition(".")
    resolve(
        snakemake.output.rows,
        snakemake.output.counts,
        task_path=Path(snakemake.scriptdir).resolve().parent / f"resources/tasks/{task}.yaml",
        dataset=task,
        split=split or "train",
        paths=[*snakemake.input.get("rows", [])],
        pid2sid=snakemake.input.pid2sid,
        product_pid2sid=snakemake.config["datasets"]["product_pid2sid"],
        texts=[*snakemake.input.get("texts", [])],
        shard=int(snakemake.wildcards.shard),
        shards=int(snakemake.wildcards.shards),
        **snakemake.params.run,
        **snakemake.params.datasets,
    )
    log.info("wrote %s", snakemake.output.rows)
