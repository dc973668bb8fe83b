"""The demo catalogue: items in a planted three-level tree, and users with coherent taste.

It stands in for a download on a first run. Wrong code should show: fillers shared by all
categories, words with two meanings, two languages and untidy markup mislead a careless embedding,
while a careful one finds departments, branches and leaves again.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.items import demo_words as words
from sidmill.settings.items import Demo

MIN_ITEMS = 50
ITEMS_PER_LEAF = 10  # smaller catalogues use fewer leaves, so that a leaf stays a cluster
BRANCHES = 4  # in every department
CHINESE_SHARE = 0.15
DUPLICATE_SHARE = 0.006
ROUGH_SHARE = 0.12
LAST_SECOND = 1_767_225_599  # 2025-12-31 23:59:59 UTC
YEAR = 365 * 24 * 3600

Item = dict[str, Any]  # field name to value, as JSON has it
History = dict[str, Any]


class Wording(NamedTuple):
    """What can be said of one leaf, in one language."""

    nouns: list[str]
    traits: list[str]
    materials: list[str]
    uses: list[str]
    scenes: list[str]


class Phrases(NamedTuple):
    """What can be said of any item, in one language; ``space`` goes between sentences."""

    titles: tuple[str, ...]
    own: tuple[str, ...]
    shared: tuple[str, ...]
    colours: str
    sizes: str
    packs: str
    space: str


ENGLISH = Phrases(
    words.TITLES, words.OWN, words.SHARED, words.COLOURS, words.SIZES, words.PACKS, " "
)
CHINESE = Phrases(
    words.TITLES_ZH,
    words.OWN_ZH,
    words.SHARED_ZH,
    words.COLOURS_ZH,
    words.SIZES_ZH,
    words.PACKS_ZH,
    "",
)


class Leaf(NamedTuple):
    """A place in the tree: department, branch, leaf; ``corner`` is the same as three indices."""

    path: tuple[str, str, str]
    corner: tuple[int, int, int]
    brands: list[str]
    english: Wording
    chinese: Wording


def make(settings: Demo, seed: int) -> tuple[list[Item], list[History]]:
    """Make the demo catalogue and the histories of its users.

    The same settings and seed give the same content. An item has ``item_id`` (1 to ``n_items``, in
    an order unrelated to its category), ``title``, ``description``, ``brand``, ``categories``
    (three levels) and ``price``; some fields are null, empty or missing, but never both title and
    description. A history has ``user_id`` (from 1), ``item_ids`` (5 to 60, without repeats) and
    ``timestamps`` (unix seconds in 2025, strictly increasing).

    Args:
        settings: the sizes: at least 50 items and 1 user.
        seed: seed of every choice.

    Raises:
        SidmillError: if ``n_items`` or ``n_users`` is too small.
    """
    n_items, n_users = settings.n_items, settings.n_users
    for name, size, least in (("n_items", n_items, MIN_ITEMS), ("n_users", n_users, 1)):
        if size < least:
            raise SidmillError(
                f"the demo catalogue with {name} {size} is too small to hold its structure: "
                f"raise {name} to {least} or more"
            )

    # One generator for everything, so the order of these calls is part of the result.
    rng = np.random.Generator(np.random.PCG64(seed))
    leaves = _choose_leaves(n_items)
    leaf_of = _spread(rng, n_items, len(leaves))
    items = _make_items(rng, leaves, leaf_of)
    return items, _make_histories(rng, leaves, leaf_of, items, n_users)


def write(items_path: str | Path, interactions_path: str | Path, settings: Demo, seed: int) -> None:
    """Write the demo that :func:`make` returns as two JSON-lines files, each atomically.

    Args:
        items_path: catalogue to write, one item per line, by rising id.
        interactions_path: histories to write, one user per line, by rising id.
        settings: see :func:`make`.
        seed: see :func:`make`.

    Raises:
        SidmillError: if ``n_items`` or ``n_users`` is too small.
    """
    items, histories = make(settings, seed)
    _write_lines(items_path, items)
    _write_lines(interactions_path, histories)


def _write_lines(path: str | Path, rows: Iterable[Item]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# The tree


def _choose_leaves(n_items: int) -> list[Leaf]:
    """Take as many leaves as ``n_items`` can fill, evenly over departments and branches."""
    leaves = sorted(_read_tree(), key=lambda leaf: (max(leaf.corner), leaf.corner[::-1]))
    return leaves[: n_items // ITEMS_PER_LEAF]


def _read_tree() -> Iterator[Leaf]:
    """Walk ``words.TREE``; its docstring gives the form."""
    corner = [-1, -1, -1]
    for block in re.split(r"^(?=#)", words.TREE, flags=re.MULTILINE)[1:]:
        heading, *lines = block.strip().splitlines()
        marks, heading = heading.split(" ", 1)
        name, *both = heading.split(" | ")  # in English and in Chinese
        pair, lists = list(map(_split, both)), list(map(_split, lines))
        level = len(marks) - 1
        corner = [*corner[:level], corner[level] + 1, -1, -1][:3]

        # Lists of departments and branches hold for the leaves below them.
        if level == 0:
            department, scenes, (brands,) = name, pair, lists
        elif level == 1:
            branch, uses, materials = name, pair, lists
        else:
            yield Leaf(
                (department, branch, name),
                (corner[0], corner[1], corner[2]),
                [brand for at, brand in enumerate(brands) if _carries(corner[1], at)],
                Wording(pair[0], lists[0], materials[0], uses[0], scenes[0]),
                Wording(pair[1], lists[1], materials[1], uses[1], scenes[1]),
            )


def _carries(branch: int, brand: int) -> bool:
    """Brand number ``b`` of a department spans 1 to 3 branches in a row, from branch ``b``."""
    return (branch - brand) % BRANCHES <= brand % 3


@cache
def _split(alternatives: str) -> list[str]:
    return [" ".join(entry.split()) for entry in alternatives.split(";")]


def _spread(rng: np.random.Generator, n_items: int, n_leaves: int) -> np.ndarray:
    """Give each item a leaf: int64 (n_items,), shuffled, leaves of uneven size."""
    least = np.repeat(np.arange(n_leaves), ITEMS_PER_LEAF // 2)
    rest = rng.choice(n_leaves, n_items - len(least), p=rng.dirichlet(np.full(n_leaves, 3.0)))
    return rng.permutation(np.concatenate([least, rest]))


# Items


def _make_items(rng: np.random.Generator, leaves: list[Leaf], leaf_of: np.ndarray) -> list[Item]:
    """Write the items; duplicates of a text take its leaf, in ``leaf_of`` too."""
    n_items = len(leaf_of)
    is_chinese = rng.permutation(n_items) < CHINESE_SHARE * n_items
    usual_price = rng.lognormal(3.2, 0.8, len(leaves))
    items = []
    for row, at in enumerate(leaf_of):
        other = leaves[(at + rng.integers(1, len(leaves))) % len(leaves)]
        item = _describe(rng, leaves[at], other, chinese=is_chinese[row])
        price = round(float(usual_price[at] * rng.lognormal(0, 0.35)), 2)
        items.append(_drop_fields(rng, {"item_id": row + 1, **item, "price": price}))
    n_copies = max(2, round(DUPLICATE_SHARE * n_items))
    for source, copy in rng.choice(n_items, (n_copies, 2), replace=False):
        items[copy] = items[source] | {key: items[copy][key] for key in ("item_id", "price")}
        leaf_of[copy] = leaf_of[source]
    return items


def _describe(rng: np.random.Generator, leaf: Leaf, other: Leaf, *, chinese: bool) -> Item:
    """Write title and description of one item, and the fields they agree with."""
    # What all sentences of the item agree on.
    brand = leaf.brands[min(rng.geometric(0.4), len(leaf.brands)) - 1]
    wording, phrases = (leaf.chinese, CHINESE) if chinese else (leaf.english, ENGLISH)
    facts = {
        "brand": brand,
        "model": f"{brand[0]}{_pick(rng, 'BDKRTX')}-{rng.integers(10, 990)}{_pick(rng, 'AES')}",
        "material": _pick(rng, wording.materials),
        "colour": _pick(rng, _split(phrases.colours)),
        "size": _pick(rng, _split(phrases.sizes)),
        "pack": _number(rng, _pick(rng, _split(phrases.packs))),
        "noun_en": _pick(rng, leaf.english.nouns),
        "other": _pick(rng, (other.chinese if chinese else other.english).nouns),
    }
    traits = [_number(rng, trait) for trait in wording.traits]

    def say(pattern: str) -> str:
        noun, noun2 = _shuffled(rng, wording.nouns)[:2]
        trait, trait2, trait3 = _shuffled(rng, traits)[:3]
        return pattern.format(
            **facts,
            noun=noun,
            noun2=noun2,
            trait=trait,
            trait2=trait2,
            trait3=trait3,
            use=_pick(rng, wording.uses),
            scene=_pick(rng, wording.scenes),
            number=rng.integers(10, 60),
            number2=rng.integers(10, 60),
            digit=rng.integers(2, 10),
            weight=rng.integers(50, 3000),
        )

    # Title, then sentences of the leaf and sentences that any item may have.
    title = say(_pick(rng, phrases.titles))
    if rng.random() < 0.3:
        title = re.sub(r"(?<![^ (])[a-z]", lambda letter: letter[0].upper(), title)
    own, shared = _shuffled(rng, phrases.own), _shuffled(rng, phrases.shared)
    chosen = [*own[: rng.geometric(0.3) - 1], *shared[: rng.geometric(0.4) - 1]]
    return {
        "title": _roughen(rng, title),
        "description": _roughen(rng, phrases.space.join(map(say, _shuffled(rng, chosen)))),
        "brand": brand,
        "categories": list(leaf.path),
    }


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _shuffled(rng: np.random.Generator, entries: Sequence[str]) -> list[str]:
    """Shuffle texts as ``rng.permutation`` does, without an array of them."""
    return [entries[at] for at in rng.permutation(len(entries))]


def _draw(rng: np.random.Generator, pool: np.ndarray, chances: np.ndarray) -> np.int64:
    """Draw an entry of a pool as ``rng.choice`` does, which takes three times as long."""
    shares = chances.cumsum()
    shares /= shares[-1]
    drawn: np.int64 = pool[shares.searchsorted(rng.random(), side="right")]
    return drawn


def _number(rng: np.random.Generator, text: str) -> str:
    """Replace each ``<low-high>`` by a number in that range."""
    if "<" not in text:
        return text
    return re.sub(r"<(\d+)-(\d+)>", lambda m: str(rng.integers(int(m[1]), int(m[2]) + 1)), text)


def _roughen(rng: np.random.Generator, text: str) -> str:
    """Leave some texts as untidy as they come from shops: entities, tags, odd white space."""
    if not text or rng.random() > ROUGH_SHARE:
        return text
    ways = (
        f"  {text}\t",
        f"\u3000{text}",
        text.replace(" ", "  "),
        text.replace("&", "&amp;").replace('"', "&quot;"),
        text.replace(" ", "\u00a0", 2),
        text.replace(" ", "&nbsp;", 2),
        text.replace(". ", ".<br>").replace("。", "。<br>"),
        text.replace(", ", ",\n"),
    )
    return _pick(rng, ways)


def _drop_fields(rng: np.random.Generator, item: Item) -> Item:
    """Make a field null, empty or absent here and there; title or description always stays."""
    for field, share in (("brand", 0.05), ("price", 0.03)):
        if rng.random() < share:
            item[field] = None
    fate = rng.random()
    if item["description"] and fate < 0.01:
        item["title"] = None
    elif fate < 0.04:
        item["description"] = None
    elif fate < 0.06:
        item["description"] = ""
    elif fate < 0.08:
        del item["description"]
    return item


# Histories


def _make_histories(
    rng: np.random.Generator,
    leaves: list[Leaf],
    leaf_of: np.ndarray,
    items: list[Item],
    n_users: int,
) -> list[History]:
    """Let each user wander: mostly within a leaf or its branch, seldom far, popular items first."""
    # What draws users to an item: popularity, brand, and its neighbours in the tree.
    n_items = len(items)
    brand_of = np.array([item["brand"] or "" for item in items])
    popularity = 1 / (1 + rng.permutation(n_items)) ** 0.8
    branch_of_leaf = [leaf.corner[:2] for leaf in leaves]
    in_leaf = [np.flatnonzero(leaf_of == at) for at in range(len(leaves))]
    in_branch = [
        np.concatenate([in_leaf[at] for at, it in enumerate(branch_of_leaf) if it == branch])
        for branch in branch_of_leaf
    ]
    everything = np.arange(n_items)

    def wander() -> list[int]:
        favourites = rng.choice(len(leaves), rng.integers(1, 4), replace=False)
        brand = _pick(rng, leaves[favourites[0]].brands)
        appeal = popularity * np.where(brand_of == brand, 4.0, 1.0)
        at, taken = favourites[0], []
        for _ in range(min(rng.geometric(0.1) + 4, 60, n_items // 2)):
            # Stay in the leaf, go to its branch, or anywhere; a favourite leaf calls back.
            mood = rng.random()
            if mood < 0.12:
                at = rng.choice(favourites)
            reach = 0 if mood < 0.7 else 1 if mood < 0.93 else 2
            for pool in (in_leaf[at], in_branch[at], everything)[reach:]:
                weights = appeal[pool]
                if (total := weights.sum()) > 0:
                    break
            item = _draw(rng, pool, weights / total)
            appeal[item] = 0  # nothing is bought twice
            taken.append(int(item) + 1)
            at = leaf_of[item]
        return taken

    # Times of one year, later items later.
    histories = []
    for user in range(n_users):
        item_ids = wander()
        seconds = np.sort(rng.choice(YEAR, len(item_ids), replace=False, shuffle=False))
        timestamps = (seconds + (LAST_SECOND - YEAR + 1)).tolist()
        histories.append({"user_id": user + 1, "item_ids": item_ids, "timestamps": timestamps})
    return histories
