"""Metrics of a generative recommender beside those of its baselines, by item and by SID.

Every interaction of a split is predicted from all interactions before it in its user's history, of
any split, among all items of the catalogue: the protocol of :mod:`sidmill.recommend.evaluate`.

Weights of sums of scores are picked by NDCG@10 on valid alone, and then used on test.

Shapes: Q queries, N items, M metrics.
"""

import logging
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sidmill.core.errors import SidmillError
from sidmill.formats import sequence_table, user_metrics
from sidmill.numeric import sid_trie
from sidmill.numeric.nearest_torch import pick_device
from sidmill.recommend import baselines, checkpoint, item_features, metrics, rank, windows
from sidmill.recommend import score as item_score
from sidmill.recommend.generative import decode, models, score
from sidmill.recommend.generative.models import Fitted
from sidmill.recommend.generative.sid_items import SidItems, rows_of
from sidmill.recommend.item_features import Items
from sidmill.recommend.training_loop import WATCHED
from sidmill.recommend.windows import Queries
from sidmill.settings.generative import GenerativeEvaluation

logger = logging.getLogger(__name__)

SPLITS = {"valid": sequence_table.VALID, "test": sequence_table.TEST}
GENERATIVE, FUSED, SUM = "generative", "fused", "sum_of_baselines"
FUSION_WEIGHTS = tuple((step / 10, 1 - step / 10) for step in range(11))
SUM_WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)  # of each baseline in their sum
HISTORY_LENGTHS = {"1-2": (1, 2), "3-5": (3, 5), "6-10": (6, 10), "11 or more": (11, None)}
POPULARITY_THIRDS = ("most popular", "middle", "least popular")


class Protocol(NamedTuple):
    """How every method is measured.

    Attributes:
        sequences_path: sequences.parquet.
        items: all items, in the order of their SIDs.
        counts: int64 (N,), users who have the item in training.
        settings: what is ranked, and how many resamples.
        seed: of the bootstrap.
    """

    sequences_path: str | Path
    items: Items
    counts: np.ndarray
    settings: GenerativeEvaluation
    seed: int

    def queries(self, split: int) -> Iterator[Queries]:
        """Queries of a split, a group of users at a time."""
        groups = windows.read_groups(self.sequences_path, self.items)
        return (windows.queries(group, split) for group in groups)

    def rank(
        self,
        split: int,
        scorers: list[rank.Scorer],
        weightings: list[tuple[float, ...] | None],
        groups: np.ndarray | None = None,
        standardise: bool = True,
    ) -> list[rank.Ranks]:
        """Rank the targets of a split by sums of scores; with ``groups`` (N,) among SIDs."""
        return rank.rank_sums(
            scorers,
            weightings,
            self.queries(split),
            len(self.items.ids),
            mask_seen=self.settings.mask_seen,
            memory_mb=self.settings.memory_mb,
            groups=groups,
            standardise=standardise,
        )

    def table(self, methods: dict[str, metrics.Values]) -> dict[str, Any]:
        """Means and intervals of the methods, and the lead of the first."""
        return metrics.table(methods, n_resamples=self.settings.n_resamples, seed=self.seed)


class Methods(NamedTuple):
    """The scorers that are measured.

    Attributes:
        generative: one per seed.
        recommender: None where none is measured.
        partners: what ``fused`` adds to each seed, empty without a recommender: the recommender,
            with what the generative model adds for items of the history, of which the recommender
            knows nothing; and the boost of new items, to take it away.
        baselines: by name: popularity, item_knn, and text_knn where there is text.
    """

    generative: list[rank.Scorer]
    recommender: rank.Scorer | None
    partners: list[tuple[rank.Scorer, ...]]
    baselines: dict[str, rank.Scorer]


class Weights(NamedTuple):
    """Weights of sums.

    Attributes:
        baselines: of each baseline, in their order.
        fused: of the generative model and of the recommender; None without a recommender.
        picked_on: the split that they were picked on; None where there was none: they are equal.
    """

    baselines: tuple[float, ...]
    fused: tuple[float, ...] | None
    picked_on: str | None


def evaluate(
    sequences_path: str | Path,
    items: SidItems,
    model_path: str | Path,
    recommender: tuple[Items, str | Path] | None,
    settings: GenerativeEvaluation,
    *,
    seed: int,
    users_path: str | Path | None = None,
) -> dict[str, Any]:
    """Measure the models of all seeds and their baselines.

    The figures of ``generative`` and ``fused`` are means over the seeds: what one model is expected
    to give. ``settings.memory_mb`` changes no figure; another device may change the last bits of
    scores, and so the rank of items with nearly equal scores.

    Memory: ``memory_mb`` for scores, the vectors of all items of each model, the training
    interactions with their item pairs, 24 bytes per query, method and sum, and 100 bytes per user
    and method.

    Args:
        sequences_path: sequences.parquet.
        items: items and SIDs, as the models were trained on them.
        model_path: model.safetensors of the generative recommender.
        recommender: items with text embeddings, and the model.safetensors of the sequence
            recommender that was trained on them; None: neither is measured, nor text-kNN.
        settings: how to measure.
        seed: of the bootstrap.
        users_path: users.parquet is written here: what each user of the test split adds to the
            metrics of ``generative``. None: nowhere.

    Returns:
        The content of metrics.json.

    Raises:
        SidmillError: if a model is of other items, or ``memory_mb`` is too small.
    """
    device = pick_device(settings.device)
    fitted = models.load(model_path, items, device)
    matrix = baselines.training_matrix(sequences_path, items.items)
    counts = np.asarray(matrix.sum(axis=0)).ravel()
    protocol = Protocol(sequences_path, items.items, counts, settings, seed)

    # The methods, fitted to the split train.
    own: list[rank.Scorer] = []
    partners: list[tuple[rank.Scorer, ...]] = []
    known = {
        "popularity": baselines.popularity(counts),
        "item_knn": baselines.item_knn(matrix, settings.knn_shrinkage, settings.knn_decay),
    }
    item_recommender = None
    if recommender is not None:
        text_items, path = recommender
        loaded = checkpoint.load(path, device)
        checkpoint.check_items(loaded, checkpoint.identify(text_items), path)
        logits = scaled(
            item_score.scorer(loaded, item_score.catalogue(loaded, text_items)),
            1 / loaded.settings["temperature"],
        )
        item_recommender = renumbered(
            logits,
            items.items,
            text_items,
        )
        text_knn = baselines.text_knn(text_items, settings.knn_decay)
        known["text_knn"] = renumbered(text_knn, items.items, text_items)
    for one in fitted:
        network, length, scores = one.network, one.settings.max_length, one.network.scores()
        own.append(score.scorer(network, length, scores))
        if item_recommender is not None:
            informed = score.with_history(item_recommender, network, length, scores)
            partners.append((informed, score.without_boost(scores)))
    methods = Methods(own, item_recommender, partners, known)

    # SIDs by number, and what is known of each item, for the metrics by kind of target.
    sids = fitted[0].network.trie.sid_of_item.cpu().numpy()
    first_tokens = items.identifiers[0].codes[:, 0]
    thirds = popularity_thirds(first_tokens, counts)

    described = metrics.describe(
        len(items.items.ids), mask_seen=settings.mask_seen, n_resamples=settings.n_resamples
    )
    seeds = [one.seed for one in fitted]
    figures: dict[str, Any] = {
        "protocol": {**described, "model": fitted[0].settings.model, "seeds": seeds}
    }
    of_users = {}

    # Valid comes first: weights of sums are picked on it alone.
    weights = pick_weights(protocol, methods)
    figures["weights"] = _named_weights(weights, methods)
    for name, split in SPLITS.items():
        asked = sum(len(part.users) for part in protocol.queries(split))
        figures[name] = {"targets": asked}
        if not asked:
            logger.info("split %s has no interaction to predict", name)
            continue
        measured, of_users[name] = _measure(protocol, split, methods, weights, thirds)
        figures[name] |= measured
        figures[name]["sids"] = {"after": _measure_sids(protocol, split, methods, sids)}
        shown = {
            method: entries[WATCHED]["value"]
            for method, entries in figures[name]["methods"].items()
        }
        logger.info("%s %s: %s", name, WATCHED, shown)
    figures["unconstrained"] = count_illegal(protocol, fitted)
    if users_path is not None:
        user_metrics.write(users_path, of_users.get("test", user_metrics.empty()))
    return figures


def open_recommender(
    model_path: str | Path | None,
    vectors_path: str | Path | None,
    ids_path: str | Path | None,
    mmap_path: str | Path | None,
) -> tuple[Items, str | Path] | None:
    """Open the items of the sequence recommender; None where none is measured.

    Args:
        model_path: model.safetensors of the recommender.
        vectors_path: vectors.npy of its items.
        ids_path: ids.parquet of these.
        mmap_path: mmap.json, where it was trained from memory maps.
    """
    if model_path is None:
        return None
    return item_features.load(vectors_path, ids_path, mmap_path), model_path


def scaled(scorer: rank.Scorer, factor: float) -> rank.Scorer:
    """A scorer whose scores are multiplied by a factor: cosines become the logits of training."""

    def prepare(queries: Queries) -> rank.RowScores:
        score_rows = scorer(queries)
        return lambda rows: factor * score_rows(rows)

    return prepare


def renumbered(scorer: rank.Scorer, items: Items, others: Items) -> rank.Scorer:
    """A scorer of ``items``, from one that knows the same items by other numbers.

    Raises:
        SidmillError: if the two have other items.
    """
    if len(others.ids) != len(items.ids):
        raise SidmillError(
            f"{len(items.ids)} items have SIDs and {len(others.ids)} have embeddings: make both "
            f"from one catalogue"
        )
    columns = torch.from_numpy(rows_of(others.numbers, items.ids, "the embeddings"))
    numbers = columns.numpy().astype(np.int32)  # number there, by number here

    def prepare(queries: Queries) -> rank.RowScores:
        score_rows = scorer(queries._replace(numbers=numbers[queries.numbers]))

        def score_renumbered(rows: slice) -> torch.Tensor:
            scores = score_rows(rows)
            return scores[:, columns.to(scores.device)]

        return score_renumbered

    return prepare


def pick_weights(protocol: Protocol, methods: Methods) -> Weights:
    """Pick the weights of the sum of the baselines, and of ``fused``, by NDCG@10 on valid.

    Without validation items they are equal: weights that are picked on test would be too good.
    """
    n_baselines, has_recommender = len(methods.baselines), methods.recommender is not None
    if not any(len(part.users) for part in protocol.queries(sequence_table.VALID)):
        return Weights((1.0,) * n_baselines, (0.5, 0.5) if has_recommender else None, None)

    # Of the baselines: every ratio of weights.
    combinations = weight_ratios(n_baselines)
    ranked = protocol.rank(
        sequence_table.VALID, list(methods.baselines.values()), list(combinations)
    )
    values = [metrics.mean(ranks, WATCHED) for ranks in ranked]
    of_baselines = combinations[int(np.argmax(values))]
    if methods.recommender is None:
        return Weights(of_baselines, None, "valid")

    # Of generative model and recommender: one weight for all seeds.
    sums = np.zeros(len(FUSION_WEIGHTS))
    sides = [_weigh(one) for one in FUSION_WEIGHTS]
    for scorer, partners in zip(methods.generative, methods.partners, strict=True):
        ranked = protocol.rank(
            sequence_table.VALID, [scorer, *partners], list(sides), standardise=False
        )
        sums += [metrics.mean(ranks, WATCHED) for ranks in ranked]
    return Weights(of_baselines, FUSION_WEIGHTS[int(np.argmax(sums))], "valid")


def _weigh(fused: tuple[float, ...]) -> tuple[float, ...]:
    """Weights of a model and its partners, from those of ``fused``."""
    generative, recommender = fused
    return generative, recommender, generative


def weight_ratios(n_methods: int) -> list[tuple[float, ...]]:
    """Combinations of SUM_WEIGHTS that rank differently: of those in one ratio the first."""
    by_ratio: dict[tuple[float, ...], tuple[float, ...]] = {}
    for weights in product(SUM_WEIGHTS, repeat=n_methods):
        if any(weights):
            ratio = tuple(round(weight / max(weights), 6) for weight in weights)
            by_ratio.setdefault(ratio, weights)
    return list(by_ratio.values())


def _named_weights(weights: Weights, methods: Methods) -> dict[str, Any]:
    """The weights as metrics.json has them."""
    named: dict[str, Any] = {
        "picked_on": weights.picked_on,
        SUM: dict(zip(methods.baselines, weights.baselines, strict=True)),
    }
    if weights.fused is not None:
        named[FUSED] = dict(zip((GENERATIVE, "recommender"), weights.fused, strict=True))
    return named


def _measure(
    protocol: Protocol, split: int, methods: Methods, weights: Weights, thirds: np.ndarray
) -> tuple[dict[str, Any], user_metrics.Columns]:
    """Metrics of all methods over all targets, by seed, and by kind of target; sums by user."""
    # Models of several seeds: the metrics of a query are their mean. One pass ranks each by itself
    # and fused.
    partners = methods.partners or [()] * len(methods.generative)
    weightings: list[tuple[float, ...] | None] = [None]
    if weights.fused is not None:
        weightings.append(_weigh(weights.fused))
    ranked = [
        protocol.rank(split, [scorer, *others], weightings, standardise=False)
        for scorer, others in zip(methods.generative, partners, strict=True)
    ]
    by_seed = [metrics.of(ranks[0]) for ranks in ranked]
    values = {GENERATIVE: _mean(by_seed)}
    if methods.recommender is not None:
        values[FUSED] = _mean([metrics.of(ranks[1]) for ranks in ranked])
        values["recommender"] = _values(protocol, split, [methods.recommender])
    values[SUM] = _values(protocol, split, list(methods.baselines.values()), weights.baselines)
    for name, scorer in methods.baselines.items():
        values[name] = _values(protocol, split, [scorer])

    kinds = _kinds(protocol, split, thirds)
    figures = {
        **protocol.table(values),
        "seeds": _spread(by_seed),
        "by_target": {
            kind: {
                group: {"targets": int(rows.sum()), **protocol.table(_select(values, rows))}
                for group, rows in masks.items()
                if rows.any()
            }
            for kind, masks in kinds.items()
        },
    }
    return figures, _by_user(values[GENERATIVE], kinds["training"]["never_in_training"])


def _by_user(values: metrics.Values, is_cold: np.ndarray) -> user_metrics.Columns:
    """Sums of metrics over the queries of each user; ``is_cold`` bool (Q,)."""
    users, rows = np.unique(values.users, return_inverse=True)

    def add_up(weights: np.ndarray) -> np.ndarray:
        return np.bincount(rows, weights=weights, minlength=len(users))

    hits, gains = (values.values[:, metrics.NAMES.index(name)] for name in ("HR@10", WATCHED))
    return {
        "user": users,
        "queries": np.bincount(rows, minlength=len(users)),
        "HR@10": add_up(hits),
        "NDCG@10": add_up(gains),
        "cold_queries": add_up(is_cold).astype(np.int64),
        "cold_HR@10": add_up(hits * is_cold),
    }


def _values(
    protocol: Protocol,
    split: int,
    scorers: list[rank.Scorer],
    weights: tuple[float, ...] | None = None,
) -> metrics.Values:
    return metrics.of(protocol.rank(split, scorers, [weights])[0])


def _mean(values: list[metrics.Values]) -> metrics.Values:
    """Mean metrics of each query over the models of several seeds."""
    stacked = np.mean([one.values for one in values], axis=0)
    return metrics.Values(values[0].users, stacked)


def _select(values: dict[str, metrics.Values], rows: np.ndarray) -> dict[str, metrics.Values]:
    return {
        method: metrics.Values(found.users[rows], found.values[rows])
        for method, found in values.items()
    }


def _spread(by_seed: list[metrics.Values]) -> dict[str, dict[str, Any]]:
    """Metrics by seed: each value, their mean, and their sample standard deviation."""
    means = np.stack([one.values.mean(axis=0) for one in by_seed])  # (seeds, M)
    spread = means.std(axis=0, ddof=1) if len(means) > 1 else np.zeros(means.shape[1])
    return {
        name: {
            "values": [float(value) for value in means[:, column]],
            "mean": float(means[:, column].mean()),
            "standard_deviation": float(spread[column]),
        }
        for column, name in enumerate(metrics.NAMES)
    }


def _kinds(protocol: Protocol, split: int, thirds: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Masks bool (Q,) of the queries of each kind of target."""
    parts = list(protocol.queries(split))
    targets = np.concatenate([part.numbers[part.positions] for part in parts])
    lengths = np.concatenate([part.positions - part.begins for part in parts])
    is_cold = protocol.counts[targets] == 0
    return {
        "training": {"in_training": ~is_cold, "never_in_training": is_cold},
        "history_length": {
            name: (lengths >= low) & (lengths <= (high or lengths.max()))
            for name, (low, high) in HISTORY_LENGTHS.items()
        },
        "first_token": {
            name: thirds[targets] == third for third, name in enumerate(POPULARITY_THIRDS)
        },
    }


def popularity_thirds(tokens: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Third of the interactions that the first token of each item belongs to: int64 (N,).

    Tokens are ordered by the training interactions of their items, most first, and cut where a
    third and two thirds of all interactions are reached.

    Args:
        tokens: int32 (N,), the first token of each item.
        counts: (N,), training interactions of each item.
    """
    by_token = np.bincount(tokens, weights=counts)
    order = np.argsort(-by_token, kind="stable")
    reached = np.cumsum(by_token[order]) - by_token[order]  # before the token itself
    thirds = np.empty(len(by_token), np.int64)
    thirds[order] = np.minimum(3 * reached // max(by_token.sum(), 1), 2).astype(np.int64)
    of_items: np.ndarray = thirds[tokens]
    return of_items


def _measure_sids(
    protocol: Protocol, split: int, methods: Methods, sids: np.ndarray
) -> dict[str, Any]:
    """Metrics where SIDs are ranked, each by its best item; means over the seeds.

    At SID level a hit counts 1; at item level it counts 1/k where k items share the SID.
    """
    n_sharing = np.bincount(sids)[sids]
    targets = np.concatenate([part.numbers[part.positions] for part in protocol.queries(split)])
    ranked = [protocol.rank(split, [one], [None], sids)[0] for one in methods.generative]
    shares = 1.0 / n_sharing[targets]
    levels = {
        "sid_level": _mean([metrics.of(ranks) for ranks in ranked]),
        "item_level": _mean([metrics.of(ranks, shares) for ranks in ranked]),
    }
    return {
        "n_sids": int(sids.max()) + 1,
        "targets_sharing": metrics.share(n_sharing[targets] > 1),
        **protocol.table(levels)["methods"],
    }


def count_illegal(protocol: Protocol, fitted: list[Fitted]) -> dict[str, Any]:
    """Share of answers that are the SID of no item, where beams are not constrained.

    Beams of the first seed's model, for the first target of each of the first users of the split
    test.
    """
    settings, first = protocol.settings, fitted[0]
    answers = illegal = n_users = 0
    trie = first.network.trie
    scores = first.network.scores()

    # The first target of each of the first users of the split, a block at a time.
    for part in protocol.queries(sequence_table.TEST):
        if n_users >= settings.illegal_users:
            break
        asked = np.unique(part.users, return_index=True)[1][: settings.illegal_users - n_users]
        chosen = windows.select(part, asked)
        for batch in score.histories(chosen, first.settings.max_length, first.network.device):
            state = scores.encode(*batch)
            found = decode.unconstrained(
                scores.token_scores(state),
                trie.sizes,
                len(state),
                settings.beam_width,
                first.network.device,
            )
            is_answer = found.scores > -torch.inf
            answers += int(is_answer.sum())
            illegal += int(((sid_trie.find(trie, found.tokens) < 0) & is_answer).sum())
            n_users += len(state)
    return {
        "users": n_users,
        "beam_width": settings.beam_width,
        "answers": answers,
        "illegal": illegal,
        "illegal_share": illegal / answers if answers else 0.0,
    }
