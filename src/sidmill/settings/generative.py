"""Settings of the generative recommender: training, evaluation, lists."""

from typing import Literal

from sidmill.settings.base import machine, science, section
from sidmill.settings.registry import COMPARED


@section(
    "generative",
    ("for results/generative/{quantizer}/metrics.json and topk.parquet (docs/generative.md)"),
)
class Generative:
    """Training of the generative recommender."""

    model: Literal["causal", "tiger"] = science(
        "causal",
        "causal: learns from all positions of a history in one pass | tiger: encoder-decoder (T5), "
        "one row per position; sizes as published in configs/tiger.yaml",
    )
    features: Literal["sid", "sid+text"] = science(
        "sid", "causal: what describes an item: sid | sid+text (its text embedding too)"
    )
    identifiers: list[str] = science(
        [],
        "causal: further quantizers whose SIDs describe the same items, such as rqvae; scores use "
        "all of them",
        choices=COMPARED,
        unique=True,
        may_be_empty=True,
    )
    seeds: int = science(
        3,
        (
            "number of models, trained with different seeds; figures are their mean and "
            "standard deviation"
        ),
        minimum=1,
    )
    hidden_dim: int = science(
        64,
        "width of the model, causal: a multiple of 2 n_heads; raise it with more data",
        minimum=2,
    )
    n_layers: int = science(2, "Transformer blocks; tiger: of encoder and decoder each", minimum=1)
    n_heads: int = science(2, "attention heads", minimum=1)
    head_dim: int = science(64, "tiger: width of a head", minimum=1)
    feed_forward_dim: int = science(1024, "tiger: width of the feed-forward layers", minimum=1)
    max_length: int = science(50, "latest items of a history that the model reads", minimum=1)
    dropout: float = science(0.4, "dropout rate; lower it with more data", minimum=0, below=1)
    item_dropout: float = science(
        0.2, "causal: dropout rate of the codewords' components", minimum=0, below=1
    )
    loss: Literal["full", "in_batch"] = science(
        "full",
        (
            "causal: softmax over all targets in train (full) | over the targets of a batch "
            "(in_batch), for 50,000 items or more"
        ),
    )
    n_negatives: int = science(
        1024, "in_batch: random items added to the targets of the batch", minimum=0
    )
    temperature: float = science(
        0.07, "causal: cosines are divided by this number; lower: a sharper softmax", above=0
    )
    label_smoothing: float = science(
        0.0, "share of a target that is spread over all others", minimum=0, below=1
    )
    similarity: bool = science(
        True,
        (
            "causal: true: add to an item's score how similar its codewords (sid+text: its "
            "embedding) are to those of the latest items"
        ),
    )
    similarity_decay: float = science(
        0.6,
        "causal: weight of an item of the history, relative to the item after it",
        above=0,
        maximum=1,
    )
    new_item_boost: float = science(
        0.5,
        (
            "causal: added to the scores (log-odds) of items that no training history has; "
            "larger: more new items are found, fewer others"
        ),
        minimum=0,
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


@section("generative_evaluation")
class GenerativeEvaluation:
    """Metrics of the generative recommender beside baselines."""

    with_recommender: bool = science(
        True, "true: also measure the sequence recommender, and the sum of both scores (fused)"
    )
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
    beam_width: int = science(
        50, "beams per user in the search without constraint, which counts illegal SIDs", minimum=1
    )
    illegal_users: int = science(
        1000, "users in the search without constraint; 0: no such search", minimum=0
    )
    device: str = machine("auto", "auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")
    memory_mb: int = machine(1024, "MiB for scores", minimum=16)


@section("generative_topk")
class GenerativeTopk:
    """Lists of the generative recommender for every user."""

    k: int = science(20, "items per user", minimum=1)
    mask_seen: bool = science(False, "true: leave out items of the history")
    decoding: Literal["auto", "exact", "beam"] = science(
        "auto",
        "exact: score all items | beam: constrained beams | auto: causal exact, tiger beams",
    )
    beam_width: int = science(
        50,
        "beams per user; at least k; with mask_seen more, because beams that end in what the user "
        "had give no item",
        minimum=1,
    )
    device: str = machine("auto", "auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")
    memory_mb: int = machine(1024, "MiB for scores", minimum=16)
