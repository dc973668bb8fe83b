"""Settings of embedding."""

from dataclasses import dataclass
from typing import Literal

from sidmill.settings.base import machine, nested, science, section
from sidmill.settings.registry import BACKENDS


@dataclass(frozen=True, kw_only=True)
class EmbeddingFields:
    """Columns of a parquet of embeddings."""

    pid: str = science("pid", "column of ids in your parquet")
    embedding: str = science("embedding", "column of vectors in your parquet")


@section("embedding")
class Embedding:
    """Text -> vectors."""

    backend: str = science(
        "lsa",
        (
            "lsa (no weights, for a quick look) | sentence_transformers | openai (a server) "
            "| precomputed: docs/embedding.md"
        ),
        choices=tuple(BACKENDS),
    )
    model: str | None = science(
        None,
        (
            "sentence_transformers: hub id or folder; openai: the server's name of it; "
            "precomputed: a name for the embedding space"
        ),
    )
    revision: str | None = science(
        None, "commit or tag of the hub model; openai: what you know of the server's version"
    )
    path: str | None = science(
        None, "precomputed: a parquet (pid, embedding), a folder of such, or a .npy"
    )
    ids_path: str | None = science(
        None, "precomputed .npy: its ids in the same order (.parquet with pid, .npy or .txt)"
    )
    fields: EmbeddingFields = nested(
        EmbeddingFields, "precomputed parquet: its columns of ids and of vectors"
    )
    rows: Literal["ids", "catalogue"] = science(
        "ids",
        "precomputed: ids | catalogue: no ids, row i is item i of results/items/text.parquet",
    )
    dim: int | None = science(
        256,
        (
            "dimensions; below a model's own width vectors are cut and renormalised; null: "
            "the model's own"
        ),
        minimum=1,
    )
    shards: int = science(
        2,
        "jobs that embed side by side; one shard should hold 10,000 items or more",
        minimum=1,
        maximum=99999,
    )
    batch_tokens: int | None = machine(
        None, "tokens in a batch, padding included; null: 16384 on a GPU, 1024 on a CPU", minimum=1
    )
    max_length: int = science(512, "tokens after which a text is cut", minimum=1)
    dtype: Literal["auto", "float32", "bfloat16"] = science(
        "auto",
        (
            "auto: bfloat16 where the device has a unit for it | float32 | bfloat16 (float16 "
            "overflows to NaN in Qwen3); name one where jobs run on machines of several kinds"
        ),
    )
    device: str = machine(
        "auto", "auto: a GPU if there is one | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$"
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = science(
        "auto",
        "auto | sdpa | eager | flash_attention_2 (packs batches end to end; needs that package)",
    )
    compiled: bool = science(
        False, "true: torch.compile, for batches of few shapes; pays on long runs at best"
    )
    processes: int = machine(1, "processes that share a shard, one GPU each", minimum=1, maximum=64)
    prompt: str = science(
        "", "put before every text; Qwen3-Embedding wants none on items", may_be_empty=True
    )
    normalize: bool = science(True, "vectors of length 1")
    lsa_sample: int = science(100000, "texts that LSA is fitted to, at most", minimum=2)
    lsa_features: int = science(50000, "words that LSA knows, at most", minimum=2)


@section(
    "openai", "backend openai; OPENAI_BASE_URL and OPENAI_API_KEY come from the environment alone"
)
class Openai:
    """How an embedding server is asked. None of it changes a vector."""

    requests: int = machine(8, "requests at a time", minimum=1, maximum=256)
    texts_per_request: int = machine(64, "texts in each; servers limit it", minimum=1, maximum=2048)
    timeout_s: float = machine(
        120, "seconds without an answer after which a request is given up", above=0, maximum=86400
    )
    retries: int = machine(6, "further tries of a request", minimum=0, maximum=20)
    wait_s: float = machine(
        1.0,
        "seconds before the second try, doubled before each further one; Retry-After is obeyed",
        minimum=0,
        maximum=600,
    )
    allow_http: bool = machine(
        False, "true: unencrypted to another machine, in a network that you trust"
    )


@section(
    "embedding_cost",
    (
        "asked for by results/{collection}/embedding.json: speed of all shards, and what "
        "more items would cost"
    ),
)
class EmbeddingCost:
    """What embedding more items would cost."""

    items: int | None = science(
        None,
        (
            "how many to reckon with; null: the rows of the shards; with published.path the "
            "new and changed ones"
        ),
        minimum=1,
    )
    price_per_hour: float | None = science(
        None, "of one machine that runs one shard, in your currency; null: hours only", minimum=0
    )


@section(
    "matryoshka",
    "asked for by results/{collection}/matryoshka.json: what a smaller embedding.dim loses",
)
class Matryoshka:
    """What fewer dimensions lose."""

    sample: int = science(2000, "texts that are embedded at full width", minimum=2, maximum=20000)
    neighbours: int = science(10, "nearest neighbours of each within the sample", minimum=1)
    dims: list[int] | None = science(
        None,
        "widths to try, a list; null: halves of the full one down to 32, and embedding.dim",
        minimum=1,
        unique=True,
    )


@section("store")
class Store:
    """Vectors on disk."""

    dtype: Literal["float32", "float16"] = science(
        "float32", "float32 | float16 (half the disk; values above 65504 are refused)"
    )
