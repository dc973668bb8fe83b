"""Settings of PEFT with which a model learns to read and to write new SID tokens.

LoRA trains matrices beside the weights, and neither the embeddings nor the head. What else must
train depends on how the two are stored:

    one matrix (Qwen3-0.6B, T5)    ``trainable_token_indices`` of the embeddings trains both
    two matrices (Qwen3-8B)        the rows of both, each named
    T5 with two (Flan-T5, mT5)     the same, after the head is taken from the weights that the model
                                   declares to be tied. transformers declares it for every T5, and
                                   PEFT would put the rows of the embeddings in place of those of
                                   the head. (With ``tie_word_embeddings = False`` the embeddings of
                                   encoder and decoder would not train.)
    a head with a bias (Phi-2)     both whole matrices, by ``modules_to_save``: PEFT computes the
                                   head without its bias where single rows train. Matrices that
                                   were one become two

Measured with PEFT 0.21.2, transformers 5.23.0.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoConfig

from sidmill.datasets import stored_weights


class LoraSettings(NamedTuple):
    """Arguments of a PEFT LoraConfig, and what to set before.

    Attributes:
        trainable_token_indices: ids by the name of a module; empty if whole modules train.
        modules_to_save: modules that train as a whole; empty if rows train.
        untie: weight of the head that is declared to be tied and is stored apart; None if not.
    """

    trainable_token_indices: dict[str, list[int]]
    modules_to_save: list[str]
    untie: str | None


def of_model(folder: str | Path, ids: dict[str, int]) -> LoraSettings:
    """Settings for a model with SID tokens.

    PEFT trains the modules that are tied to a named one with it, such as the embeddings of T5's
    encoder and decoder; if they were named as well, their copies would diverge.

    Args:
        folder: the model. Its configuration and the names in its files are read, no weights.
        ids: token to id.
    """
    # The modules, without their weights.
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        network = stored_weights.model_class(config).from_config(config)
    head = network.get_output_embeddings()
    modules = [each for each in (network.get_input_embeddings(), head) if each is not None]
    paths = {module: name for name, module in network.named_modules()}
    names = {module: paths[module].rpartition(".")[2] for module in modules}

    # A head of its own is in the files, whatever the configuration says.
    untie = None
    if head is not None and getattr(config.get_text_config(), "tie_word_embeddings", False):
        stored = stored_weights.stored_names(folder)
        is_apart = any(name.endswith(f"{names[head]}.weight") for name in stored)
        untie = f"{paths[head]}.weight" if is_apart else None
    if getattr(head, "bias", None) is not None:
        return LoraSettings({}, list(names.values()), untie)
    rows = {names[module]: sorted(ids.values()) for module in modules}
    return LoraSettings(rows, [], untie)


def text(folder: str | Path, ids: dict[str, int]) -> str:
    """Write the settings of :func:`of_model` as lines of Python."""
    settings, lines = of_model(folder, ids), []
    if settings.untie:
        lines += [
            "tied = model._tied_weights_keys.items()",
            "model._tied_weights_keys = "
            f'{{name: to for name, to in tied if name != "{settings.untie}"}}',
        ]
    if settings.modules_to_save:
        arguments = f"modules_to_save={settings.modules_to_save!r}"
    else:
        numbers = sorted(ids.values())
        first, last = numbers[0], numbers[-1]
        is_range = last - first + 1 == len(numbers)
        written = f"list(range({first}, {last + 1}))" if is_range else repr(numbers)
        lines.append(f"sid_ids = {written}")
        named = ", ".join(f'"{name}": sid_ids' for name in settings.trainable_token_indices)
        arguments = f"trainable_token_indices={{{named}}}"
    return "\n".join([*lines, f"config = LoraConfig(..., {arguments})"])
