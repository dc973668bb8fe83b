"""Are the embeddings in the files of a model, and what will be loaded from them?

A matrix that is not in the files is random after loading, and files and configuration can disagree
on whether the head is the embeddings. So both are read back after saving.
"""

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from sidmill.core.errors import SidmillError

ROWS = 4096  # that are compared at a time


def model_class(config: PreTrainedConfig) -> Any:
    """The class that reads a model: one with an encoder, or a decoder alone."""
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def check(folder: str | Path, network: PreTrainedModel) -> dict[str, Any]:
    """Compare the embeddings and the head in the files with those in memory.

    Memory: 4,096 rows at a time.

    Args:
        folder: where the model was saved.
        network: the model.

    Returns:
        For ``sid_vocabulary.json``: rows, whether the head is the embeddings, what the
        configuration says of it, and the names in the files.

    Raises:
        SidmillError: if a matrix is not in the files, or differs from the one in memory.
    """
    # The matrices with a row per token, each with all of its names.
    stored = stored_names(folder)
    matrices = token_matrices(network)
    names: dict[int, list[str]] = {id(weight): [] for weight in matrices}
    for alias, parameter in network.named_parameters(remove_duplicate=False):
        if id(parameter) in names:
            names[id(parameter)].append(alias)

    # Each is stored under one of them, and equal.
    found = []
    for weight in matrices:
        name = _stored_name(names[id(weight)], list(stored))
        if name is None or not _equal(Path(folder) / stored[name], name, weight):
            raise SidmillError(
                f"{' or '.join(names[id(weight)])} was not saved as it is in memory, and would be "
                f"lost or random after loading, so nothing was written: take another model, and "
                f"report this one"
            )
        found.append(name)

    # A single matrix is loaded as both only if the configuration says so.
    config = AutoConfig.from_pretrained(folder)
    says_tied = bool(getattr(config.get_text_config(), "tie_word_embeddings", False))
    has_head = network.get_output_embeddings() is not None  # type: ignore[no-untyped-call]
    if len(matrices) == 1 and has_head and not (says_tied or config.is_encoder_decoder):
        raise SidmillError(
            "one matrix is stored for embeddings and head, and config.json says that they are two, "
            "so nothing was written: set tie_word_embeddings: true in a copy of the model's "
            "config.json"
        )
    return {
        "rows": int(matrices[0].shape[0]),
        "head_is_embeddings": len(matrices) == 1,
        "config_ties_them": says_tied,
        "stored_as": sorted(found),
    }


def token_matrices(network: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The matrices with a row per token, each once: embeddings, and the head where not tied."""
    modules = (
        network.get_input_embeddings(),
        network.get_output_embeddings(),  # type: ignore[no-untyped-call]
    )
    weights = [cast(torch.nn.Parameter, each.weight) for each in modules if each is not None]
    return list({id(weight): weight for weight in weights}.values())


def stored_names(folder: str | Path) -> dict[str, str]:
    """Names of the tensors in the files of a model, each with its file."""
    index = Path(folder) / "model.safetensors.index.json"
    if index.is_file():
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    with safe_open(Path(folder) / "model.safetensors", framework="pt") as file:
        return dict.fromkeys(file.keys(), "model.safetensors")


def _stored_name(names: list[str], stored: list[str]) -> str | None:
    """One of the names of a matrix in the files; some classes put a prefix before it or drop it."""
    exact = [name for name in names if name in stored]
    ends = tuple(".".join(name.split(".")[-2:]) for name in names)
    return next(iter([*exact, *(name for name in stored if name.endswith(ends))]), None)


def _equal(path: Path, name: str, weight: torch.Tensor) -> bool:
    """Whether a tensor in a file has the bits of one in memory."""
    with safe_open(path, framework="pt") as file:
        rows = file.get_slice(name)
        if list(rows.get_shape()) != list(weight.shape):
            return False
        return all(
            torch.equal(rows[at : at + ROWS], weight.data[at : at + ROWS])
            for at in range(0, weight.shape[0], ROWS)
        )
