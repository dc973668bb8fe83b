"""Train a generative recommender: predict the SID of the next item after each item of a history.

Several models are trained, which differ in their seed alone. Epochs, early stopping and resumption
are those of :mod:`sidmill.recommend.training_loop`.

Shapes: N items, B windows of T positions, n candidates.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from sidmill.core import checksums, listing
from sidmill.core.errors import SidmillError
from sidmill.numeric.nearest_torch import pick_device
from sidmill.recommend import checkpoint, metrics, rank, state, training_loop, windows
from sidmill.recommend.generative import models, score, sid_items
from sidmill.recommend.generative.models import Fitted, Network
from sidmill.recommend.generative.sid_items import SidItems
from sidmill.recommend.state import Epoch
from sidmill.recommend.training_loop import WATCHED
from sidmill.recommend.windows import NO_TARGET, Batch
from sidmill.settings import base
from sidmill.settings.generative import Generative

logger = logging.getLogger(__name__)

MANY_CANDIDATES = 50_000  # from which on scores against all of them are costly
SORTED_BATCHES = 4  # whose windows are sorted by length, so that a batch has little padding


class Curve(TypedDict):
    """Training of one seed, as training.json has it."""

    seed: int
    best_epoch: int
    epochs: list[Epoch]


class Training(NamedTuple):
    """What every step of one training reads.

    Attributes:
        sequences_path: sequences.parquet.
        items: all items.
        network: the model and what it reads of the items.
        candidates: int64 (n,), items that are a target in training. Others would be wrong at every
            step, however well they fit.
        settings: how to train.
        seed: of every random draw.
    """

    sequences_path: str | Path
    items: SidItems
    network: Network
    candidates: np.ndarray
    settings: Generative
    seed: int

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        return windows.training_batches(
            self.sequences_path,
            self.items.items,
            self.settings,
            self.seed,
            epoch,
            n_sorted=SORTED_BATCHES,
            n_folds=self.items.n_folds,
        )

    def loss(self, batch: Batch, sequence: np.random.SeedSequence) -> tuple[Tensor, int]:
        """Mean loss over the targets of a batch, and their number."""
        device = self.network.device
        inputs = torch.from_numpy(batch.inputs.astype(np.int64)).to(device)
        targets = torch.from_numpy(batch.targets.astype(np.int64)).to(device)
        candidates = torch.from_numpy(self._candidates(batch, sequence)).to(device)
        self.network.model.read_fold(batch.fold)
        is_half = self.settings.dtype == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=is_half):
            loss: tuple[Tensor, int] = self.network.model.loss(inputs, targets, candidates)
        return loss

    def _candidates(self, batch: Batch, sequence: np.random.SeedSequence) -> np.ndarray:
        """Items that targets are compared with: int64 (n,), ascending, each once."""
        if self.settings.loss == "full":
            return self.candidates
        rng = np.random.default_rng(sequence)
        drawn = rng.integers(len(self.candidates), size=self.settings.n_negatives)
        has_target = batch.targets != NO_TARGET
        return np.unique(np.concatenate([batch.targets[has_target], self.candidates[drawn]]))

    def validate(self) -> float | None:
        """NDCG@10 on the validation items of about ``valid_users`` users; None without any."""
        ranks = rank.rank(
            score.scorer(self.network, self.settings.max_length),
            windows.validation_queries(
                self.sequences_path, self.items.items, self.settings.valid_users, self.seed
            ),
            len(self.items.items.ids),
            mask_seen=False,
            memory_mb=self.settings.memory_mb,
        )
        return metrics.mean(ranks, WATCHED) if len(ranks.users) else None


def fit(
    sequences_path: str | Path,
    items: SidItems,
    settings: Generative,
    *,
    seed: int,
    code: str,
    state_path: str | Path | None = None,
) -> tuple[list[Fitted], list[Curve]]:
    """Train ``settings.seeds`` models on the items of the split train.

    The same input, settings, seed and thread count give the same weights on the same machine,
    interrupted or not; on a GPU, which has no deterministic kernel for some of the gradients, they
    may differ in the last bits of floats and what follows from those, and so they may from device
    to device. ``settings.save_steps`` and ``settings.memory_mb`` never change them.

    Memory: a buffer of ``shuffle_users`` histories; the vectors of the items of a step (with the
    loss full of all items in train), and what :func:`softmax_loss.cross_entropy` takes; to
    validate, the vectors of all items and ``memory_mb``.

    Args:
        sequences_path: sequences.parquet.
        items: the items, their SIDs, and what the model reads of them.
        settings: the section generative.
        seed: of the first model: initial weights, order of histories, dropout. The next models have
            the next seeds.
        code: names this code: a saved state of other code is not used.
        state_path: beginning of the paths of saved states (:func:`state_file`); None: nowhere.

    Returns:
        The best model of each seed, and its training.

    Raises:
        SidmillError: if settings contradict each other, there is nothing to train on, or the loss
            is not finite.
    """
    _check(settings)
    device = pick_device(settings.device)
    is_seen, is_target = windows.training_masks(sequences_path, items.items)
    candidates = np.flatnonzero(is_target)
    _warn_of_scores(settings, len(candidates))
    constants = models.constants_of(items, settings)
    identity = sid_items.identify(items)

    # What the training of every seed belongs to.
    training_of = {
        "code": code,
        "settings": base.identity(settings),
        "identity": identity,
        "vectors": checkpoint.digest_of_vectors(items.items.vectors),
        "sequences": checksums.of_file(sequences_path),
        "folds": sid_items.identify_folds(items),
    }

    fitted, curves = [], []
    for own_seed in range(seed, seed + settings.seeds):
        torch.manual_seed(own_seed)
        network = models.initial(constants, settings, is_seen, device)
        training = Training(
            sequences_path,
            items,
            network,
            candidates,
            settings,
            own_seed,
        )

        # A saved state is resumed only by the training that it belongs to.
        saved = state.State(
            None if state_path is None else state_file(state_path, own_seed),
            {**training_of, "seed": own_seed},
        )
        logger.info("seed %d: training", own_seed)
        curve = _run(training, saved)
        network.model.drop_folds()
        best = _best_epoch(curve)
        fitted.append(Fitted(network, settings, identity, own_seed, curve[best]["valid"]))
        curves.append(Curve(seed=own_seed, best_epoch=best, epochs=curve))
    return fitted, curves


def _best_epoch(curve: list[Epoch]) -> int:
    """The epoch whose weights were kept: the first of the best; the last without validation."""
    values = [epoch["valid"] for epoch in curve]
    known = [value for value in values if value is not None]
    return values.index(max(known)) if known else len(curve) - 1


def _check(settings: Generative) -> None:
    """Refuse settings that contradict each other."""
    width, n_heads = settings.hidden_dim, settings.n_heads
    if settings.model == "causal" and width % (2 * n_heads):
        raise SidmillError(
            f"generative.hidden_dim {width} does not give each of {n_heads} heads an even number "
            f"of dimensions: set it to a multiple of {2 * n_heads}"
        )
    if settings.model == "tiger" and (settings.features != "sid" or settings.identifiers):
        raise SidmillError(
            f"generative.model tiger reads the tokens of one quantizer alone, not "
            f"{listing.some([settings.features, *settings.identifiers])}: set generative.features: "
            f"sid and generative.identifiers: []"
        )


def _warn_of_scores(settings: Generative, n_candidates: int) -> None:
    """Say what scores against all targets take, where the targets of a batch would be enough."""
    if settings.model == "causal" and settings.loss == "full" and n_candidates >= MANY_CANDIDATES:
        n_targets = settings.batch_users * settings.max_length
        logger.warning(
            "up to %d targets of a step are compared with %d items; on a GPU the scores take up to "
            "%.1f GiB, several times: set generative.loss: in_batch, or lower "
            "generative.batch_users",
            n_targets,
            n_candidates,
            n_targets * n_candidates * rank.FLOAT_BYTES / 2**30,
        )


def _run(training: Training, saved: state.State) -> list[Epoch]:
    """Run one training."""
    run = training_loop.Run(
        training,
        training.network.model,
        training.settings,
        base.section_name(Generative),
        str(training.sequences_path),
        training.seed,
        saved,
    )
    return training_loop.run(run)


def state_file(state_path: str | Path, seed: int | str) -> Path:
    """Path of the saved state of one seed."""
    return Path(f"{state_path}.{seed}.state")


def discard_states(state_path: str | Path) -> None:
    """Remove the saved states of trainings whose models are written, and of seeds before them."""
    for path in Path(state_path).parent.glob(state_file(Path(state_path).name, "*").name):
        state.discard(path)
