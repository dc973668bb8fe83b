"""Rule embed_shard: text.parquet -> one shard of embeddings.parquet, and what it took."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed.shard import ShardFiles, embed_shard
from sidmill.settings.embedding import Embedding, Openai
from sidmill.settings.job import of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    files = ShardFiles(
        snakemake.input.text,
        snakemake.output.shard,
        snakemake.output.speed,
        model_path=snakemake.input.get("model"),
        match_path=snakemake.input.get("match"),
        published=list(snakemake.input.get("published", [])),
    )
    rows = embed_shard(
        files,
        of_job(snakemake, Embedding),
        of_job(snakemake, Openai),
        shard=int(snakemake.wildcards.shard),
        shards=int(snakemake.wildcards.shards),
        code=snakemake.params.code["code"],
    )
    log.info("wrote %s, %d rows", snakemake.output.shard, rows)
