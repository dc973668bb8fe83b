"""The models by their name in config.yaml, and their file.

``model.safetensors`` holds the models of all seeds:

    seed.{s}.*   weights of the model that was trained with seed s, float32
    metadata     settings, shape, identity of the items, NDCG@10 on valid by seed

Codebooks, text embeddings and the trie are not in it: they are read from the files of the SIDs.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sidmill.core.errors import SidmillError
from sidmill.formats.trie_file import Trie
from sidmill.io import tensors
from sidmill.io.remedy import remedy
from sidmill.recommend import checkpoint
from sidmill.recommend.generative import causal, sid_items
from sidmill.recommend.generative.model import Scores
from sidmill.recommend.generative.sid_items import SidItems
from sidmill.settings import base
from sidmill.settings.generative import Generative

SEED = "seed."


class Network(NamedTuple):
    """A model on its device.

    Attributes:
        model: the network; see :class:`sidmill.recommend.generative.model.GenerativeModel`.
        device: where its weights are.
    """

    model: Any
    device: torch.device

    @property
    def trie(self) -> Trie:
        """Of the SIDs that are generated."""
        trie: Trie = self.model.tries[0]
        return trie

    def scores(self) -> Scores:
        """Make the scores of the model with its present weights."""
        if isinstance(self.model, causal.Causal):
            return causal.CausalScores(self.model)
        from sidmill.recommend.generative import tiger  # transformers takes seconds to import

        return tiger.TigerScores(self.model, self.trie)


class Fitted(NamedTuple):
    """A trained model.

    Attributes:
        network: in evaluation mode.
        settings: of its training.
        identity: of its items, as :func:`sid_items.identify` has it.
        seed: of its training.
        valid: its NDCG@10 on the validation items; None if there were none.
    """

    network: Network
    settings: Generative
    identity: dict[str, Any]
    seed: int
    valid: float | None


def constants_of(items: SidItems, settings: Generative) -> causal.Constants:
    """What the models of all seeds read of the items."""
    return causal.constants_of(items, settings)


def initial(
    constants: causal.Constants,
    settings: Generative,
    is_seen: np.ndarray,
    device: torch.device,
) -> Network:
    """Make a model with the first weights, drawn from torch's generator.

    Args:
        constants: of the items.
        settings: the section generative.
        is_seen: bool (N,), items that a training history has.
        device: where it is trained.
    """
    model = _make(_shape_of(settings, constants), settings, constants)
    if isinstance(model, causal.Causal):
        model.attach(constants, torch.device("cpu"))
        model.forget_unseen(is_seen)
    return _on_device(model, constants, device)


def _shape_of(settings: Generative, constants: causal.Constants) -> Any:
    """Shape of the model that ``settings`` ask for."""
    if settings.model == "causal":
        return causal.shape_of(settings, constants)
    from sidmill.recommend.generative import tiger

    return tiger.shape_of(settings)


def _read_shape(settings: Generative, facts: dict[str, Any]) -> Any:
    """Shape of a model from its file."""
    if settings.model == "causal":
        return causal.Shape(**facts)
    from sidmill.recommend.generative import tiger

    return tiger.Shape(**facts)


def _make(shape: Any, settings: Generative, constants: causal.Constants) -> Any:
    """Make a model with the first weights, on the CPU."""
    if settings.model == "causal":
        return causal.Causal(shape, settings)
    from sidmill.recommend.generative import tiger

    return tiger.Tiger(constants.codes[0], constants.tries[0].sizes, shape)


def _on_device(model: Any, constants: causal.Constants, device: torch.device) -> Network:
    model.to(device)
    if isinstance(model, causal.Causal):
        model.attach(constants, device)
    else:
        model.tries = [constants.tries[0].to(device)]
    return Network(model, device)


def save(path: str | Path, fitted: list[Fitted]) -> None:
    """Write the models of all seeds, atomically."""
    first = fitted[0]
    arrays = {
        name: array
        for one in fitted
        for name, array in checkpoint.arrays_of(one.network.model, f"{SEED}{one.seed}.").items()
    }
    facts = {
        "settings": base.identity(first.settings),
        "shape": first.network.model.shape._asdict(),
        "identity": first.identity,
        "seeds": [one.seed for one in fitted],
        "valid": [one.valid for one in fitted],
    }
    tensors.write(path, arrays, facts)


def load(path: str | Path, items: SidItems, device: torch.device) -> list[Fitted]:
    """Read the models of all seeds.

    Args:
        path: model.safetensors.
        items: the items that it was trained on, read the same way.
        device: where the models go.

    Raises:
        SidmillError: if the file holds no such models, or they are of other items.
    """
    arrays, facts = tensors.read(path, "generative recommender")
    try:
        settings = base.read(Generative, facts["settings"])
        seeds, valid, identity = facts["seeds"], facts["valid"], facts["identity"]
        shape = _read_shape(settings, facts["shape"])
    except (KeyError, TypeError) as error:
        raise SidmillError(
            f"{path}: holds no generative recommender of SIDMill ({error}): {remedy(path)}"
        ) from None
    if identity != sid_items.identify(items):
        raise SidmillError(f"{path} was trained on other SIDs, items or embeddings: train it again")

    # The constants of the items are the same for all seeds.
    constants = constants_of(items, settings)
    fitted = []
    for seed, value in zip(seeds, valid, strict=True):
        model: nn.Module = _make(shape, settings, constants)
        try:
            checkpoint.fill(model, arrays, f"{SEED}{seed}.")
        except RuntimeError as error:
            raise SidmillError(f"{path}: its tensors do not fit its shape ({error})") from None
        network = _on_device(model.eval(), constants, device)
        fitted.append(Fitted(network, settings, identity, seed, value))
    return fitted


def best(fitted: list[Fitted]) -> Fitted:
    """The model with the best NDCG@10 on valid; the first of equals."""
    return max(fitted, key=lambda one: -1.0 if one.valid is None else one.valid)
