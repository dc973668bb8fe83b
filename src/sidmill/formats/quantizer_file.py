"""``quantizer.safetensors``: the one form that every quantizer leaves.

    codebook.{l}           float32 (K_l, d), level 0 first
    price.{l}              float32 (K_l,), of balanced codebooks: added to the squared distance

A quantizer that learned its own space, such as an RQ-VAE, also holds the way there and back:

    encoder.{i}.weight     float32 (out, in) of layer i; the first takes D, the last gives d
    encoder.{i}.bias       float32 (out,)
    encoder.skip           float32 () or (d, D), where the input also goes past the layers
    encoder.bound          float32 (), where what comes out is clamped to -bound and bound
    decoder.*              the same, from d to D

A quantizer whose first level is the category of an item (``numeric.category_codes``) also holds

    category.codeword      float32 (K_0, D), what the encoder, or level 1, is not given any more
    category.mean          float32 (G, D) of G categories, for items that have none of them
    category.root          int32 (G,), the first split of a category, or -1 - its code
    category.normal        float32 (S, D) of S splits
    category.threshold     float32 (S,), rows with a product of at least this take the second way
    category.next          int32 (S, 2), a split, or -1 - a code

SIDs that were given, and not made here, have a quantizer without codebooks: ``kind`` is given, and
``settings`` has ``codebook_sizes``.

Facts, as :mod:`sidmill.io.tensors` keeps them: ``kind``, ``settings``, ``fingerprint``, of
balanced codebooks ``balance``, and with categories ``categories``: ``field``, ``names`` (G), and
``numbers``, the category that each name of the field belongs to.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.core.listing import differences
from sidmill.io import tensors
from sidmill.settings import registry

FUSE = "fuse."  # facts of a fingerprint that begin so are of a fusion
GIVEN = registry.GIVEN  # the kind of a quantizer that has no codebooks
CATEGORY_FACTS = ("field", "names", "numbers")
# Names of the tensors of Categories.
CATEGORY_TENSORS = {
    "codewords": "category.codeword",
    "means": "category.mean",
    "roots": "category.root",
    "normals": "category.normal",
    "thresholds": "category.threshold",
    "ways": "category.next",
}


class Network(NamedTuple):
    """Linear layers with ReLU between them: ``layers(x) + skip x``. See :mod:`sidmill.numeric.mlp`.

    With a bound, every component of that is clamped to between -bound and bound.

    Attributes:
        weights: float32 (out, in) per layer.
        biases: float32 (out,) per layer.
        skip: float32 (last out, first in), or () for a multiple of the input, or None.
        bound: float32 (), above 0, or None.
    """

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    skip: np.ndarray | None
    bound: np.ndarray | None = None

    @property
    def width(self) -> int:
        """The largest number of values that a row has inside."""
        result: int = max(max(weight.shape) for weight in self.weights)
        return result


class Categories(NamedTuple):
    """How the first level follows from the category of an item.

    Attributes:
        field: where the catalogue has it.
        names: of the G categories.
        numbers: the category of each name in the field; merged ones have that of another name.
        codewords: float32 (K_0, D), what a code of the level says of a vector.
        means: float32 (G, D).
        roots: int32 (G,), the first split of a category, or -1 - its code.
        normals: float32 (S, D) of the splits.
        thresholds: float32 (S,).
        ways: int32 (S, 2), where rows below the threshold go, and where the others: a split, or
            -1 - a code.
    """

    field: str
    names: list[str]
    numbers: dict[str, int]
    codewords: np.ndarray
    means: np.ndarray
    roots: np.ndarray
    normals: np.ndarray
    thresholds: np.ndarray
    ways: np.ndarray

    def code_names(self) -> list[str]:
        """A name of each code of the level; the parts of a split category are numbered."""
        owners = np.full(len(self.codewords), -1)
        for number, root in enumerate(self.roots.tolist()):
            waiting = [root]
            while waiting:
                node = waiting.pop()
                if node < 0:
                    owners[-1 - node] = number
                else:
                    waiting += self.ways[node].tolist()

        # Codes of one category in their order.
        total = np.bincount(owners, minlength=len(self.names))
        parts = np.arange(len(owners)) - np.searchsorted(owners, owners)
        return [
            self.names[owner]
            if total[owner] == 1
            else f"{self.names[owner]} ({part + 1} of {total[owner]})"
            for owner, part in zip(owners.tolist(), parts.tolist(), strict=True)
        ]


class Quantizer(NamedTuple):
    """Codebooks, and where they come from.

    Attributes:
        kind: rqkmeans, ...
        codebooks: float32 (K_l, d) per level; none where SIDs were given.
        settings: the settings it was trained with.
        fingerprint: the embeddings it was trained on.
        encoder: from vectors (D) to the space of the codebooks (d); None where they are one.
        decoder: the way back.
        prices: float32 (K_l,) per level, or empty.
        balance: per level what the prices cost and gained, or empty.
        categories: how the first level follows from the category of an item; None where all levels
            follow from vectors.
    """

    kind: str
    codebooks: list[np.ndarray]
    settings: dict[str, Any]
    fingerprint: dict[str, Any]
    encoder: Network | None = None
    decoder: Network | None = None
    prices: Sequence[np.ndarray] = ()
    balance: Sequence[dict[str, Any]] = ()
    categories: Categories | None = None

    @property
    def dim(self) -> int:
        """D, the dimension of the vectors it takes."""
        result: int = (self.encoder.weights[0] if self.encoder else self.codebooks[0]).shape[1]
        return result

    @property
    def codebook_sizes(self) -> list[int]:
        """K_l per level."""
        if self.kind == GIVEN and not self.codebooks:
            return list(self.settings["codebook_sizes"])
        return [len(codebook) for codebook in self.codebooks]


def write(path: str | Path, quantizer: Quantizer) -> None:
    """Write a quantizer atomically; equal quantizers are equal bytes.

    Raises:
        SidmillError: if a codebook is not float32 (K_l, d) with one d, or not finite.
    """
    _check(path, quantizer)
    books = {f"codebook.{level}": book for level, book in enumerate(quantizer.codebooks)}
    prices = {f"price.{level}": price for level, price in enumerate(quantizer.prices)}
    facts = {name: getattr(quantizer, name) for name in ("kind", "settings", "fingerprint")}
    networks = _network_tensors(quantizer.encoder, "encoder")
    networks |= _network_tensors(quantizer.decoder, "decoder")
    facts |= {"balance": list(quantizer.balance)} if quantizer.balance else {}
    categories = {}
    if quantizer.categories:
        arrays = quantizer.categories._asdict()
        facts["categories"] = {name: arrays.pop(name) for name in CATEGORY_FACTS}
        categories = {CATEGORY_TENSORS[name]: array for name, array in arrays.items()}
    tensors.write(path, books | prices | networks | categories, facts)


def read(path: str | Path, without_codebooks: bool = False) -> Quantizer:
    """Read quantizer.safetensors.

    Args:
        path: quantizer.safetensors.
        without_codebooks: take that of given SIDs too, which has none.

    Raises:
        SidmillError: if the file is not safetensors, was not written as a quantizer, or its
            codebooks are not as :func:`write` takes them.
    """
    found, facts = tensors.read(path, "quantizer")

    # Codebooks without a gap; none only where SIDs were given.
    names = {name for name in found if name.startswith("codebook.")}
    levels = range(len(names))
    given = facts.get("kind") == GIVEN and not names
    if given and not without_codebooks:
        raise SidmillError(
            f"{path}: its SIDs were given, so it has no codebooks, and nothing can be encoded with "
            f"it: name a quantizer that was trained"
        )
    if not given and (not names or names != {f"codebook.{level}" for level in levels}):
        raise SidmillError(
            f"{path}: wanted codebook.0, codebook.1, ..., found "
            f"{', '.join(sorted(names)) or 'none'}: train the quantizer again"
        )

    _check_facts(path, facts)
    codebooks = [found[f"codebook.{level}"] for level in levels]
    prices = tuple(found[f"price.{level}"] for level in levels if f"price.{level}" in found)
    categories = _read_categories(path, found, facts.pop("categories", None))
    quantizer = Quantizer(
        codebooks=codebooks,
        prices=prices,
        encoder=_read_network(found, "encoder"),
        decoder=_read_network(found, "decoder"),
        categories=categories,
        **facts,
    )
    _check(path, quantizer)
    return quantizer


def check_fingerprint(quantizer: Quantizer, fingerprint: dict[str, Any], path: str | Path) -> None:
    """Refuse to use a quantizer on embeddings that it was not trained on.

    Raises:
        SidmillError: naming each fact that differs.
    """
    names = "in the quantizer", "in the vectors"
    differing = differences(quantizer.fingerprint, fingerprint, names)
    if differing:
        raise SidmillError(
            f"{path} was trained on other embeddings ({differing}): train it on these, "
            f"or {_remedy(quantizer.fingerprint, fingerprint)}"
        )


def _remedy(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    """How to make vectors that a quantizer accepts; ``fuse.*`` are facts of a fusion."""
    own = {key: value for key, value in wanted.items() if key.startswith(FUSE)}
    others = {key: value for key, value in found.items() if key.startswith(FUSE)}
    if own == others:
        return "embed the items as it expects"
    if not own:
        return "give it vectors of text alone (fuse.use: similarity)"
    return "fuse vectors as it expects (fuse.use: sids, the settings and the log of then)"


def _network_tensors(network: Network | None, name: str) -> dict[str, np.ndarray]:
    if network is None:
        return {}
    single = {"skip": network.skip, "bound": network.bound}
    found = {f"{name}.{key}": part for key, part in single.items() if part is not None}
    for number, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        found |= {f"{name}.{number}.weight": weight, f"{name}.{number}.bias": bias}
    return found


def _read_network(found: dict[str, np.ndarray], name: str) -> Network | None:
    numbers = range(sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in found))
    if not numbers:
        return None
    none = np.empty(0, dtype=np.float32)  # what a damaged file lacks; _check names it
    weights = [found.get(f"{name}.{number}.weight", none) for number in numbers]
    biases = [found.get(f"{name}.{number}.bias", none) for number in numbers]
    return Network(weights, biases, found.get(f"{name}.skip"), found.get(f"{name}.bound"))


def _read_categories(
    path: str | Path, found: dict[str, np.ndarray], facts: dict[str, Any] | None
) -> Categories | None:
    if facts is None:
        return None
    lacking = [name for name in CATEGORY_TENSORS.values() if name not in found]
    lacking += [name for name in CATEGORY_FACTS if name not in facts]
    if lacking:
        raise SidmillError(f"{path}: lacks {', '.join(lacking)}: train the quantizer again")
    parts: dict[str, Any] = {name: facts[name] for name in CATEGORY_FACTS}
    parts |= {name: found[stored] for name, stored in CATEGORY_TENSORS.items()}
    return Categories(**parts)


def _check_facts(path: str | Path, facts: dict[str, Any]) -> None:
    kinds = {"kind": str, "settings": dict, "fingerprint": dict}
    optional = {"balance": list, "categories": dict}
    kinds |= {name: kind for name, kind in optional.items() if name in facts}
    for name, kind in kinds.items():
        if not isinstance(facts.get(name), kind):
            raise SidmillError(
                f"{path}: its fact {name} is {facts.get(name)!r:.80}, wanted a {kind.__name__}: "
                f"train the quantizer again"
            )
    if stray := sorted(set(facts) - set(kinds) - set(optional)):
        raise SidmillError(
            f"{path}: holds unknown facts ({', '.join(stray)}): is it of a newer SIDMill? Train "
            f"the quantizer again"
        )


def _check(path: str | Path, quantizer: Quantizer) -> None:
    codebooks = quantizer.codebooks
    if not codebooks:
        sizes = quantizer.settings.get("codebook_sizes")
        whole = isinstance(sizes, list) and sizes and all(isinstance(one, int) for one in sizes)
        if quantizer.kind != GIVEN or not whole:
            raise SidmillError(
                f"{path}: has no codebooks, and says sizes of {sizes!r:.80}: make it again"
            )
        return

    # Shapes and values of codebooks and prices.
    flat = next((level for level, book in enumerate(codebooks) if book.ndim != 2), None)
    if flat is not None:
        raise SidmillError(
            f"{path}: codebook.{flat} has shape {codebooks[flat].shape}, wanted (K, d): train again"
        )
    sizes = [(np.dtype(np.float32), (len(book),)) for book in codebooks]
    prices = quantizer.prices
    if prices and [(price.dtype, price.shape) for price in prices] != sizes:
        raise SidmillError(
            f"{path}: prices {[price.shape for price in prices]} for codebooks of "
            f"{[len(book) for book in codebooks]} words: train again"
        )
    for level, book in enumerate(codebooks):
        if book.dtype != np.float32 or book.ndim != 2 or book.shape[1] != codebooks[0].shape[1]:
            raise SidmillError(
                f"{path}: codebook.{level} is {book.dtype} {book.shape}, wanted float32 "
                f"(K, {codebooks[0].shape[-1]})"
            )
        if not np.isfinite(book).all():
            raise SidmillError(f"{path}: codebook.{level} holds a NaN or an infinity: train again")

    # Encoder and decoder, from D to d and back.
    if (quantizer.encoder is None) != (quantizer.decoder is None):
        raise SidmillError(f"{path}: encoder and decoder belong together: train again")
    if quantizer.encoder and quantizer.decoder:
        inner, outer = codebooks[0].shape[1], quantizer.dim
        _check_network(path, "encoder", quantizer.encoder, outer, inner)
        _check_network(path, "decoder", quantizer.decoder, inner, outer)
    if quantizer.categories:
        _check_categories(path, quantizer.categories, len(codebooks[0]), quantizer.dim)


def _check_categories(path: str | Path, categories: Categories, n_codes: int, dim: int) -> None:
    # Shapes and types that belong together.
    n_categories, n_splits = len(categories.names), len(categories.thresholds)
    wanted = {
        "codewords": (np.float32, (n_codes, dim)),
        "means": (np.float32, (n_categories, dim)),
        "roots": (np.int32, (n_categories,)),
        "normals": (np.float32, (n_splits, dim)),
        "thresholds": (np.float32, (n_splits,)),
        "ways": (np.int32, (n_splits, 2)),
    }
    for name, (kind, shape) in wanted.items():
        array = getattr(categories, name)
        if array.dtype != kind or array.shape != shape or not np.isfinite(array).all():
            raise SidmillError(
                f"{path}: {CATEGORY_TENSORS[name]} is {array.dtype} {array.shape}, wanted finite "
                f"{np.dtype(kind).name} {shape}: train the quantizer again"
            )

    # Every name has a category, and every way leads to a later split or to a code.
    numbers = categories.numbers.values()
    known = all(isinstance(one, int) and 0 <= one < n_categories for one in numbers)
    nodes = np.concatenate([categories.roots, categories.ways.ravel()])
    codes = np.sort(-1 - nodes[nodes < 0])
    later = categories.ways > np.arange(n_splits)[:, None]
    leads_on = bool((later | (categories.ways < 0)).all()) and bool((nodes < n_splits).all())
    if not known or not leads_on or not np.array_equal(codes, np.arange(n_codes)):
        raise SidmillError(
            f"{path}: its categories do not lead to {n_codes} codes: train the quantizer again"
        )


def _check_network(path: str | Path, name: str, network: Network, start: int, end: int) -> None:
    # Each layer takes what the layer before it gives.
    width = start
    for number, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise SidmillError(
                f"{path}: {name}.{number} has weight {weight.shape} and bias {bias.shape} for an "
                f"input of {width}: train again"
            )
        width = len(weight)
    if width != end:
        raise SidmillError(f"{path}: {name} gives {width} dimensions, wanted {end}: train again")

    # The skip connection, the bound and all values.
    shapes = [(end, start), *([()] if end == start else [])]
    if network.skip is not None and network.skip.shape not in shapes:
        raise SidmillError(
            f"{path}: {name}.skip is {network.skip.shape}, wanted "
            f"{' or '.join(map(str, shapes))}: train again"
        )
    if network.bound is not None and not (network.bound.shape == () and network.bound > 0):
        raise SidmillError(f"{path}: {name}.bound is no number above 0: train again")
    single = [part for part in (network.skip, network.bound) if part is not None]
    parts = [*network.weights, *network.biases, *single]
    if any(part.dtype != np.float32 or not np.isfinite(part).all() for part in parts):
        raise SidmillError(f"{path}: {name} is not finite float32: train again")
