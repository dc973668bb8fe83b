"""Rule embed_shard: text.parquet -> one shard of embeddings.parquet."""

from typing import TYPE_CHECKING

from sidmill.core.job import job
from sidmill.embed.shard import embed_shard

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with job(snakemake) as log:
    settings = {**snakemake.params.embedding, "shards": int(snakemake.wildcards.shards)}
    rows = embed_shard(
        snakemake.input.text,
        snakemake.output.shard,
        shard=int(snakemake.wildcards.shard),
        model_path=snakemake.input.get("model"),
        **settings,
    )
    log.info("wrote %s, %d rows", snakemake.output.shard, rows)
