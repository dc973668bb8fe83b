"""Settings of the fusion of text vectors with interactions."""

from typing import Literal

from sidmill.settings.base import machine, science, section


@section("fuse", "docs/fusion.md; fuse.method: none for SIDs and lists of text alone")
class Fuse:
    """Text vectors and training interactions -> fused vectors, of SIDs or of what is compared."""

    method: Literal["none", "graph", "svd", "contrastive"] = science(
        "contrastive",
        (
            "none: text vectors alone | graph: mixed with those of items that are consumed near | "
            "svd: factors of co-consumption are appended | contrastive: a linear map of the text, "
            "learned on items that are consumed near, then graph"
        ),
    )
    use: Literal["sids", "similarity"] = science(
        "similarity",
        (
            "similarity: SIDs are of the text vectors, and the generative recommender (causal) "
            "compares items by further codes, of the fused vectors, which it neither reads nor "
            "generates; nothing else is fused | sids: quantizers read the fused vectors"
        ),
    )
    weight: float = science(
        0.9,
        "share of interactions in the vector of a well-known item; the rest is text",
        above=0,
        maximum=1,
    )
    window: int = science(
        5, "two items are consumed together within so many steps of a history", minimum=1
    )
    neighbours: int = science(
        50, "items consumed together with an item that are kept, the nearest", minimum=1
    )
    shrinkage: float = science(
        5.0,
        "users: an item of n users gets n / (n + shrinkage) of weight; more where data are noisy",
        minimum=0,
    )
    dim: int = science(
        16,
        "svd: dimensions that are appended to those of the text; more with more interactions",
        minimum=1,
    )
    epochs: int = science(
        3, "contrastive: passes over the pairs of items; more overfit a small log", minimum=1
    )
    normalize: bool = science(
        True,
        (
            "true: a vector gets the length that its text vector had | false: the mixture of graph "
            "or contrastive, shorter where neighbours differ; svd keeps the length in any case"
        ),
    )
    whiten: float = science(
        0.25,
        (
            "principal axes of fused vectors are divided by their variance to this power: 0: as "
            "they are | 0.25: variances become their roots | 0.5: all become equal"
        ),
        minimum=0,
        maximum=0.5,
    )
    whiten_dim: int | None = science(
        192,
        "with whiten: principal axes that are kept, the largest; all where there are fewer; "
        "null: all",
        minimum=1,
    )
    folds: int = science(
        4,
        (
            "the generative recommender (causal) learns from the histories of 1/folds of the users "
            "with codes that were fused without these users; 1: with those of all users"
        ),
        minimum=1,
    )
    codebook_sizes: list[int] | None = science(
        None,
        (
            "similarity: codes per level of the codes that are compared, such as [256, 256, 256, "
            "256]; null: those of rqkmeans. Nothing generates them, so more levels cost no token"
        ),
        minimum=1,
        maximum=1048576,
        most=26,
    )
    memory_mb: int = machine(512, "MiB for counting and for a block of vectors", minimum=16)
