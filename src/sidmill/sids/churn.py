"""What changed since a published version, how well the quantizer still fits, and a verdict.

Three groups of items are told apart: ``trained``, whose text is the one that the quantizer was
published with; ``earlier``, that came or changed in versions since; ``fresh``, of this one. The
last two together are ``since`` training. Every figure is of the codes and vectors as they are, so
that many small steps add up.

Shapes: N items, L levels, K_l codes at level l, D dimensions, G groups.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import churn_table
from sidmill.formats.ledger_file import LEFT, LIVE, REMOVED, Ledger
from sidmill.formats.quantizer_file import Quantizer
from sidmill.io import id_lookup
from sidmill.numeric import mlp, row_blocks
from sidmill.settings.sids import Churn
from sidmill.sids import prefixes, refresh, versions
from sidmill.sids.neighbour_agreement import nearest_items

logger = logging.getLogger(__name__)

TRAINED, EARLIER, FRESH = range(3)
DRAWS = 50  # of a catalogue without drift, for the divergence that chance alone makes
PREFIX_LENGTHS = (1, 2)


class Changes(NamedTuple):
    """Rows of both ledgers, by what became of their items.

    Attributes:
        rows: int (N,), the row that an item of the catalogue had before; -1 for a new one.
        new: bool (N,): never there.
        returned: bool (N,): there once, and removed.
        changed: bool (N,): there with another text.
        moved: bool (N,): there with another SID.
        reused: bool (N,): other items had its SID before, and none of them has it now.
        gone: int64 rows of the ledger before: items that were in the catalogue.
    """

    rows: np.ndarray
    new: np.ndarray
    returned: np.ndarray
    changed: np.ndarray
    moved: np.ndarray
    reused: np.ndarray
    gone: np.ndarray


def compare(before: Ledger, now: Ledger) -> Changes:
    """Compare two ledgers of one line, item by item.

    Raises:
        SidmillError: if ``now`` is not the version after ``before``.
    """
    if now.version != before.version + 1:
        raise SidmillError(
            f"results/ledger.parquet is of version {now.version}, the published one of "
            f"{before.version}: delete results/ledger.parquet and run again"
        )
    # The row that each item of the catalogue had before: (N,).
    live = now.state == LIVE
    lookup = id_lookup.make(before.ids.slice(0, before.owners))
    rows = id_lookup.find(lookup, now.ids.slice(0, int(live.sum())), "results/ledger.parquet")
    known = rows != id_lookup.ABSENT

    stayed = np.zeros(len(before.ids), dtype=bool)
    stayed[rows[known]] = True
    return Changes(
        rows,
        ~known,
        known & (before.state[rows] == REMOVED),
        known & (before.digests[rows] != now.digests[live]),
        known & (before.sids[rows] != now.sids[live]).any(axis=1),
        versions.follow(before.sids, now.sids[live], rows).reused,
        np.flatnonzero((before.state == LIVE) & ~stayed),
    )


Figures = dict[str, Any]  # a part of churn.json


def measure(
    before: Ledger,
    now: Ledger,
    vectors: np.ndarray | None,
    quantizer: Quantizer,
    list_path: str,
    settings: Churn,
    seed: int,
    refreshed: refresh.Refreshed | None = None,
) -> Figures:
    """Measure churn and drift, and judge them.

    Memory: one block of vectors, about 100 bytes per item, and the queries.

    Args:
        before: ledger of the published version.
        now: ledger of this run.
        vectors: float (N, D) of the items, may be a memory map; None where they are not embedded.
        quantizer: the published or the refreshed one; that of given SIDs has no codebooks, and
            gives no errors.
        list_path: churn.parquet to write.
        settings: the limits above which retraining is due, and how neighbours are looked up.
        seed: draws the queries, and catalogues without drift.
        refreshed: how the quantizer was trained again, and what it is compared with; None where it
            is the published one.

    Returns:
        The content of churn.json.
    """
    # What became of each item, and its group: (N,).
    changes = compare(before, now)
    n_items = len(changes.rows)
    group = np.full(n_items, EARLIER)
    group[changes.new | changes.changed] = FRESH
    group[now.trained[:n_items]] = TRAINED
    since = group != TRAINED
    _list(list_path, before, now, changes)

    # How far items since training are from those of the training.
    codes, sids = now.codes[:n_items], now.sids[:n_items]
    drift = _drift(codes, vectors, quantizer, group, seed)
    displaced = (sids[:, : codes.shape[1]] != codes).any(axis=1)
    criteria = _criteria(drift, displaced, since, settings)
    collisions = {
        name: _collisions(chosen, codes, sids, now.sizes)
        for name, chosen in (("fresh", group == FRESH), ("since", since), ("trained", ~since))
    }
    neighbours = _neighbours(vectors, sids, now.sizes, since, settings, seed)

    figures = {
        "version": now.version,
        "published_version": before.version,
        "items": {
            "published": int((before.state == LIVE).sum()),
            "now": n_items,
            "unchanged": int((~changes.new & ~changes.returned & ~changes.changed).sum()),
            "new": int(changes.new.sum()),
            "changed": int(changes.changed.sum()),
            "returned": int(changes.returned.sum()),
            "removed": len(changes.gone),
            "trained": int((~since).sum()),
            "since_training": int(since.sum()),
        },
        "sids": {
            "kept": int((~changes.new & ~changes.moved).sum()),
            "moved": int(changes.moved.sum()),
            "new": int(changes.new.sum()),
            "reused": int(changes.reused.sum()),
            "reserved": int((now.state == REMOVED).sum()),
            "left": int((now.state == LEFT).sum()),
        },
        "refresh": refreshed and _refresh(before, changes, codes, drift, vectors, refreshed),
        "collisions": collisions,
        "drift": drift | {"neighbours": neighbours},
        "criteria": criteria,
        **_verdict(criteria),
    }
    if refreshed is not None:
        figures["because"] = ["the quantizer was trained again in this run"]
    logger.info("retraining is %s: %s", figures["retrain"], "; ".join(figures["because"]))
    return figures


def _refresh(
    before: Ledger,
    changes: Changes,
    codes: np.ndarray,
    drift: Figures,
    vectors: np.ndarray | None,
    refreshed: refresh.Refreshed,
) -> Figures:
    """Which published SIDs stay, and which would if the quantizer were trained from scratch.

    Args:
        before: ledger of the published version.
        changes: what became of its items.
        codes: int32 (N, L), of the refreshed quantizer.
        drift: see :func:`_drift`.
        vectors: float (N, D), or None where items are not embedded.
        refreshed: the way, and the quantizer that was trained from scratch.
    """
    known = ~changes.new
    rows, scratch = changes.rows[known], refreshed.scratch
    loss = [level["relative_loss"]["all"] for level in drift["levels"]]
    figures: Figures = {
        "method": refreshed.method,
        "published_items": int(known.sum()),
        "with_alignment": refresh.staying(before, rows, codes[known]) | {"relative_loss": loss},
        "without_alignment": None,
    }
    if scratch is not None:
        group = np.full(len(codes), TRAINED)
        errors, energy = _squared_errors(scratch.codes, vectors, scratch.quantizer, group)
        loss = [_ratio(error, energy.sum()) for error in errors.sum(0)]
        staying = refresh.staying(before, rows, scratch.codes[known])
        figures["without_alignment"] = staying | {"relative_loss": loss}
    logger.info(
        "%d of %d published items keep their SID", int((known & ~changes.moved).sum()), len(rows)
    )
    return figures


def _drift(
    codes: np.ndarray,
    vectors: np.ndarray | None,
    quantizer: Quantizer,
    group: np.ndarray,
    seed: int,
) -> Figures:
    """Errors and code usage of the groups, level by level.

    Args:
        codes: int32 (N, L).
        vectors: float (N, D), or None where items are not embedded.
        quantizer: the published one.
        group: int (N,).
        seed: draws catalogues without drift.
    """
    # (G, L) and (G,); codes of items since training against those of the training.
    errors, energy = _squared_errors(codes, vectors, quantizer, group)
    since = group != TRAINED
    divergence = [
        _divergence(
            np.bincount(codes[~since, level], minlength=size),
            np.bincount(codes[since, level], minlength=size),
            np.random.default_rng([seed, level]),
        )
        for level, size in enumerate(quantizer.codebook_sizes)
    ]

    # Each group's share of its squared length, level by level.
    levels = [
        {
            "level": level + 1,
            "relative_loss": {
                name: _ratio(errors[chosen, level].sum(), energy[chosen].sum())
                for name, chosen in (
                    ("trained", [TRAINED]),
                    ("since", [EARLIER, FRESH]),
                    ("fresh", [FRESH]),
                    ("all", [TRAINED, EARLIER, FRESH]),
                )
            },
            "divergence": divergence[level],
        }
        for level in range(codes.shape[1])
    ]
    growth = _growth(errors.sum(0), energy.sum(), errors[TRAINED], energy[TRAINED])
    return {"error_growth": growth, "levels": levels}


def _criteria(
    drift: Figures, displaced: np.ndarray, since: np.ndarray, settings: Churn
) -> list[Figures]:
    """Hold each figure against its limit.

    Args:
        drift: see :func:`_drift`.
        displaced: bool (N,), items that did not get the SID of their codes.
        since: bool (N,), items since training; too few of them judge neither divergence nor
            displacement.
        settings: the limits.
    """
    excesses = [level["divergence"]["excess_bits"] for level in drift["levels"]]
    excess = max((bits for bits in excesses if bits is not None), default=None)
    enough = int(since.sum()) >= settings.min_items
    return [
        _criterion("error_growth", drift["error_growth"][-1], settings.max_error_growth, True),
        _criterion("divergence", excess, settings.max_divergence, enough),
        _criterion(
            "displaced_share", _share(displaced[since]), settings.max_displaced_share, enough
        ),
        _criterion("untrained_share", float(since.mean()), settings.max_untrained_share, True),
    ]


def _list(path: str, before: Ledger, now: Ledger, changes: Changes) -> None:
    """Write churn.parquet."""
    here = np.flatnonzero(changes.new | changes.returned | changes.changed | changes.moved)
    kinds = {"new": changes.new, "changed": changes.changed, "returned": changes.returned}
    what = np.select([mask[here] for mask in kinds.values()], list(kinds), "moved")
    known = [None if row < 0 else before.sids[row] for row in changes.rows[here]]
    gone = changes.gone
    ids = [now.ids.take(pa.array(here)), before.ids.take(pa.array(gone))]
    churn_table.write(
        path,
        pa.chunked_array([chunk for part in ids for chunk in part.chunks], now.ids.type),
        [*what.tolist(), *["removed"] * len(gone)],
        [*known, *before.sids[gone]],
        [*now.sids[here], *[None] * len(gone)],
    )


def _squared_errors(
    codes: np.ndarray, vectors: np.ndarray | None, quantizer: Quantizer, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squared errors (G, L) after each level, and of squares of the vectors (G,).

    All are 0 without vectors or codebooks, and no ratio of them is known.
    """
    errors, energy = np.zeros((3, codes.shape[1])), np.zeros(3)
    if vectors is None or not quantizer.codebooks:
        return errors, energy
    reconstruct = mlp.load(quantizer.decoder, "cpu")
    for start, block in row_blocks.read_blocks(vectors, row_blocks.MAX_BLOCK_ROWS):
        kinds = group[start : start + len(block)]
        energy += np.bincount(kinds, np.square(block, dtype=np.float64).sum(1), minlength=3)
        decoded = np.zeros((len(block), quantizer.codebooks[0].shape[1]), dtype=np.float32)
        for level, codebook in enumerate(quantizer.codebooks):
            decoded += codebook[codes[start : start + len(block), level]]
            residual = block - np.asarray(reconstruct(decoded))
            squares = np.square(residual, dtype=np.float64).sum(1)
            errors[:, level] += np.bincount(kinds, squares, minlength=3)
    return errors, energy


def _growth(
    errors: np.ndarray, energy: float, trained: np.ndarray, trained_energy: float
) -> list[float | None]:
    """By which share the relative error of all items is above that of the trained, per level."""
    of_all = [_ratio(error, energy) for error in errors]
    of_trained = [_ratio(error, trained_energy) for error in trained]
    pairs = zip(of_all, of_trained, strict=True)
    return [now / before - 1 if now is not None and before else None for now, before in pairs]


def _divergence(
    trained: np.ndarray, since: np.ndarray, rng: np.random.Generator
) -> dict[str, float | None]:
    """Jensen-Shannon divergence of token counts, in bits, and its mean by chance alone.

    Few items over many codes diverge without any drift. So both groups are drawn from one pool,
    ``DRAWS`` times, for the divergence by chance.
    """
    if not trained.sum() or not since.sum():
        return {"bits": None, "chance_bits": None, "excess_bits": None}
    pool = trained + since
    drawn = rng.multivariate_hypergeometric(pool, int(since.sum()), DRAWS, method="marginals")
    bits = _jensen_shannon(trained, since)
    chance = float(np.mean([_jensen_shannon(pool - draw, draw) for draw in drawn]))
    return {"bits": bits, "chance_bits": chance, "excess_bits": bits - chance}


def _jensen_shannon(one: np.ndarray, other: np.ndarray) -> float:
    p, q = one / one.sum(), other / other.sum()
    middle = (p + q) / 2
    halves = [
        (part[part > 0] * np.log2(part[part > 0] / middle[part > 0])).sum() for part in (p, q)
    ]
    return float(max(sum(halves) / 2, 0.0))


def _collisions(
    chosen: np.ndarray, codes: np.ndarray, sids: np.ndarray, sizes: list[int]
) -> Figures:
    """Count the chosen items that have another SID than their codes, and those that share one."""
    n_levels = codes.shape[1]
    differ = codes[chosen] != sids[chosen, :n_levels]
    displaced = differ.any(axis=1)
    number = prefixes.number(sids, sizes).numbers[-1]
    shared = (np.bincount(number) > 1)[number[chosen]]
    return {
        "items": int(chosen.sum()),
        "displaced": int(displaced.sum()),
        "displaced_share": _share(displaced),
        "displaced_by_level": np.bincount(
            differ[displaced].argmax(axis=1), minlength=n_levels
        ).tolist(),
        "in_shared_sids": int(shared.sum()),
    }


def _neighbours(
    vectors: np.ndarray | None,
    sids: np.ndarray,
    sizes: list[int],
    since: np.ndarray,
    settings: Churn,
    seed: int,
) -> Figures:
    """Share of the nearest items that have an item's first tokens, by whether it was trained on."""
    rng = np.random.default_rng(seed)
    n_neighbours = min(settings.neighbours, len(sids) - 1)
    numbers = prefixes.number(sids, sizes).numbers
    lengths = [length for length in PREFIX_LENGTHS if length <= len(sizes)]
    shares: dict[str, dict[str, float] | None] = {}
    for name, rows in (("trained", np.flatnonzero(~since)), ("since", np.flatnonzero(since))):
        n_queries = min(settings.neighbour_queries, len(rows))
        queries = np.sort(rng.choice(rows, n_queries, replace=False))
        if vectors is None or not len(queries) or not n_neighbours:
            shares[name] = None
            continue
        near = nearest_items(vectors, queries, n_neighbours)
        shares[name] = {
            str(m): float((numbers[m][near] == numbers[m][queries][:, None]).mean())
            for m in lengths
        }
    return shares


def _criterion(name: str, value: float | None, limit: float, enough: bool) -> Figures:
    """Judge a figure, where it is known and there are enough items for it."""
    judged = enough and value is not None
    return {
        "name": name,
        "value": value,
        "limit": limit,
        "judged": judged,
        "exceeded": value is not None and judged and value > limit,
    }


def _verdict(criteria: list[Figures]) -> Figures:
    """Due or not due, and why; criteria that cannot be judged are named."""
    reasons = [
        f"{one['name']} {one['value']:.3g} is above {one['limit']:g}"
        for one in criteria
        if one["exceeded"]
    ]
    due = bool(reasons)
    unjudged = [one["name"] for one in criteria if not one["judged"]]
    if not due:
        reasons.append("nothing is above its limit")
    if unjudged:
        reasons.append(f"too little is known of {', '.join(unjudged)}")
    return {"retrain": "due" if due else "not due", "because": reasons}


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _share(chosen: np.ndarray) -> float | None:
    return float(chosen.mean()) if len(chosen) else None
