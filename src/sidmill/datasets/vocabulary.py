"""SID tokens for a Hugging Face model: tokenizer, embeddings, and a test that they fit.

The model is a decoder (Qwen3, Llama) or an encoder with a decoder (T5, as in TIGER). Tokens are
added verbatim (not normalised, never split) and not as special ones, which decoding with
``skip_special_tokens=True`` would drop. Their embeddings start from

    codebook   the quantizer's codebook vectors, projected to the model's width: similar codes
               start with similar embeddings
    mean       the mean of the model's own embeddings, with a little noise
    random     a normal draw with their mean and standard deviation

No two new embeddings are equal, so a model can tell the tokens apart from the first step on.

Shapes: N items, L levels, K_l codes, d codebook dimensions, H the model's width.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from tokenizers import AddedToken
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sidmill.core.errors import SidmillError
from sidmill.core.folders import flush
from sidmill.datasets import lora_settings, stored_weights, tokenizer_checks
from sidmill.formats import sid_text
from sidmill.io import json_report
from sidmill.settings.datasets import Vocabulary

logger = logging.getLogger(__name__)

NOISE = 0.1  # times the standard deviation, around the mean
JITTER = 0.01  # times the deviation, around a codeword: codewords may repeat, embeddings must not
DEVIATION = 0.02  # of new embeddings, where all embeddings of the model are equal
RECORD = "sid_vocabulary.json"  # what was made and checked, beside the model
LEAST_SPREAD = 0.01  # of the rows of SID tokens, in deviations of the other rows
# Files that not every model has: those of an earlier model must not stay beside another one.
OF_MODELS = (
    *("model*.safetensors", "model.safetensors.index.json", "generation_config.json"),
    *("chat_template.jinja", "additional_chat_templates", RECORD),
)
LISTED = 20  # names in a message, at most


class SidTokens(NamedTuple):
    """The SID tokens, and where their embeddings come from.

    Attributes:
        sizes: K_l per level.
        codebooks: float32 (K_l, d) per level; a level without one, as of a suffix, is drawn.
        ids: token to id, in the order of the levels.
        new: tokens that the tokenizer did not have.
        known_ids: ids of all other tokens, ascending.
    """

    sizes: list[int]
    codebooks: list[np.ndarray]
    ids: dict[str, int]
    new: list[str]
    known_ids: list[int]


def expand(
    folder: str | Path,
    codes: np.ndarray,
    sizes: list[int],
    codebooks: list[np.ndarray],
    settings: Vocabulary,
    seed: int,
) -> dict[str, int]:
    """Add the SID tokens to a model and its tokenizer, and save both.

    Args:
        folder: where to save them.
        codes: int32 (N, L), the SIDs of items; each is encoded and decoded as a test.
        sizes: K_l per level.
        codebooks: float32 (K_l, d) per level; a level without one, as of a suffix, is drawn.
        settings: the model, and how its new embeddings start.
        seed: covers projection and noise.

    Returns:
        Token to id.

    Raises:
        SidmillError: if there is no model, or it cannot be read, lacks weights or writes no text;
            if the codebooks are not those of the SIDs, a SID does not survive the tokenizer, or
            new embeddings are equal in this dtype.
    """
    model = _check(folder, sizes, codebooks, settings)
    source: dict[str, Any] = {"trust_remote_code": False}
    if settings.revision:
        source["revision"] = settings.revision

    # The tokenizer first: a SID that it cannot hold costs no loading of weights.
    with _reading(model):
        config = AutoConfig.from_pretrained(model, **source)
        tokenizer = AutoTokenizer.from_pretrained(model, **source)
    names, old_ids = sid_text.vocabulary(sizes), dict(tokenizer.get_vocab())
    before = tokenizer_checks.state(tokenizer, without=names)
    ids = _add_tokens(tokenizer, names, model)
    checked = tokenizer_checks.check(tokenizer, before, codes, ids)
    tokenizer_checks.warn(checked)

    # A row of each embedding matrix per token. Rows of SID tokens of the model stay as they are.
    network = _load(model, config, settings.dtype, source)
    n_rows = max(_n_embeddings(network), len(tokenizer), max(ids.values()) + 1)
    n_padded = -(-n_rows // settings.pad_to) * settings.pad_to
    _untie_different_head(network)
    with torch.random.fork_rng(devices=[]):  # it draws the rows of the padding
        torch.manual_seed(seed)
        network.resize_token_embeddings(n_padded, mean_resizing=False)
    new = [name for name in names if name not in old_ids]
    known_ids = sorted(set(old_ids.values()) - set(ids.values()))
    tokens = SidTokens(sizes, codebooks, ids, new, known_ids)
    for weight in stored_weights.token_matrices(network):
        _initialize(weight.data, tokens, settings.init, seed)
    spread = _spread(network, tokens)

    if hasattr(network.config, "scale_decoder_outputs"):  # T5 reads it from this key
        network.config.tie_word_embeddings = network.config.scale_decoder_outputs
    with _whole(folder) as target:
        network.save_pretrained(target)
        tokenizer.save_pretrained(target)

        # What was saved, read back.
        saved = stored_weights.check(target, network)
        tokenizer_checks.check(AutoTokenizer.from_pretrained(target), before, codes, ids)
        facts = {
            "model": model,
            "revision": settings.revision,
            "tokens": len(ids),
            "tokens_already_there": len(ids) - len(new),
            "first_id": min(ids.values()),
            "last_id": max(ids.values()),
            "init": settings.init,
            "spread": spread,
            **checked,
            **saved,
            "lora": lora_settings.text(target, ids).splitlines(),
        }
        json_report.write(target / RECORD, facts)
    logger.info("%d tokens added to %s, %d embeddings", len(new), model, n_padded)
    return ids


@contextmanager
def _whole(folder: str | Path) -> Iterator[Path]:
    """Yield a folder to write to, and move its files to ``folder`` if the block succeeds.

    An earlier model in ``folder`` goes: transformers would read what is left of it, such as
    ``model.safetensors`` beside the parts of a larger model. Other files stay.
    """
    target = Path(folder).resolve()  # of a link, the folder that it leads to
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        target.mkdir(exist_ok=True)
        for path in [path for pattern in OF_MODELS for path in target.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in sorted(partial.iterdir()):
            flush(path)
            path.replace(target / path.name)
        flush(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(
    folder: str | Path, sizes: list[int], codebooks: list[np.ndarray], settings: Vocabulary
) -> str:
    """Refuse settings that do not fit the SIDs or the target folder, and return the model."""
    if settings.model is None:
        raise SidmillError("vocabulary.model: null: name the model that gets the SID tokens")
    if Path(folder).resolve() == Path(settings.model).resolve():
        raise SidmillError(f"{folder} is the model itself: name another folder to write to")
    if settings.init == "codebook" and not codebooks:
        raise SidmillError(
            "vocabulary.init: codebook takes embeddings from codewords, and given SIDs have none: "
            "set mean or random"
        )
    if settings.init == "codebook":
        _check_codebooks(sizes, codebooks)
    return settings.model


def _check_codebooks(sizes: list[int], codebooks: list[np.ndarray]) -> None:
    """Refuse codebooks that lack a codeword for a code of the SIDs."""
    too_small = any(len(codebook) < size for size, codebook in zip(sizes, codebooks, strict=False))
    if too_small or len(codebooks) > len(sizes):
        raise SidmillError(
            f"the quantizer has {[len(codebook) for codebook in codebooks]} codes per level, the "
            f"SIDs {sizes}: give the quantizer that they were made with, or set init: mean "
            f"(sidmill vocab --init mean, without --quantizer)"
        )


@contextmanager
def _reading(model: str) -> Iterator[None]:
    """Say in one sentence what is wrong with a model that cannot be read."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise SidmillError(
            f"{model}: no model to be read ({reason}): name a folder or hub id with config.json, a "
            f"tokenizer and .safetensors weights"
        ) from None


def _load(
    model: str, config: PreTrainedConfig, dtype: str, source: dict[str, Any]
) -> PreTrainedModel:
    """Read a model whose embeddings are all in its files."""
    try:
        with _reading(model):
            kind = stored_weights.model_class(config)
            loaded: tuple[PreTrainedModel, dict[str, Any]] = kind.from_pretrained(
                model, dtype=dtype, use_safetensors=True, output_loading_info=True, **source
            )
    except SidmillError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise SidmillError(
            f"{model} is of type {config.model_type}, which writes no text: name a language model, "
            f"a decoder (Qwen3, Llama) or an encoder with a decoder (T5)"
        ) from None

    # An embedding matrix that is not in the files would be random.
    network, info = loaded
    matrices = {id(weight) for weight in stored_weights.token_matrices(network)}
    missing = [
        name
        for name, weight in network.named_parameters(remove_duplicate=False)
        if name in info["missing_keys"] and id(weight) in matrices
    ]
    if missing:
        raise SidmillError(
            f"{model}: its files hold no {', '.join(missing)}, which would be random: if it was "
            f"trained with tied embeddings, set tie_word_embeddings: true in a copy of its "
            f"config.json; else take files that hold them"
        )
    return network


def _n_embeddings(network: PreTrainedModel) -> int:
    """Rows of the embedding matrix."""
    return int(cast(torch.Tensor, network.get_input_embeddings().weight).shape[0])


def _untie_different_head(network: PreTrainedModel) -> None:
    """Keep a head that differs from the embeddings, where the configuration ties the two.

    Weights are read as they are in the file; resizing would tie them, and lose the head.
    """
    matrices = stored_weights.token_matrices(network)
    is_tied = getattr(network.config, "tie_word_embeddings", False)
    if is_tied and len(matrices) == 2 and not torch.equal(*matrices):
        logger.warning("the head differs from the embeddings, though the config ties them: kept")
        network.config.tie_word_embeddings = False


def _add_tokens(tokenizer: PreTrainedTokenizerBase, names: list[str], model: str) -> dict[str, int]:
    """Add tokens that the tokenizer does not have, and return the id of each.

    Raises:
        SidmillError: if the tokenizer has one as a special token, or two get one id.
    """
    # Special tokens, and those that were added as special without a role.
    special = sorted(set(names) & set(tokenizer.all_special_tokens))
    added = tokenizer.added_tokens_decoder.values()
    special += sorted({token.content for token in added if token.special} & set(names) - {*special})
    if special:
        raise SidmillError(
            f"{model}: {', '.join(special[:LISTED])} are special tokens of its tokenizer, which "
            f"skip_special_tokens=True drops from answers: take the model without them"
        )

    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in names])
    numbers = cast(list[int], tokenizer.convert_tokens_to_ids(names))
    ids = dict(zip(names, numbers, strict=True))
    if len(set(ids.values())) < len(ids):
        raise SidmillError(f"{model}: its tokenizer gives two SID tokens one id: take another")
    return ids


def _initialize(weight: torch.Tensor, tokens: SidTokens, init: str, seed: int) -> None:
    """Write the rows of the new tokens in place, with mean and deviation of the known rows.

    Args:
        weight: (rows, H).
        tokens: which tokens are new, and their codebooks.
        init: ``codebook``, ``mean`` or ``random``.
        seed: covers projection and noise.
    """
    # Mean and standard deviation (H,) of the model's own embeddings.
    old = weight[torch.tensor(tokens.known_ids, dtype=torch.long)].float()
    mean, deviation = old.mean(dim=0), torch.nan_to_num(old.std(dim=0))
    if not deviation.any():
        mean, deviation = torch.nan_to_num(mean), torch.full_like(deviation, DEVIATION)

    # Rows (tokens, H) around the mean.
    width = weight.shape[1]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((len(tokens.ids), width), generator=generator)
    values = mean + deviation * (noise if init == "random" else NOISE * noise)
    rows = {name: row for row, name in enumerate(tokens.ids)}

    # Levels that have a codebook: similar codewords start with similar embeddings.
    if init == "codebook" and tokens.codebooks:
        dim = tokens.codebooks[0].shape[1]
        projection = torch.randn((dim, width), generator=generator) / dim**0.5
        for level, (size, codebook) in enumerate(zip(tokens.sizes, tokens.codebooks, strict=False)):
            # (K_l, H): distances are kept on average.
            codewords = torch.from_numpy(codebook[:size]).float() @ projection
            codewords = codewords - codewords.mean(dim=0)
            codewords = codewords / codewords.std().clamp_min(1e-12)
            level_mean = mean + deviation * NOISE * torch.randn(width, generator=generator)
            of_level = [rows[sid_text.token(level, code)] for code in range(size)]
            values[of_level] = level_mean + deviation * (codewords + JITTER * noise[of_level])

    # The new tokens alone.
    new_ids = torch.tensor([tokens.ids[name] for name in tokens.new], dtype=torch.long)
    weight[new_ids] = values[[rows[name] for name in tokens.new]].to(weight.dtype)
    _check_distinct(weight[new_ids])


def _spread(network: PreTrainedModel, tokens: SidTokens) -> float:
    """How far the rows of SID tokens are apart: their deviation over that of the other rows.

    Tokens that were there already keep their rows, which are all but equal where the vocabulary was
    resized and never trained. The smallest figure of the matrices is returned.
    """
    figures = []
    for weight in stored_weights.token_matrices(network):
        ours = weight.data[torch.tensor(list(tokens.ids.values()))].float()
        others = weight.data[torch.tensor(tokens.known_ids, dtype=torch.long)].float()
        scale = torch.nan_to_num(others.std(dim=0)).mean().clamp_min(1e-12)
        figures.append(float(ours.std(dim=0).mean() / scale))
    n_there = len(tokens.ids) - len(tokens.new)
    if n_there > 1 and min(figures) < LEAST_SPREAD:
        logger.warning(
            "the embeddings of %d SID tokens that the model has already are nearly equal (%.1e of "
            "the deviation of the others): they were added and not trained; take the model without "
            "them, and they get embeddings of their own",
            n_there,
            min(figures),
        )
    return min(figures)


def _check_distinct(rows: torch.Tensor) -> None:
    """Refuse new embeddings that are equal: a model could not distinguish their tokens."""
    bits = rows.contiguous().view(torch.uint8).numpy()
    n_distinct = len({row.tobytes() for row in bits})
    if n_distinct < len(bits):
        kind = str(rows.dtype).removeprefix("torch.")
        raise SidmillError(
            f"{len(bits) - n_distinct} of {len(bits)} new embeddings equal another in {kind}: set "
            f"vocabulary.dtype: float32 (sidmill vocab --dtype float32)"
        )
