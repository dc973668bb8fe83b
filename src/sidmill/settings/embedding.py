"""Settings of embedding."""

from dataclasses import dataclass
from typing import Literal

from sidmill.settings.base import machine, nested, science, section
from sidmill.settings.registry import BACKENDS


@dataclass(frozen=True, kw_only=True)
class EmbeddingFields:
    """Columns, arrays or tensors of embeddings."""

    pid: str = science("pid", "column of ids in your file")
    embedding: str = science("embedding", "column of vectors in your file")


@section("embedding")
class Embedding:
    """Text -> vectors."""

    backend: str = science(
        "lsa",
        (
            "lsa (no model weights, for a first look) | sentence_transformers | openai (a "
            "server) | precomputed: docs/embedding.md"
        ),
        choices=tuple(BACKENDS),
    )
    model: str | None = science(
        None,
        (
            "sentence_transformers: hub id or folder; openai: the name of the model on the "
            "server; precomputed: a name for the embedding space"
        ),
    )
    revision: str | None = science(
        None,
        (
            "commit or tag of the hub model; openai: version of the model on the server, if "
            "you know it"
        ),
    )
    path: str | None = science(
        None,
        (
            "precomputed: a parquet (pid, embedding), a folder of such, or a .npy, .npz, .pt, "
            ".safetensors, .csv, .faiss or .lance"
        ),
    )
    ids_path: str | None = science(
        None,
        (
            "precomputed, vectors without ids: the ids of their rows, in the same order "
            "(.parquet with pid, .npy or .txt)"
        ),
    )
    fields: EmbeddingFields = nested(
        EmbeddingFields,
        "precomputed: names of the columns, arrays or tensors of ids and of vectors",
    )
    rows: Literal["ids", "catalogue"] = science(
        "ids",
        (
            "precomputed. ids: vectors are found by id | catalogue: no ids, row i is item i "
            "of results/items/text.parquet"
        ),
    )
    dim: int | None = science(
        256,
        (
            "dimensions; wider vectors of a model are cut and renormalised; null: all "
            "dimensions of the model"
        ),
        minimum=1,
    )
    shards: int = science(
        2,
        "number of jobs that embed at the same time; give each shard 10,000 items or more",
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
            "auto: bfloat16 if the device computes in it | float32 | bfloat16 (float16 "
            "overflows to NaN in Qwen3); name one if jobs run on different kinds of machines"
        ),
    )
    device: str = machine(
        "auto", "auto: a GPU if there is one | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$"
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = science(
        "auto",
        (
            "auto | sdpa | eager | flash_attention_2 (batches without padding; needs the "
            "package flash-attn)"
        ),
    )
    compiled: bool = science(
        False,
        "true: use torch.compile, with few shapes of batches; can save time in long runs only",
    )
    processes: int = machine(1, "processes that share a shard, one GPU each", minimum=1, maximum=64)
    prompt: str = science(
        "",
        "text put before every item text; Qwen3-Embedding needs none for items",
        may_be_empty=True,
    )
    normalize: bool = science(True, "true: scale vectors to length 1")
    lsa_sample: int = science(100000, "texts that LSA is fitted on, at most", minimum=2)
    lsa_features: int = science(50000, "words in the vocabulary of LSA, at most", minimum=2)


@section(
    "openai",
    ("backend openai; OPENAI_BASE_URL and OPENAI_API_KEY are read from the environment only"),
)
class Openai:
    """How an embedding server is asked. None of it changes a vector."""

    requests: int = machine(8, "requests at the same time", minimum=1, maximum=256)
    texts_per_request: int = machine(
        64, "texts per request; servers have a limit", minimum=1, maximum=2048
    )
    timeout_s: float = machine(
        120, "seconds without an answer after which a request is given up", above=0, maximum=86400
    )
    retries: int = machine(6, "further attempts after a request failed", minimum=0, maximum=20)
    wait_s: float = machine(
        1.0,
        (
            "seconds before the second attempt, doubled before each further one; a "
            "Retry-After of the server is obeyed"
        ),
        minimum=0,
        maximum=600,
    )
    allow_http: bool = machine(
        False, "true: allow unencrypted requests to another machine, in a network that you trust"
    )


@section(
    "embedding_cost",
    (
        "for results/{collection}/embedding.json: embedding speed of all shards, and the "
        "estimated cost of more items"
    ),
)
class EmbeddingCost:
    """What embedding more items would cost."""

    items: int | None = science(
        None,
        (
            "number of items to estimate the cost for; null: the rows of the shards, or with "
            "published.path the new and changed items"
        ),
        minimum=1,
    )
    price_per_hour: float | None = science(
        None,
        "price of one machine that runs one shard, in your currency; null: estimate hours only",
        minimum=0,
    )


@section(
    "matryoshka",
    ("for results/{collection}/matryoshka.json: the loss of quality with a smaller embedding.dim"),
)
class Matryoshka:
    """What fewer dimensions lose."""

    sample: int = science(
        2000,
        "texts in the sample, which are embedded with all dimensions",
        minimum=2,
        maximum=20000,
    )
    neighbours: int = science(10, "nearest neighbours of each text within the sample", minimum=1)
    dims: list[int] | None = science(
        None,
        "list of dimensions to try; null: all dimensions, halved down to 32, and embedding.dim",
        minimum=1,
        unique=True,
    )


@section("store")
class Store:
    """Vectors on disk."""

    dtype: Literal["float32", "float16"] = science(
        "float32", "float32 | float16 (half the disk; values above 65504 are refused)"
    )
