"""Rule embed_shard: text.parquet -> one shard of embeddings.parquet, and what it took."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed.shard import embed_shard

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    machine = snakemake.config["embedding"]
    rows = embed_shard(
        snakemake.input.text,
        snakemake.output.shard,
        snakemake.output.speed,
        shard=int(snakemake.wildcards.shard),
        shards=int(snakemake.wildcards.shards),
        model_path=snakemake.input.get("model"),
        match_path=snakemake.input.get("match"),
        published=list(snakemake.input.get("published", [])),
        **snakemake.params.code,
        batch_tokens=machine["batch_tokens"],
        device=machine["device"],
        processes=machine["processes"],
        http=snakemake.config["openai"],
        **snakemake.params.embedding,
    )
    log.info("wrote %s, %d rows", snakemake.output.shard, rows)
