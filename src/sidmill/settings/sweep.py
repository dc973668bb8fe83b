"""Settings of the sweep: which tokenizers are made and compared by a recommender."""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, NamedTuple

from sidmill.settings.base import science, section
from sidmill.settings.registry import NETWORKS, TRAINED

RESIDUAL_SHAPE, NETWORK_SHAPE = "rqkmeans", "rqvae"  # sections that hold the codes per level


@section("sweep", "for results/sweep/sweep.json (docs/sweep.md); needs interactions.path")
class Sweep:
    """Many tokenizers, each with a recommender of its own."""

    shapes: list[list[int]] = science(
        [[256, 256, 256], [64, 128, 256], [48, 256, 256], [64, 64, 64, 64]],
        "codes per level of each tokenizer",
        minimum=1,
        maximum=1048576,
        unique=True,
    )
    quantizers: list[str] = science(
        ["rqkmeans"], "quantizers that are trained", choices=tuple(TRAINED), unique=True
    )
    fuse: list[Literal["none", "graph", "svd", "contrastive"]] = science(
        ["none"],
        (
            "item vectors that quantizers are trained on: none (text) | graph | svd | contrastive "
            "(docs/fusion.md)"
        ),
        unique=True,
    )
    fuse_weights: list[float] = science(
        [0.3], "fuse.weight of the others, each", above=0, maximum=1, unique=True
    )
    design: Literal["one_at_a_time", "all"] = science(
        "one_at_a_time",
        (
            "one_at_a_time: one list is varied, the others keep their first entry | all: every "
            "combination"
        ),
    )
    anchors: list[Literal["given", "shuffled"]] = science(
        [],
        (
            "further SIDs, for reference: given (given.path) | shuffled (those of the first "
            "tokenizer, dealt to the items at random)"
        ),
        unique=True,
        may_be_empty=True,
    )
    metric: Literal["NDCG@10", "HR@10"] = science(
        "HR@10", "valid metric that the winner is chosen by: NDCG@10 | HR@10"
    )
    test: bool = science(
        False, "true: also measure on test, in columns of their own; the winner is chosen on valid"
    )


class Tokenizer(NamedTuple):
    """One tokenizer of a sweep.

    Attributes:
        quantizer: what is trained.
        shape: codes per level.
        fuse: method that makes the vectors it is trained on.
        weight: of the fusion; None without one.
    """

    quantizer: str
    shape: tuple[int, ...]
    fuse: str
    weight: float | None

    @property
    def fusion(self) -> str:
        """Name of the vectors, such as graph0.3."""
        return self.fuse if self.weight is None else f"{self.fuse}{self.weight!r}"

    @property
    def name(self) -> str:
        """Name of its folder, such as rqkmeans.64x128x256.graph0.3."""
        return f"{self.quantizer}.{'x'.join(map(str, self.shape))}.{self.fusion}"


NAME = re.compile(r"(?P<quantizer>[a-z_]+)\.(?P<shape>\d+(?:x\d+)*)\.(?P<fusion>.+)")
FUSION = re.compile(r"none|(?P<fuse>graph|svd|contrastive)(?P<weight>\d.*)")
# The same as regular expressions of Snakemake's wildcards, which have no groups.
SHAPE_PATTERN, FUSION_PATTERN = r"\d+(x\d+)*", r"none|(graph|svd|contrastive)\d[\d.e-]*"


def tokenizers(sweep: Sweep) -> list[Tokenizer]:
    """List the tokenizers that are trained, the reference first, without repeats.

    The first has the first entry of each list.
    """
    fusions: list[tuple[str, float | None]] = []
    for method in sweep.fuse:
        weights = [None] if method == "none" else [float(one) for one in sweep.fuse_weights]
        fusions += [(method, weight) for weight in weights]
    axes: list[list[Any]] = [sweep.quantizers, [tuple(one) for one in sweep.shapes], fusions]

    combinations = product(*axes) if sweep.design == "all" else _one_at_a_time(axes)
    found = [Tokenizer(quantizer, shape, *fusion) for quantizer, shape, fusion in combinations]
    return list(dict.fromkeys(found))


def _one_at_a_time(axes: list[list[Any]]) -> Iterator[tuple[Any, ...]]:
    """Every entry of each list, together with the first entries of the others."""
    first = [axis[0] for axis in axes]
    for number in (1, 0, 2):  # shapes, then quantizers, then fusions
        for entry in axes[number]:
            yield (*first[:number], entry, *first[number + 1 :])


def read_name(name: str) -> Tokenizer:
    """The tokenizer that has a name.

    Raises:
        ValueError: if ``name`` is not of that form.
    """
    match = NAME.fullmatch(name)
    fusion = FUSION.fullmatch(match["fusion"]) if match else None
    if match is None or fusion is None:
        raise ValueError(f"{name}: no name of a tokenizer, such as rqkmeans.64x128x256.graph0.3")
    shape = tuple(int(size) for size in match["shape"].split("x"))
    weight = None if fusion["weight"] is None else float(fusion["weight"])
    return Tokenizer(match["quantizer"], shape, fusion["fuse"] or "none", weight)


def overlay(tokenizer: Tokenizer) -> dict[str, Any]:
    """Settings that make this tokenizer that of a run, by section: an overlay of config.yaml."""
    sizes = list(tokenizer.shape)
    sections: dict[str, Any] = {"quantizer": tokenizer.quantizer}

    # rqkmeans_plus begins at residual k-means of the same codes per level.
    if tokenizer.quantizer not in NETWORKS or tokenizer.quantizer == "rqkmeans_plus":
        sections[RESIDUAL_SHAPE] = {"n_levels": len(sizes), "codebook_size": sizes}
    if tokenizer.quantizer in NETWORKS:
        sections[NETWORK_SHAPE] = {"codebook_sizes": sizes}
    sections["fuse"] = {"method": tokenizer.fuse}
    if tokenizer.fuse != "none":
        sections["fuse"]["use"] = "sids"
    if tokenizer.weight is not None:
        sections["fuse"]["weight"] = tokenizer.weight
    return sections
