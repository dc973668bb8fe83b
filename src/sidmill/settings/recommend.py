"""Settings of the sequence recommender: training, evaluation, lists."""

from typing import Literal

from sidmill.settings.base import machine, science, section


@section(
    "recommender",
    "for results/recommender/metrics.json and topk.parquet (docs/recommender.md)",
)
class Recommender:
    """Training of the sequence recommender."""

    train_from: Literal["text", "mmap"] = science(
        "text", "text: the embeddings of this run | mmap: memory maps"
    )
    mmap_path: str | None = science(
        None, "mmap: the mmap.json of maps made elsewhere; null: results/mmap/mmap.json"
    )
    load: str | None = science(
        None, "a model.safetensors of the same shape to start from; null: random weights"
    )
    features: Literal["text", "id", "text+id"] = science(
        "text+id",
        (
            "what describes an item: text | id | text+id; with text, items without "
            "interactions are scored, with text alone also items added later"
        ),
    )
    adaptor: Literal["mlp", "moe"] = science(
        "mlp",
        "network from text embedding to item vector: mlp | moe (mixture of whitening experts)",
    )
    n_experts: int = science(4, "moe: number of experts", minimum=1)
    whiten: bool = science(
        True, "true: decorrelate the embeddings first; otherwise ids outweigh the text"
    )
    hidden_dim: int = science(
        64,
        "width of the model, a multiple of 2 n_heads; raise it with more interactions",
        minimum=2,
    )
    n_layers: int = science(2, "Transformer blocks", minimum=1)
    n_heads: int = science(2, "attention heads", minimum=1)
    n_interests: int = science(
        0, "clusters of the item space that the model also attends to; 0: none", minimum=0
    )
    max_length: int = science(50, "latest items of a history that the model reads", minimum=1)
    dropout: float = science(0.3, "dropout rate; lower it with more data", minimum=0, below=1)
    text_dropout: float = science(
        0.2, "dropout rate of the embeddings and the adaptor", minimum=0, below=1
    )
    loss: Literal["full", "in_batch"] = science(
        "full",
        (
            "softmax over all targets in train (full) | over the targets of a batch "
            "(in_batch), for 50,000 items or more"
        ),
    )
    n_negatives: int = science(
        1024, "in_batch: random items added to the targets of the batch", minimum=0
    )
    temperature: float = science(
        0.07, "cosines are divided by this number; lower: a sharper softmax", above=0
    )
    label_smoothing: float = science(
        0.0, "share of a target that is spread over all items", minimum=0, below=1
    )
    batch_users: int = science(128, "histories in a step", minimum=1)
    learning_rate: float = science(0.001, "of AdamW; halve it if the loss jumps", above=0)
    weight_decay: float = science(0.01, "of AdamW", minimum=0)
    warmup_steps: int = science(50, "steps over which the learning rate rises", minimum=0)
    max_epochs: int = science(100, "passes over the histories, at most", minimum=1)
    patience: int = science(
        6, "epochs without a better valid NDCG@10 before training ends", minimum=1
    )
    valid_users: int = science(
        20000, "number of users in the validation after an epoch, approximately", minimum=1
    )
    shuffle_users: int = science(
        131072,
        "number of users that are shuffled together; their histories are in memory",
        minimum=1,
    )
    save_steps: int = machine(
        1000, "steps between saved states; a killed training resumes from the last", minimum=1
    )
    dtype: Literal["float32", "bfloat16"] = science(
        "float32", "float32 | bfloat16 (matrix products; meant for GPUs)"
    )
    device: str = machine("auto", "auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")
    memory_mb: int = machine(1024, "MiB for scores in validation", minimum=16)


@section("recommender_evaluation")
class RecommenderEvaluation:
    """Metrics of the recommender and its baselines."""

    mask_seen: bool = science(
        False, "true: rank only items that are not in the history; false if people buy items again"
    )
    knn_shrinkage: float = science(
        5.0, "item-kNN: number of users added to the denominator of the cosine", minimum=0
    )
    knn_decay: float = science(
        0.6,
        "kNN: weight of an item of the history, relative to the item after it",
        above=0,
        maximum=1,
    )
    n_resamples: int = science(
        1000, "bootstrap resamples of users, for the intervals; 0: no intervals", minimum=0
    )
    device: str = machine("auto", "auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")
    memory_mb: int = machine(1024, "MiB for scores", minimum=16)


@section("recommender_topk")
class RecommenderTopk:
    """Lists for every user."""

    k: int = science(20, "items per user", minimum=1)
    mask_seen: bool = science(False, "true: leave out items of the history")
    index: Literal["flat", "hnsw"] = science(
        "flat", "flat: exact | hnsw: approximate, for millions of items"
    )
