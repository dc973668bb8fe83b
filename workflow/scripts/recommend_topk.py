"""Rule recommend_topk: vectors of items and users -> topk.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.formats import code_files
from sidmill.recommend.topk import recommend
from sidmill.settings.job import of_job
from sidmill.settings.recommend import RecommenderTopk

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    users = recommend(
        snakemake.input.listing,
        snakemake.input.sequences,
        snakemake.input.item_ids,
        code_files.read(snakemake.input.pid2sid, "sid"),
        snakemake.output.topk,
        of_job(snakemake, RecommenderTopk),
    )
    log.info("wrote %s, %d users", snakemake.output.topk, users)
