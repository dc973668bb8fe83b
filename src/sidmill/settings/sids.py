"""Settings of sids."""

from typing import Literal

from sidmill.settings.base import science, section
from sidmill.settings.registry import COMPARED, STRATEGIES


@section("given", "for quantizer: given (docs/given-sids.md)")
class Given:
    """Existing SIDs."""

    path: str | None = science(
        None, "a pid2sid.parquet, a codes.parquet, or an index.json of LC-Rec's form"
    )
    id_offset: int = science(
        0, "added to the ids of the file: 1 if the file counts from 0 and the catalogue from 1"
    )
    codebook_sizes: list[int] | None = science(
        None,
        (
            "codes per level, such as [256, 256, 256]; null: from the file's metadata, else "
            "the largest code of each level + 1"
        ),
        minimum=1,
        maximum=1048576,
        most=26,
    )
    on_missing_sids: Literal["error", "reject"] = science(
        "error",
        (
            "items of the catalogue without a SID. error: stop | reject: list them in "
            "results/items/rejects.parquet"
        ),
    )
    on_unknown_items: Literal["error", "reject"] = science(
        "error",
        (
            "SIDs of items that are not in the catalogue. error: stop | reject: list them in "
            "results/given/rejects.parquet"
        ),
    )
    measure_neighbours: bool = science(
        False,
        (
            "true: embed the items, to measure their nearest neighbours in quality.json; the "
            "SIDs need no vectors"
        ),
    )


@section("collisions")
class Collisions:
    """What happens to items of the same codes."""

    strategy: str = science(
        "reassign",
        (
            "reassign: move the fewest items to free codes | sinkhorn: the method of LC-Rec "
            "| suffix: one more token | none: items may share a SID"
        ),
        choices=tuple(STRATEGIES),
    )
    identical_text: Literal["separate", "share"] = science(
        "separate",
        "separate: every item has its own SID | share: items with identical text share one",
    )
    suffix_size: int = science(
        256, "suffix: largest number of items with the same codes", minimum=1, maximum=1048576
    )
    sinkhorn_epsilon: float = science(
        0.003,
        (
            "sinkhorn: regularisation, as a share of half the range of distances; smaller: "
            "closer to the nearest code, larger: more even"
        ),
        above=0,
    )
    sinkhorn_iterations: int = science(50, "sinkhorn: iterations per transport plan", minimum=1)
    sinkhorn_rounds: int = science(
        20,
        "sinkhorn: rounds, at most; items that still share codes are then moved as by reassign",
        minimum=1,
    )


@section("published", "docs/catalogue-versions.md")
class Published:
    """SIDs of an earlier version that stay."""

    path: str | None = science(
        None,
        (
            "a version that `sidmill publish` made: its SIDs stay, only new and changed "
            "items are embedded; null: all SIDs are new"
        ),
    )
    changed: Literal["keep", "resolve"] = science(
        "keep",
        (
            "an item whose text changed. keep: its SID stays | resolve: it may get another "
            "one; results/churn.parquet lists them"
        ),
    )
    removed: Literal["reserve", "release"] = science(
        "reserve",
        (
            "SIDs of removed items. reserve: no other item gets them | release: other items "
            "may get them; collisions.strategy none needs release"
        ),
    )
    refresh: Literal["none", "align", "warm_start"] = science(
        "none",
        (
            "none: the codebooks of the version encode all items | warm_start: train the quantizer "
            "again, from the codes that the items have; SIDs whose codes stay are kept | align: "
            "train it from scratch and rename its codewords; keeps fewer SIDs"
        ),
    )


@section(
    "churn",
    (
        "with published.path, for results/churn.json: limits above which it says that "
        "retraining is due; items since training: those that the quantizer was not "
        "trained on"
    ),
)
class Churn:
    """When retraining is due."""

    max_error_growth: float = science(
        0.25,
        (
            "relative error of all items, divided by that of the items the quantizer was "
            "trained on, minus 1"
        ),
        minimum=0,
    )
    max_divergence: float = science(
        0.1,
        (
            "Jensen-Shannon divergence, in bits, of the tokens of items since training, "
            "beyond what chance gives"
        ),
        minimum=0,
        maximum=1,
    )
    max_displaced_share: float = science(
        0.5,
        "share of items since training that did not get the SID of their codes",
        minimum=0,
        maximum=1,
    )
    max_untrained_share: float = science(0.5, "share of items since training", minimum=0, maximum=1)
    min_items: int = science(
        100,
        "with fewer items since training, divergence and displacement are not judged",
        minimum=1,
    )
    neighbour_queries: int = science(
        500, "items of each kind whose nearest neighbours among all items are searched", minimum=1
    )
    neighbours: int = science(10, "nearest neighbours per item", minimum=1)
    compare_retraining: bool = science(
        True,
        (
            "published.refresh: warm_start: also train from scratch, for the SIDs that would stay "
            "and the error; the training takes twice as long"
        ),
    )


@section("index")
class Index:
    """The SIDs in the form of LC-Rec."""

    path: str = science(
        "results/index.json",
        "the SIDs in the form of LC-Rec; use the folder and file name that its reader expects",
        pattern="^[^{}]+[.]json$",
    )


@section("quality")
class Quality:
    """Figures of quality.json."""

    neighbour_queries: int = science(
        1000, "items whose nearest neighbours among all items are searched", minimum=1
    )
    neighbours: int = science(10, "nearest neighbours per item", minimum=1)


@section("evaluation", "for results/{quantizer}/evaluation.json, the figures of one quantizer")
class Evaluation:
    """Figures of one quantizer."""

    neighbour_queries: int = science(
        1000, "items whose nearest neighbours among all items are searched", minimum=1
    )
    n_neighbours: int = science(20, "nearest neighbours per item, by vector and by code", minimum=1)
    rbo_persistence: float = science(
        0.9,
        (
            "rank-biased overlap: with 0.9 the first ten of twenty neighbours have 74 % of "
            "the weight"
        ),
        above=0,
        below=1,
    )
    sequences: str | None = science(
        None,
        (
            "histories for co-consumption: results/interactions/sequences.parquet, or a file "
            "of the same format"
        ),
        pattern="[.]parquet$",
    )


@section("comparison")
class Comparison:
    """Several quantizers side by side."""

    members: list[str] = science(
        ["rqkmeans", "rqkmeans_balanced", "rqkmeans_plus", "rqvae", "fsq", "opq", "pca_grid"],
        "quantizers that are compared, at least one; given SIDs (given) too",
        choices=COMPARED,
        unique=True,
    )
    downstream: bool = science(
        False,
        (
            "true: train the generative recommender on the SIDs of every member too, and compare "
            "its metrics; items are compared by SIDs alone there (docs/generative.md)"
        ),
    )
