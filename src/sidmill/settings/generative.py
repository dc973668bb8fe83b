"""Settings of the generative recommender: training, evaluation, lists."""

from typing import Literal

from sidmill.settings.base import machine, science, section
from sidmill.settings.registry import COMPARED


@section(
    "generative",
    "asked for by results/generative/{quantizer}/metrics.json and topk.parquet "
    "(docs/generative.md)",
)
class Generative:
    """Training of the generative recommender."""

    model: Literal["causal", "tiger"] = science(
        "causal",
        "causal: learns from all positions of a history in one pass | tiger: encoder-decoder (T5), "
        "one row per position; sizes as published in configs/tiger.yaml",
    )
    features: Literal["sid", "sid+text"] = science(
        "sid", "causal: what an item is made of: sid | sid+text (its embedding too)"
    )
    identifiers: list[str] = science(
        [],
        "causal: further quantizers whose SIDs describe the same items, such as rqvae; scores use "
        "all of them",
        choices=COMPARED,
        unique=True,
        may_be_empty=True,
    )
    seeds: int = science(3, "models that are trained; figures are their mean and spread", minimum=1)
    hidden_dim: int = science(
        64, "width of the model, causal: a multiple of 2 n_heads; more with more data", minimum=2
    )
    n_layers: int = science(2, "Transformer blocks; tiger: of encoder and decoder each", minimum=1)
    n_heads: int = science(2, "attention heads", minimum=1)
    head_dim: int = science(64, "tiger: width of a head", minimum=1)
    feed_forward_dim: int = science(1024, "tiger: width of the feed-forward layers", minimum=1)
    max_length: int = science(50, "latest items of a history that the model reads", minimum=1)
    dropout: float = science(0.3, "share; less with more data", minimum=0, below=1)
    item_dropout: float = science(
        0.2, "causal: share of the codewords' components", minimum=0, below=1
    )
    loss: Literal["full", "in_batch"] = science(
        "full",
        "causal: full: against all targets in train | in_batch: those of a batch, from 50,000 "
        "items on",
    )
    n_negatives: int = science(
        1024, "in_batch: random items added to those of the batch", minimum=0
    )
    temperature: float = science(
        0.07, "causal: cosines are divided by it; lower is sharper", above=0
    )
    label_smoothing: float = science(
        0.0, "share of a target that is spread over all others", minimum=0, below=1
    )
    similarity: bool = science(
        True,
        "causal: add the similarity of an item's codewords (sid+text: embedding) to those of the "
        "latest items",
    )
    similarity_decay: float = science(
        0.6, "causal: weight of an item of the history against the one after it", above=0, maximum=1
    )
    new_item_boost: float = science(
        0.5,
        "causal: added to the scores of items that are no target in train (log-odds); more finds "
        "more new items, and fewer others",
        minimum=0,
    )
    batch_users: int = science(128, "histories in a step", minimum=1)
    learning_rate: float = science(0.001, "of AdamW; halve it when the loss jumps", above=0)
    weight_decay: float = science(0.01, "of AdamW", minimum=0)
    warmup_steps: int = science(50, "steps over which the learning rate rises", minimum=0)
    max_epochs: int = science(100, "passes over the histories, at most", minimum=1)
    patience: int = science(
        6, "epochs without a better valid NDCG@10 before training ends", minimum=1
    )
    valid_users: int = science(
        20000, "approximate number of users in the validation after an epoch", minimum=1
    )
    shuffle_users: int = science(
        131072, "users mixed at a time; their histories are in memory", minimum=1
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
        True, "true: measure the sequence recommender too, and the sum of both scores (fused)"
    )
    mask_seen: bool = science(
        False, "true: rank only what the user did not have; false where people buy again"
    )
    knn_shrinkage: float = science(
        5.0, "item-kNN: added to the denominator of cosines, in users", minimum=0
    )
    knn_decay: float = science(
        0.6, "kNN: weight of an item against the one after it", above=0, maximum=1
    )
    n_resamples: int = science(
        1000, "bootstrap resamples of the users behind the intervals; 0: none", minimum=0
    )
    beam_width: int = science(
        50, "beams without constraint, of which the illegal ones are counted", minimum=1
    )
    illegal_users: int = science(
        1000, "users of whom the beams for one target are counted; 0: none", minimum=0
    )
    device: str = machine("auto", "auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")
    memory_mb: int = machine(1024, "MiB for scores", minimum=16)


@section("generative_topk")
class GenerativeTopk:
    """Lists of the generative recommender for every user."""

    k: int = science(20, "items per user", minimum=1)
    mask_seen: bool = science(False, "true: leave out what the user had")
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
