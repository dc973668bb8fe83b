"""Rule merge_shards: shards of a search -> res.topk, run.trec, dual_res.json."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import run_files, vector_store
from sidmill.retrieval.search import merge_shards
from sidmill.settings.job import of_job
from sidmill.settings.retrieval import Retrieval

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    run = merge_shards(
        snakemake.input.shards,
        vector_store.read_pids(snakemake.input.ids),
        vector_store.read_pids(snakemake.input.query_ids),
        of_job(snakemake, Retrieval),
    )
    run_files.write(*snakemake.output, run, "dual")
    log.info("wrote %s %s", snakemake.output.topk, run.scores.shape)
