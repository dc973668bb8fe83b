"""Rule embed_shard: text.parquet -> one shard of embeddings.parquet."""

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
        shard=int(snakemake.wildcards.shard),
        shards=int(snakemake.wildcards.shards),
        model_path=snakemake.input.get("model"),
        match_path=snakemake.input.get("match"),
        published=list(snakemake.input.get("published", [])),
        batch_tokens=machine["batch_tokens"],
        device=machine["device"],
        **snakemake.params.embedding,
    )
    log.info("wrote %s, %d rows", snakemake.output.shard, rows)
