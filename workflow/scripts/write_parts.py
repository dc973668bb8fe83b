"""Rule write_parts: numbers of items -> files of a dataset."""

from pathlib import Path
from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.core.no_pandas import without_pandas
from sidmill.datasets.write import write_parts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    without_pandas()
    task, _, split = snakemake.wildcards.dataset.partition(".")
    resources = Path(snakemake.scriptdir).resolve().parent / "resources"
    rows = write_parts(
        snakemake.output.parts,
        rows_paths=[*snakemake.input.rows],
        counts_paths=[*snakemake.input.counts],
        task_path=resources / f"tasks/{task}.yaml",
        prompts_folder=resources / "prompts",
        pid2sid=snakemake.input.pid2sid,
        product_pid2sid=snakemake.config["datasets"]["product_pid2sid"],
        texts=[*snakemake.input.get("texts", [])],
        shard=int(snakemake.wildcards.shard),
        shards=int(snakemake.wildcards.shards),
        **snakemake.params.run,
        **snakemake.params.datasets,
    )
    log.info("wrote %s, %d rows", snakemake.output.parts, rows)
