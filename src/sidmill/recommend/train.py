"""Train a recommender: predict the next item after each item of a user's history.

Epochs, early stopping and resumption are those of :mod:`sidmill.recommend.training_loop`.

Shapes: N items, D dimensions, H of the model, B windows of T positions, n items of a step.

Source: cross-entropy of cosines over a temperature, against all targets or those of the batch, as
in UniSRec, https://arxiv.org/abs/2206.05941.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sidmill.core import checksums
from sidmill.core.errors import SidmillError
from sidmill.numeric.nearest_torch import pick_device
from sidmill.recommend import (
    checkpoint,
    metrics,
    rank,
    score,
    sequence_model,
    softmax_loss,
    state,
    training_loop,
    windows,
)
from sidmill.recommend.checkpoint import Fitted, Identity
from sidmill.recommend.item_features import (
    Items,
    Whitening,
    gather,
    measure_whitening,
)
from sidmill.recommend.state import Epoch
from sidmill.recommend.training_loop import WATCHED
from sidmill.recommend.windows import NO_TARGET, Batch
from sidmill.settings import base
from sidmill.settings.recommend import Recommender

CLUSTER_SAMPLE = 256  # items per interest that the clusters are fitted to
CLUSTER_ROUNDS = 20


class TrainingItems(NamedTuple):
    """The items that training knows; an item outside of them is known by its text alone.

    Attributes:
        numbers: int64 (n,), ascending.
        is_target: bool (N,), items that are a target at least once. Scores are compared with these
            alone: any other item would be wrong at every step, however good its text.
    """

    numbers: np.ndarray
    is_target: Tensor


class Training(NamedTuple):
    """What every step of one training reads.

    Attributes:
        sequences_path: sequences.parquet.
        items: all items and their text embeddings.
        known: the items that training knows.
        settings: how to train.
        seed: of every random draw.
    """

    sequences_path: str | Path
    items: Items
    known: TrainingItems
    settings: Recommender
    seed: int


def fit(
    sequences_path: str | Path,
    items: Items,
    settings: Recommender,
    *,
    seed: int,
    code: str,
    start: str | Path | None = None,
    state_path: str | Path | None = None,
) -> tuple[Fitted, list[Epoch]]:
    """Train on the items of the split train.

    The same input, settings, seed and thread count give the same weights on the same machine.
    ``settings.save_steps`` and ``settings.memory_mb`` never change them; another
    ``settings.device`` may, in the last bits of floats and what follows from those.

    Memory: a buffer of ``shuffle_users`` histories; the embeddings of all items of the split train
    with the loss full, of the items of a batch with in_batch; what
    :func:`softmax_loss.cross_entropy` takes; and, to validate, 8 N H bytes and ``memory_mb``.

    Args:
        sequences_path: sequences.parquet.
        items: the items and their text embeddings.
        settings: the section recommender. What names files in it (``train_from``, ``mmap_path``,
            ``load``) is read by the workflow alone.
        seed: of the initial weights, the order of histories, and dropout.
        code: names this code: a saved state of other code is not used.
        start: a checkpoint of the same shape to start from; None: random weights.
        state_path: where an unfinished training saves its state; None: nowhere.

    Returns:
        The best model, and one entry per epoch: ``epoch``, ``loss``, ``valid`` NDCG@10.

    Raises:
        SidmillError: if settings contradict each other, there is nothing to train on, or the loss
            is not finite.
    """
    n_items = len(items.vectors)
    _check(settings, n_items)
    device = pick_device(settings.device)
    known = training_items(sequences_path, items, settings.features, device)
    training = Training(sequences_path, items, known, settings, seed)
    identity = checkpoint.identify(items)
    fitted = initial_model(training, identity, start, device)

    # A saved state is resumed only by the training that it belongs to.
    saved = state.State(
        state_path,
        {
            "code": code,
            "seed": seed,
            "settings": base.identity(settings),
            "identity": identity,
            "vectors": checkpoint.digest_of_vectors(items.vectors),
            "sequences": checksums.of_file(sequences_path),
            "start": checksums.of_file(start) if start else None,
        },
    )

    # With the loss full every step reads the same items, so their embeddings are read once.
    inputs = None
    if settings.loss == "full":
        inputs = score.read_inputs(fitted.model, fitted.whitening, items, known.numbers)
    run = training_loop.Run(
        _Task(training, fitted, inputs),
        fitted.model,
        settings,
        base.section_name(Recommender),
        str(sequences_path),
        seed,
        saved,
    )
    return fitted, training_loop.run(run)


def _check(settings: Recommender, n_items: int) -> None:
    """Refuse settings that contradict each other, or the number of items."""
    width, n_heads = settings.hidden_dim, settings.n_heads
    if width % (2 * n_heads):
        raise SidmillError(
            f"recommender.hidden_dim {width} does not give each of {n_heads} heads an even number "
            f"of dimensions: set it to a multiple of {2 * n_heads}"
        )
    if settings.n_interests > n_items:
        raise SidmillError(
            f"recommender.n_interests {settings.n_interests} for {n_items} items: set it to at "
            f"most {n_items // 2}"
        )


def training_items(
    path: str | Path, items: Items, features: str, device: torch.device
) -> TrainingItems:
    """Find the items that training knows: all of them where items are ids alone."""
    if features == "id":
        n_items = len(items.ids)
        return TrainingItems(
            np.arange(n_items), torch.ones(n_items, dtype=torch.bool, device=device)
        )
    in_histories, is_target = windows.training_masks(path, items)
    return TrainingItems(np.flatnonzero(in_histories), torch.from_numpy(is_target).to(device))


def initial_model(
    training: Training, identity: Identity, start: str | Path | None, device: torch.device
) -> Fitted:
    """Make the model before the first step: random, or from a checkpoint.

    Raises:
        SidmillError: if the checkpoint has another shape, or belongs to other items.
    """
    settings, items = training.settings, training.items
    shape = sequence_model.shape_of(settings, *items.vectors.shape)
    torch.manual_seed(training.seed)
    model = sequence_model.SequenceModel(shape, settings.dropout, settings.text_dropout)

    # An item that no history has gets no gradient: the id vector of such an item stays 0.
    if "id" in shape.features:
        absent = np.delete(np.arange(shape.n_items), training.known.numbers)
        model.ids.weight.data[torch.from_numpy(absent)] = 0.0

    if start is not None:
        whitening = _load_weights(model, start, identity)
    else:
        is_whitened = settings.whiten and "text" in shape.features
        whitening = measure_whitening(items) if is_whitened else None
        if shape.n_interests:
            centroids = _interest_centroids(training, whitening)
            model.interest_vectors.copy_(torch.from_numpy(centroids))

    facts = {"max_length": settings.max_length, "temperature": settings.temperature}
    return Fitted(model.to(device), whitening, facts, identity)


def _load_weights(
    model: sequence_model.SequenceModel, path: str | Path, identity: Identity
) -> Whitening | None:
    """Copy the weights of a checkpoint into a model of the same shape; return its whitening."""
    start = checkpoint.load(path, torch.device("cpu"))
    checkpoint.check_items(start, identity, path)

    # A model of text alone may come from another catalogue, which has another number of items.
    ignored = {} if "id" in model.shape.features else {"n_items": 0}
    expected = model.shape._asdict() | ignored
    found = start.model.shape._asdict() | ignored
    differing = [name for name, value in expected.items() if found[name] != value]
    if differing:
        facts = ", ".join(f"{name} {found[name]!r}, not {expected[name]!r}" for name in differing)
        raise SidmillError(f"recommender.load: {path} has {facts}: set the same values")
    model.load_state_dict(start.model.state_dict())
    return start.whitening


def _interest_centroids(training: Training, whitening: Whitening | None) -> np.ndarray:
    """Cluster the item space by k-means on a sample of the items: float32 (I, D)."""
    from sidmill.core.faiss_library import faiss  # only interests need it

    n_interests = training.settings.n_interests
    n_items, dim = training.items.vectors.shape

    # The sample is sorted, so that rows are read in the order of the file.
    rng = np.random.default_rng([training.seed, n_interests])
    n_sampled = min(n_items, CLUSTER_SAMPLE * n_interests)
    sampled = np.sort(rng.choice(n_items, n_sampled, replace=False))

    kmeans = faiss.Kmeans(
        dim,
        n_interests,
        niter=CLUSTER_ROUNDS,
        seed=training.seed % 2**31,
        max_points_per_centroid=CLUSTER_SAMPLE,
        min_points_per_centroid=1,
    )
    kmeans.train(gather(training.items, whitening, sampled))
    return np.asarray(kmeans.centroids)


class _Task(NamedTuple):
    """Training of the recommender, as the loop runs it.

    Attributes:
        training: what every step reads.
        fitted: the model, whose weights change.
        inputs: what the model reads of all training items; None: it reads those of each batch.
    """

    training: Training
    fitted: Fitted
    inputs: score.Inputs | None

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        training = self.training
        return windows.training_batches(
            training.sequences_path, training.items, training.settings, training.seed, epoch
        )

    def loss(self, batch: Batch, sequence: np.random.SeedSequence) -> tuple[Tensor, int]:
        """Mean cross-entropy over the targets of a batch, and their number."""
        training, fitted, inputs = self.training, self.fitted, self.inputs
        settings, model = training.settings, fitted.model
        if inputs is None:
            numbers = _items_of_batch(batch, training, sequence)
            inputs = score.read_inputs(model, fitted.whitening, training.items, numbers)

        # Positions of items (B, T) and of the targets among the items that scores are compared
        # with.
        device = inputs.numbers.device
        numbers_in = torch.from_numpy(batch.inputs.astype(np.int64)).to(device)
        targets = torch.from_numpy(batch.targets.astype(np.int64)).to(device)
        has_target = targets != NO_TARGET
        history = torch.where(has_target, torch.searchsorted(inputs.numbers, numbers_in), 0)
        is_compared = training.known.is_target[inputs.numbers]
        labels = torch.searchsorted(inputs.numbers[is_compared], targets[has_target])

        with torch.autocast(device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16"):
            vectors = model.items(inputs.vectors, inputs.numbers)  # (n, H)
            clusters = None if inputs.clusters is None else inputs.clusters[history]
            users = model.users(functional.embedding(history, vectors), clusters)[has_target]
            compared = sequence_model.unit(vectors[is_compared])
            loss = softmax_loss.cross_entropy(
                users / settings.temperature, compared, labels, settings.label_smoothing
            )
        return loss, len(users)

    def validate(self) -> float | None:
        """NDCG@10 on the validation items of about ``valid_users`` users; None without any."""
        training, fitted = self.training, self.fitted
        scorer = score.scorer(fitted, score.catalogue(fitted, training.items))
        ranks = rank.rank(
            scorer,
            windows.validation_queries(
                training.sequences_path,
                training.items,
                training.settings.valid_users,
                training.seed,
            ),
            len(training.items.vectors),
            mask_seen=False,
            memory_mb=training.settings.memory_mb,
        )
        return metrics.mean(ranks, WATCHED) if len(ranks.users) else None


def _items_of_batch(
    batch: Batch, training: Training, sequence: np.random.SeedSequence
) -> np.ndarray:
    """Numbers of the items that a step reads: those of the batch, and negatives drawn at random.

    Ascending, each once, so that no item is its own negative: int64 (n,).
    """
    known = training.known.numbers
    rng = np.random.default_rng(sequence)
    drawn = rng.integers(len(known), size=training.settings.n_negatives)
    has_target = batch.targets != NO_TARGET
    return np.unique(
        np.concatenate([batch.inputs[has_target], batch.targets[has_target], known[drawn]])
    )
