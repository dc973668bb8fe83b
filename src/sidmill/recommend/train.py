"""Train a recommender: predict, after each item that a user had, the one that came next.

The best epoch by NDCG@10 on the validation items is kept, and training ends when it has not got
better for a while. Cut short anywhere, it goes on from its last saved step and ends in the same
bytes: what is random in a step follows from the seed and the number of the step.

Shapes: N items, D dimensions, H of the model, B windows of T positions, n known items of a step.

Source: cross-entropy of cosines over a temperature, over all answers or those of the batch, as in
UniSRec, https://arxiv.org/abs/2206.05941.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sidmill.core import checksums
from sidmill.core.errors import SidmillError
from sidmill.formats import sequence_table
from sidmill.numeric.nearest_torch import pick_device
from sidmill.recommend import (
    checkpoint,
    metrics,
    rank,
    score,
    sequence_model,
    state,
)
from sidmill.recommend.checkpoint import Fitted
from sidmill.recommend.item_features import Items, gather, measure_whitening
from sidmill.recommend.windows import (
    NOTHING,
    Batch,
    Queries,
    met_in_training,
    queries,
    read_groups,
    training_batches,
)

logger = logging.getLogger(__name__)

CLIP_NORM = 1.0
CLUSTER_SAMPLE = 256  # items per interest that the clusters are fitted to
CLUSTER_ROUNDS = 20
WATCHED = "NDCG@10"


class Recipe(NamedTuple):
    """How to train; the settings of ``recommender`` that say nothing of the model's shape."""

    dropout: float
    text_dropout: float
    max_length: int
    loss: str
    n_negatives: int
    temperature: float
    label_smoothing: float
    batch_users: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    max_epochs: int
    patience: int
    valid_users: int
    shuffle_users: int
    save_steps: int
    dtype: str
    seed: int


class Met(NamedTuple):
    """The items that training meets; of the others it knows the text alone.

    Attributes:
        numbers: int64 (n,), in order.
        answers: bool (N,), those that are the right answer once or more. No other item is compared:
            it would be wrong every time, however good its text.
    """

    numbers: np.ndarray
    answers: Tensor


def fit(
    sequences_path: str | Path,
    items: Items,
    *,
    load: str | None,
    features: str,
    adaptor: str,
    n_experts: int,
    whiten: bool,
    hidden_dim: int,
    n_layers: int,
    n_heads: int,
    n_interests: int,
    max_length: int,
    dropout: float,
    text_dropout: float,
    loss: str,
    n_negatives: int,
    temperature: float,
    label_smoothing: float,
    batch_users: int,
    learning_rate: float,
    weight_decay: float,
    warmup_steps: int,
    max_epochs: int,
    patience: int,
    valid_users: int,
    shuffle_users: int,
    save_steps: int,
    dtype: str,
    seed: int,
    device: str,
    memory_mb: int,
    state_path: str | Path | None,
    code: str,
) -> tuple[Fitted, list[dict]]:
    """Train on the items of the split train.

    The same input, settings, seed and thread count give the same weights on the same machine.

    Memory: a buffer of ``shuffle_users`` histories; with the loss full the embeddings of all items
    had in train and the scores of a batch, with in_batch only those of the items of a batch; and,
    to validate, 8 N H bytes and ``memory_mb``.

    Args:
        sequences_path: sequences.parquet.
        items: the items and their text embeddings.
        load: a checkpoint of the same shape to start from, or None.
        features: text, id or text+id: what an item is to the model.
        adaptor: mlp or moe, from text embeddings to the model's space.
        n_experts: of moe.
        whiten: give the text embeddings mean 0 and covariance 1 first.
        hidden_dim: H.
        n_layers: Transformer blocks.
        n_heads: attention heads; each gets H / n_heads dimensions, an even number.
        n_interests: clusters of the item space that histories are also read by, 0 for none.
        max_length: items of a history that the model looks back at.
        dropout: in the Transformer.
        text_dropout: on text embeddings and in the adaptor.
        loss: full, against all items that are once a target, or in_batch, against those of them
            that are in the batch.
        n_negatives: items drawn at random that in_batch adds.
        temperature: what cosines are divided by.
        label_smoothing: share of the target that is spread over all that it is compared with.
        batch_users: B.
        learning_rate: of AdamW.
        weight_decay: of AdamW, on matrices.
        warmup_steps: over which the learning rate rises.
        max_epochs: passes over the histories, at most.
        patience: epochs without a better valid NDCG@10 after which training ends.
        valid_users: users that validation looks at, about so many, drawn once.
        shuffle_users: users that are mixed at a time.
        save_steps: batches after which the state is saved; and after each epoch.
        dtype: float32, or bfloat16 for the matrix products.
        seed: of the first weights, the order and dropout.
        device: auto, cpu or cuda.
        memory_mb: MiB for scores in validation.
        state_path: where the state of an unfinished training lies; None to keep none.
        code: names this code: the state of other code is not used.

    Returns:
        The best model, and one entry per epoch: ``epoch``, ``loss``, ``valid`` NDCG@10.

    Raises:
        SidmillError: if settings do not fit, there is nothing to train on, or the loss is NaN.
    """
    recipe = Recipe(
        dropout, text_dropout, max_length, loss, n_negatives, temperature, label_smoothing,
        batch_users, learning_rate, weight_decay, warmup_steps, max_epochs, patience, valid_users,
        shuffle_users, save_steps, dtype, seed,
    )  # fmt: skip
    n_items, dim = items.vectors.shape
    shape = sequence_model.Shape(
        features, adaptor, n_experts, hidden_dim, n_layers, n_heads, n_interests, dim, n_items
    )
    _check(shape, recipe)
    place = pick_device(device)
    identity = checkpoint.identify(items)
    met = _meet(sequences_path, items, features, place)
    fitted = _first(items, met, identity, shape, recipe, whiten, load, place)
    training = {
        "code": code,
        "shape": shape._asdict(),
        "recipe": recipe._asdict(),
        "identity": identity,
        "vectors": checkpoint.digest_of_vectors(items.vectors),
        "sequences": checksums.of_file(sequences_path),
        "start": checksums.of_file(load) if load else None,
    }
    kept = state.State(state_path, training)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(place.type == "cpu")
    try:
        return _train(sequences_path, items, met, fitted, recipe, memory_mb, kept)
    finally:
        torch.use_deterministic_algorithms(before)


def _check(shape: sequence_model.Shape, recipe: Recipe) -> None:
    """Refuse settings that do not fit each other."""
    if shape.hidden_dim % (2 * shape.n_heads):
        raise SidmillError(
            f"recommender.hidden_dim {shape.hidden_dim} does not give each of {shape.n_heads} "
            f"heads an even number of dimensions: set it to a multiple of {2 * shape.n_heads}"
        )
    if shape.n_interests > shape.n_items:
        raise SidmillError(
            f"recommender.n_interests {shape.n_interests} for {shape.n_items} items: set it to at "
            f"most {shape.n_items // 2}"
        )


def _meet(path: str | Path, items: Items, features: str, place: torch.device) -> Met:
    """Find the items that training meets: all where there are only ids, as wrong answers."""
    if features == "id":
        n_items = len(items.ids)
        return Met(np.arange(n_items), torch.ones(n_items, dtype=torch.bool, device=place))
    had, followed = met_in_training(path, items)
    return Met(np.flatnonzero(had), torch.from_numpy(followed).to(place))


def _first(
    items: Items,
    met: Met,
    identity: dict,
    shape: sequence_model.Shape,
    recipe: Recipe,
    whiten: bool,
    load: str | None,
    place: torch.device,
) -> Fitted:
    """Make the model of before the first step, or take that of a checkpoint."""
    settings = {"max_length": recipe.max_length, "temperature": recipe.temperature}
    torch.manual_seed(recipe.seed)
    network = sequence_model.Recommender(shape, recipe.dropout, recipe.text_dropout)
    if "id" in shape.features:
        unmet = np.delete(np.arange(shape.n_items), met.numbers)
        network.ids.weight.data[torch.from_numpy(unmet)] = 0.0  # and 0 they stay
    if load is not None:
        start = checkpoint.load(load, torch.device("cpu"))
        checkpoint.check_items(start, identity, load)
        wanted = shape._asdict() if "id" in shape.features else {**shape._asdict(), "n_items": 0}
        found = start.model.shape._asdict() | ({} if "id" in shape.features else {"n_items": 0})
        differing = [name for name, value in wanted.items() if found[name] != value]
        if differing:
            facts = ", ".join(f"{name} {found[name]!r}, not {wanted[name]!r}" for name in differing)
            raise SidmillError(f"recommender.load: {load} has {facts}: set the same values")
        network.load_state_dict(start.model.state_dict())
        return Fitted(network.to(place), start.whitening, settings, identity)
    whitening = measure_whitening(items) if whiten and "text" in shape.features else None
    if shape.n_interests:
        rng = np.random.default_rng([recipe.seed, shape.n_interests])
        n_sampled = min(shape.n_items, CLUSTER_SAMPLE * shape.n_interests)
        taken = np.sort(rng.choice(shape.n_items, n_sampled, replace=False))
        kmeans = faiss.Kmeans(
            shape.dim,
            shape.n_interests,
            niter=CLUSTER_ROUNDS,
            seed=recipe.seed % 2**31,
            max_points_per_centroid=CLUSTER_SAMPLE,
            min_points_per_centroid=1,
        )
        kmeans.train(gather(items, whitening, taken))
        network.interest_vectors.copy_(torch.from_numpy(kmeans.centroids))
    return Fitted(network.to(place), whitening, settings, identity)


def _train(
    path: str | Path,
    items: Items,
    met: Met,
    fitted: Fitted,
    recipe: Recipe,
    memory_mb: int,
    kept: state.State,
) -> tuple[Fitted, list[dict]]:
    network = fitted.model
    optimizer = _optimizer(network, recipe)
    best, progress = state.restore(kept, network, optimizer)
    whole = None
    if recipe.loss == "full":
        whole = score.inputs(network, fitted.whitening, items, met.numbers)
    while progress.epoch < recipe.max_epochs and _patient(progress, recipe):
        batches = training_batches(
            path,
            items,
            batch_users=recipe.batch_users,
            max_length=recipe.max_length,
            shuffle_users=recipe.shuffle_users,
            seed=recipe.seed,
            epoch=progress.epoch,
        )
        done = progress.step
        for number, batch in enumerate(batches):
            if number < done:  # by the run before this one
                continue
            loss, n_targets = _step(fitted, items, met, whole, batch, optimizer, recipe, progress)
            progress = progress._replace(
                step=number + 1,
                total_steps=progress.total_steps + 1,
                loss=progress.loss + loss * n_targets,
                targets=progress.targets + n_targets,
            )
            if progress.step % recipe.save_steps == 0:
                state.save(kept, network, optimizer, best, progress)
        if not progress.targets:
            raise SidmillError(
                f"{path}: no user has two items in the split train, so there is nothing to learn: "
                f"check interactions.split"
            )
        best, progress = _close_epoch(path, items, fitted, recipe, memory_mb, best, progress)
        state.save(kept, network, optimizer, best, progress)
    checkpoint.fill(network, best, state.BEST)
    logger.info("best epoch %d, valid %s %.4f", progress.best_epoch, WATCHED, progress.best)
    return fitted._replace(model=network.eval()), list(progress.curve)


def _patient(progress: state.Progress, recipe: Recipe) -> bool:
    return progress.epoch - 1 - max(progress.best_epoch, 0) < recipe.patience


def _optimizer(network: sequence_model.Recommender, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW whose weight decay leaves norms and biases alone."""
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)


def _step(
    fitted: Fitted,
    items: Items,
    met: Met,
    whole: score.Inputs | None,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    progress: state.Progress,
) -> tuple[float, int]:
    """Take one step and return the mean loss and the number of its targets."""
    network, total_steps = fitted.model.train(), progress.total_steps
    draws = np.random.SeedSequence([recipe.seed, total_steps])
    torch.manual_seed(int(draws.generate_state(1, np.uint64)[0] >> np.uint64(1)))
    known = whole
    if known is None:
        numbers = _of_batch(batch, met, recipe, draws)
        known = score.inputs(network, fitted.whitening, items, numbers)
    place = known.numbers.device
    inputs = torch.from_numpy(batch.inputs.astype(np.int64)).to(place)
    targets = torch.from_numpy(batch.targets.astype(np.int64)).to(place)
    asked = targets != NOTHING
    history = torch.where(asked, torch.searchsorted(known.numbers, inputs), 0)
    compared = met.answers[known.numbers]
    wanted = torch.searchsorted(known.numbers[compared], targets[asked])
    rate = recipe.learning_rate * min(1.0, (total_steps + 1) / max(recipe.warmup_steps, 1))
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(place.type, torch.bfloat16, enabled=recipe.dtype == "bfloat16"):
        made = network.items(known.vectors, known.numbers)  # (n, H)
        clusters = None if known.clusters is None else known.clusters[history]
        users = network.users(functional.embedding(history, made), clusters)[asked]
        scores = users @ sequence_model.unit(made[compared]).T / recipe.temperature
    loss = functional.cross_entropy(scores.float(), wanted, label_smoothing=recipe.label_smoothing)
    if not torch.isfinite(loss):
        raise SidmillError(
            f"the loss is {loss.item()} at step {total_steps}: lower recommender.learning_rate, or "
            f"raise recommender.temperature"
        )
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
    optimizer.step()
    return loss.item(), len(users)


def _of_batch(batch: Batch, met: Met, recipe: Recipe, draws: np.random.SeedSequence) -> np.ndarray:
    """Numbers of the items that a step knows, in order, each once: none is its own negative."""
    drawn = np.random.default_rng(draws).integers(len(met.numbers), size=recipe.n_negatives)
    inside = batch.targets != NOTHING
    return np.unique(
        np.concatenate([batch.inputs[inside], batch.targets[inside], met.numbers[drawn]])
    )


def _close_epoch(
    path: str | Path,
    items: Items,
    fitted: Fitted,
    recipe: Recipe,
    memory_mb: int,
    best: dict[str, np.ndarray],
    progress: state.Progress,
) -> tuple[dict[str, np.ndarray], state.Progress]:
    """Validate, keep the weights if they are the best so far, and go to the next epoch.

    Raises:
        SidmillError: if the last step left weights that are not finite.
    """
    if not all(part.isfinite().all() for part in fitted.model.parameters()):
        raise SidmillError(
            f"weights are not finite after epoch {progress.epoch}: lower "
            f"recommender.learning_rate (it is {recipe.learning_rate:g})"
        )
    loss = progress.loss / progress.targets
    valid = _validate(path, items, fitted, recipe, memory_mb)
    logger.info("epoch %d: loss %.4f, valid %s %s", progress.epoch, loss, WATCHED, valid)
    entry = {"epoch": progress.epoch, "loss": loss, "valid": valid}
    better = valid is None or valid > progress.best
    if better:
        best = {
            name: value.copy()
            for name, value in checkpoint.arrays_of(fitted.model, state.BEST).items()
        }
    return best, progress._replace(
        epoch=progress.epoch + 1,
        step=0,
        loss=0.0,
        targets=0,
        best=progress.best if valid is None or not better else valid,
        best_epoch=progress.epoch if better else progress.best_epoch,
        curve=(*progress.curve, entry),
    )


def _validate(
    path: str | Path, items: Items, fitted: Fitted, recipe: Recipe, memory_mb: int
) -> float | None:
    """NDCG@10 on the validation items of about ``valid_users`` users; None if there are none."""
    fitted.model.eval()
    known = score.catalogue(fitted, items)
    share = min(1.0, recipe.valid_users / sequence_table.count(path))

    def parts():
        for group in read_groups(path, items):
            rng = np.random.default_rng([recipe.seed, group.first])
            drawn = rng.random(len(group.bounds) - 1) < share
            asked = queries(group, sequence_table.VALID)
            yield _only(asked, drawn[asked.users - group.first])

    found = rank.rank(
        score.scorer(fitted, known),
        parts(),
        n_items=len(items.vectors),
        mask_seen=False,
        memory_mb=memory_mb,
    )
    return metrics.mean(found, WATCHED) if len(found.users) else None


def _only(asked: Queries, kept: np.ndarray) -> Queries:
    return asked._replace(
        users=asked.users[kept], begins=asked.begins[kept], positions=asked.positions[kept]
    )
