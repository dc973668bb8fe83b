"""Settings of sids."""

from typing import Literal

from sidmill.settings.base import science, section
from sidmill.settings.registry import COMPARED, STRATEGIES


@section("given", "quantizer: given: docs/given-sids.md")
class Given:
    """SIDs that exist."""

    path: str | None = science(
        None, "a pid2sid.parquet, a codes.parquet, or an index.json of LC-Rec's form"
    )
    id_offset: int = science(
        0, "added to the ids of the file: 1 where it counts from 0 and the catalogue from 1"
    )
    codebook_sizes: list[int] | None = science(
        None,
        (
            "codes per level, such as [256, 256, 256]; null: as the file says, else its "
            "largest codes + 1"
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
            "SIDs of items that the catalogue lacks. error: stop | reject: list them in "
            "results/given/rejects.parquet"
        ),
    )
    measure_neighbours: bool = science(
        False,
        (
            "true: embed the items, for the figures of quality.json about near items; SIDs "
            "need no vectors"
        ),
    )


@section("collisions")
class Collisions:
    """What happens to items of the same codes."""

    strategy: str = science(
        "reassign",
        (
            "reassign: move the fewest items to free codes | sinkhorn: LC-Rec's way | "
            "suffix: one more token | none"
        ),
        choices=tuple(STRATEGIES),
    )
    identical_text: Literal["separate", "share"] = science(
        "separate",
        "separate: every item its own SID | share: items of equal text share one on purpose",
    )
    suffix_size: int = science(
        256, "suffix: how many items may share a code", minimum=1, maximum=1048576
    )
    sinkhorn_epsilon: float = science(
        0.003,
        (
            "sinkhorn: smaller is closer to the nearest code, larger spreads more; of half "
            "the range of distances"
        ),
        above=0,
    )
    sinkhorn_iterations: int = science(50, "sinkhorn: scalings of a transport plan", minimum=1)
    sinkhorn_rounds: int = science(
        20, "sinkhorn: rounds at most; what they leave is placed as by reassign", minimum=1
    )


@section("published", "docs/catalogue-versions.md")
class Published:
    """SIDs of an earlier version that stay."""

    path: str | None = science(
        None,
        (
            "a version that `sidmill publish` made: its SIDs stay, only other items are "
            "embedded; null: all SIDs are new"
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
            "SIDs of items that are gone. reserve: no other item gets them | release: they are "
            "free again, as collisions.strategy none needs it"
        ),
    )


@section("churn", "with published.path: results/churn.json, and when it calls retraining due")
class Churn:
    """When retraining is due."""

    max_error_growth: float = science(
        0.25,
        "relative error of all items over that of those the quantizer was trained on, less 1",
        minimum=0,
    )
    max_divergence: float = science(
        0.1,
        (
            "bits (Jensen-Shannon) by which tokens of items since training diverge, beyond "
            "what chance makes"
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
        500, "items of each kind whose nearest neighbours are looked up among all", minimum=1
    )
    neighbours: int = science(10, "nearest neighbours of each", minimum=1)


@section("index")
class Index:
    """The SIDs in the form of LC-Rec."""

    path: str = science(
        "results/index.json",
        "the SIDs in LC-Rec's form; folder and name are those that its reader expects",
        pattern="^[^{}]+[.]json$",
    )


@section("quality")
class Quality:
    """Figures of quality.json."""

    neighbour_queries: int = science(
        1000, "items whose nearest neighbours are looked up among all", minimum=1
    )
    neighbours: int = science(10, "nearest neighbours of each", minimum=1)


@section("evaluation", "of one quantizer, for results/{quantizer}/evaluation.json")
class Evaluation:
    """Figures of one quantizer."""

    neighbour_queries: int = science(
        1000, "items whose nearest neighbours are looked up among all", minimum=1
    )
    n_neighbours: int = science(20, "nearest neighbours of each, by vector and by code", minimum=1)
    rbo_persistence: float = science(
        0.9,
        "rank-biased overlap: 0.9 gives the first ten of twenty 74 % of the weight",
        above=0,
        below=1,
    )
    sequences: str | None = science(
        None,
        (
            "histories for co-consumption: results/interactions/sequences.parquet, or a file "
            "of that form"
        ),
        pattern="[.]parquet$",
    )


@section("comparison")
class Comparison:
    """Several quantizers side by side."""

    members: list[str] = science(
        ["rqkmeans", "rqkmeans_balanced", "rqkmeans_plus", "rqvae", "fsq", "opq", "pca_grid"],
        "quantizers side by side, at least one; given too",
        choices=COMPARED,
        unique=True,
    )
    downstream: bool = science(
        False,
        (
            "true: train the generative recommender on the SIDs of every member too, and compare "
            "its metrics (docs/generative.md)"
        ),
    )
