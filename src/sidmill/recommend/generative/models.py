"""The models by their name in config.yaml, and their file.

``model.safetensors`` holds the models of all seeds:

    seed.{s}.*   weights of the model that was trained with seed s, float32
    metadata     settings, shape, identity of the items, NDCG@10 on valid by seed

Codebooks, text embeddings and the trie are not in it: they are read from the files of the SIDs.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sidmill.core.errors import SidmillError
from sidmill.formats.trie_file import Trie
from sidmill.io import tensors
from sidmill.io.remedy import remedy
from sidmill.recommend import checkpoint
from sidmill.recommend.generative import causal, sid_items
from sidmill.recommend.generative.model import Constants, GenerativeModel, Scores
from sidmill.recommend.generative.sid_items import SidItems
from sidmill.settings import base
from sidmill.settings.generative import Generative
from sidmill.settings.registry import GENERATIVE_MODELS, load_function

SEED = "seed."


class Network(NamedTuple):
    """A model on its device.

    Attributes:
        model: the network.
        device: where its weights are.
    """

    model: GenerativeModel
    device: torch.device

    @property
    def trie(self) -> Trie:
        """Of the SIDs that are generated."""
        return self.model.tries[0]

    def scores(self) -> Scores:
        """Make the scores of the model with its present weights."""
        self.model.eval()
        self.model.read_fold(None)
        return self.model.scores()


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


def constants_of(items: SidItems, settings: Generative) -> Constants:
    """What the models of all seeds read of the items: ``tiger`` the tokens that it generates."""
    if settings.model == "tiger":
        settings = replace(settings, features="sid")
        own = items.identifiers[0]._replace(codebooks=(), fold_codes=None)
        items = items._replace(identifiers=(own,), compared=None)
    return causal.constants_of(items, settings)


def initial(
    constants: Constants,
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
    model = _build(constants, settings)
    model.attach(constants, torch.device("cpu"))
    model.note_training(is_seen)
    return _on_device(model, constants, device)


def _build(constants: Constants, settings: Generative) -> GenerativeModel:
    """Make the model that ``settings`` name, with the first weights, on the CPU."""
    build = load_function(GENERATIVE_MODELS[settings.model])
    model: GenerativeModel = build(constants, settings)
    return model


def _on_device(model: GenerativeModel, constants: Constants, device: torch.device) -> Network:
    model.to(device)
    model.attach(constants, device)
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
        model = _build(constants, settings)
        try:
            checkpoint.fill(model, arrays, f"{SEED}{seed}.")
        except RuntimeError as error:
            raise SidmillError(f"{path}: its tensors do not fit its settings ({error})") from None
        model.eval()
        network = _on_device(model, constants, device)
        fitted.append(Fitted(network, settings, identity, seed, value))
    return fitted


def best(fitted: list[Fitted]) -> Fitted:
    """The model with the best NDCG@10 on valid; the first of equals."""
    return max(fitted, key=lambda one: -1.0 if one.valid is None else one.valid)
