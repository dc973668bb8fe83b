"""SID tokens for a Hugging Face model: tokenizer, embeddings, and a test that they fit.

The model is a decoder (Qwen3, Llama) or an encoder with a decoder (T5, as in TIGER). Tokens are
added verbatim (not normalised, never split) and not as special ones, which decoding with
``skip_special_tokens=True`` would drop. Their embeddings start from

    codebook   the words of the quantizer, projected to the model's width: near codes begin alike
    mean       the mean of the embeddings that are there, with a little noise
    random     a normal draw with their mean and deviation

No two new embeddings are equal, so a model can tell the tokens apart from the first step on.

Shapes: N items, L levels, K_l codes, d codebook dimensions, H the model's width.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sidmill.core.errors import SidmillError
from sidmill.formats import sid_text

logger = logging.getLogger(__name__)

NOISE = 0.1  # of the deviation, around the mean
JITTER = 0.01  # of the deviation, around a codeword: codewords may repeat, embeddings must not
DEVIATION = 0.02  # of new embeddings, where those of the model have none
BATCH = 4096
LISTED = 20  # names in a message, at most


def expand(
    folder: str | Path,
    codes: np.ndarray,
    sizes: list[int],
    codebooks: list[np.ndarray],
    *,
    seed: int,
    model: str | None,
    revision: str | None,
    init: str,
    pad_to: int,
    dtype: str,
) -> dict[str, int]:
    """Add the SID tokens to a model and its tokenizer, and save both.

    Args:
        folder: where to save them.
        codes: int32 (N, L), the SIDs that exist; each is encoded and decoded as a test.
        sizes: K_l per level.
        codebooks: float32 (K_l, d) per level; a level without one, as of a suffix, is drawn.
        seed: covers projection and noise.
        model: folder or hub id.
        revision: commit or tag of a hub model.
        init: ``codebook``, ``mean`` or ``random``.
        pad_to: the number of embeddings is rounded up to a multiple of this.
        dtype: ``auto``, ``float32`` or ``bfloat16``.

    Returns:
        Token to id.

    Raises:
        SidmillError: if there is no model, or it cannot be read, lacks weights or writes no text;
            if the codebooks are not those of the SIDs, a SID does not survive the tokenizer, or
            new embeddings are equal in this dtype.
    """
    if model is None:
        raise SidmillError("vocabulary.model: null: name the model that gets the SID tokens")
    if Path(folder).resolve() == Path(model).resolve():
        raise SidmillError(f"{folder} is the model itself: name another folder to write to")
    if init == "codebook" and not codebooks:
        raise SidmillError(
            "vocabulary.init: codebook takes embeddings from codewords, and given SIDs have none: "
            "set mean or random"
        )
    if init == "codebook":
        _check_books(sizes, codebooks)
    source = {"trust_remote_code": False} | ({"revision": revision} if revision else {})

    # The tokenizer first: what it cannot hold costs no loading of weights.
    with _reading(model):
        config = AutoConfig.from_pretrained(model, **source)
        tokenizer = AutoTokenizer.from_pretrained(model, **source)
    template, tokens = tokenizer.chat_template, sid_text.vocabulary(sizes)
    old = dict(tokenizer.get_vocab())
    ids = _add(tokenizer, tokens, model)
    check_round_trip(tokenizer, codes, ids)
    if tokenizer.chat_template != template:
        raise SidmillError(f"{model}: its chat template changed as tokens were added")

    # Rows for them. Those of tokens that were there already stay as they are.
    network = _load(model, config, dtype, source)
    there = network.get_input_embeddings().weight.shape[0]
    rows = max(there, len(tokenizer), max(ids.values()) + 1)
    padded = -(-rows // pad_to) * pad_to
    _untie_what_differs(network)
    network.resize_token_embeddings(padded, mean_resizing=False)
    fresh = [text for text in tokens if text not in old]
    known = sorted(set(old.values()) - set(ids.values()))
    for weight in _matrices(network):
        _fill(weight.data, sizes, codebooks, ids, fresh, init, known, seed)
    if hasattr(network.config, "scale_decoder_outputs"):  # T5 reads it from this key
        network.config.tie_word_embeddings = network.config.scale_decoder_outputs
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    logger.info("%d tokens added to %s, %d embeddings", len(fresh), model, padded)
    return ids


def lora(folder: str | Path, ids: dict[str, int]) -> dict[str, list[int]]:
    """What must train beside LoRA, for the new tokens to be read and written.

    A model whose weights are not tied reads a token by one matrix and writes it by another; of one
    whose weights are tied, both names are one matrix, and naming both does no harm. PEFT trains
    what is tied to a named module with it, such as the embeddings of T5's encoder and decoder;
    named as well, these would part from each other.

    Args:
        folder: the model, as :func:`expand` wrote it. Only its configuration is read.
        ids: token to id.

    Returns:
        ``trainable_token_indices`` of a PEFT LoraConfig: ids by the name of a module.
    """
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        network = _kind(config).from_config(config)
    parts = (network.get_input_embeddings(), network.get_output_embeddings())
    names = {module: name.rpartition(".")[2] for name, module in network.named_modules()}
    return {names[part]: sorted(ids.values()) for part in parts if part is not None}


def lora_text(folder: str | Path, ids: dict[str, int]) -> str:
    """:func:`lora` as a line of Python."""
    found = lora(folder, ids)
    numbers = sorted(ids.values())
    first, last = numbers[0], numbers[-1]
    whole = last - first + 1 == len(numbers)
    written = f"list(range({first}, {last + 1}))" if whole else repr(numbers)
    names = ", ".join(f'"{name}": sid_ids' for name in found)
    return f"sid_ids = {written}\nLoraConfig(..., trainable_token_indices={{{names}}})"


def check_round_trip(
    tokenizer: PreTrainedTokenizerBase, codes: np.ndarray, ids: dict[str, int] | None = None
) -> None:
    """Encode and decode every SID: L + 2 tokens each, those of ``ids``, and the same text again.

    Raises:
        SidmillError: at the first SID that does not survive.
    """
    wanted = codes.shape[1] + 2
    known = set(ids.values()) if ids else None
    for start in range(0, len(codes), BATCH):
        texts = sid_text.render(codes[start : start + BATCH]).to_pylist()
        for text, found in zip(
            texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True
        ):
            again = tokenizer.decode(found, skip_special_tokens=True)
            own = known is None or known.issuperset(found)
            if len(found) != wanted or not own or again.replace(" ", "") != text:
                raise SidmillError(
                    f"{text} becomes {len(found)} tokens, wanted {wanted} of its own, and comes "
                    f"back as {again!r}: this tokenizer changes SID tokens, take another model"
                )


def _check_books(sizes: list[int], codebooks: list[np.ndarray]) -> None:
    """Hold the codebooks against the SIDs: each level has a codeword for each of its codes."""
    short = [
        level for level, (size, book) in enumerate(zip(sizes, codebooks, strict=False))
        if len(book) < size
    ]  # fmt: skip
    if short or len(codebooks) > len(sizes):
        raise SidmillError(
            f"the quantizer has {[len(book) for book in codebooks]} codes per level, the SIDs "
            f"{sizes}: give the quantizer that they were made with, or set init: mean (sidmill "
            f"vocab --init mean, without --quantizer)"
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


def _kind(config: PreTrainedConfig) -> type:
    """The class that reads a model: one with an encoder, or a decoder alone."""
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _load(model: str, config: PreTrainedConfig, dtype: str, source: dict) -> PreTrainedModel:
    """Read a model whose embeddings are all in its files."""
    try:
        with _reading(model):
            network, found = _kind(config).from_pretrained(
                model, dtype=dtype, use_safetensors=True, output_loading_info=True, **source
            )
    except SidmillError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise SidmillError(
            f"{model} is of type {config.model_type}, which writes no text: name a language model, "
            f"a decoder (Qwen3, Llama) or an encoder with a decoder (T5)"
        ) from None
    matrices = {id(weight) for weight in _matrices(network)}
    drawn = [
        name
        for name, weight in network.named_parameters(remove_duplicate=False)
        if name in found["missing_keys"] and id(weight) in matrices
    ]
    if drawn:
        raise SidmillError(
            f"{model}: its files hold no {', '.join(drawn)}, which would be random: if it was "
            f"trained with tied embeddings, set tie_word_embeddings: true in a copy of its "
            f"config.json; else take files that hold them"
        )
    return network


def _matrices(network: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The matrices with a row per token, each once: embeddings, and the head where not tied."""
    parts = (network.get_input_embeddings(), network.get_output_embeddings())
    return list({id(part.weight): part.weight for part in parts if part is not None}.values())


def _untie_what_differs(network: PreTrainedModel) -> None:
    """Keep a head that is not the embeddings, where the configuration says that it is.

    Weights are read as they are in the file; resizing would tie them, and lose the head.
    """
    matrices = _matrices(network)
    tied = getattr(network.config, "tie_word_embeddings", False)
    if tied and len(matrices) == 2 and not torch.equal(*matrices):
        logger.warning("the head differs from the embeddings, though the config ties them: kept")
        network.config.tie_word_embeddings = False


def _add(tokenizer: PreTrainedTokenizerBase, tokens: list[str], model: str) -> dict[str, int]:
    """Add tokens that are not there yet, and return the id of each.

    Raises:
        SidmillError: if one is a special token there, or two have one id.
    """
    special = sorted(set(tokens) & set(tokenizer.all_special_tokens))
    added = tokenizer.added_tokens_decoder.values()
    special += sorted(
        {token.content for token in added if token.special} & set(tokens) - {*special}
    )
    if special:
        raise SidmillError(
            f"{model}: {', '.join(special[:LISTED])} are special tokens of its tokenizer, which "
            f"skip_special_tokens=True drops from answers: take the model without them"
        )
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in tokens])
    ids = dict(zip(tokens, tokenizer.convert_tokens_to_ids(tokens), strict=True))
    if len(set(ids.values())) < len(ids):
        raise SidmillError(f"{model}: its tokenizer gives two SID tokens one id: take another")
    return ids


def _fill(weight, sizes, codebooks, ids, fresh, init, known, seed) -> None:
    """Write the rows of the new tokens in place, like the rows ``known`` in mean and deviation."""
    old = weight[torch.tensor(known, dtype=torch.long)].float()
    mean, deviation = old.mean(dim=0), torch.nan_to_num(old.std(dim=0))
    if not deviation.any():
        mean, deviation = torch.nan_to_num(mean), torch.full_like(deviation, DEVIATION)
    width = weight.shape[1]
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn((len(ids), width), generator=draw)
    values = mean + deviation * (noise if init == "random" else NOISE * noise)
    names = {name: row for row, name in enumerate(ids)}

    # Levels that have a codebook: near codewords begin alike.
    if init == "codebook" and codebooks:
        dim = codebooks[0].shape[1]
        projection = torch.randn((dim, width), generator=draw) / dim**0.5
        for level, (size, book) in enumerate(zip(sizes, codebooks, strict=False)):
            words = torch.from_numpy(book[:size]).float() @ projection  # distances kept on average
            words = words - words.mean(dim=0)
            words = words / words.std().clamp_min(1e-12)
            rows = [names[sid_text.token(level, code)] for code in range(size)]
            own = mean + deviation * NOISE * torch.randn(width, generator=draw)  # of the level
            values[rows] = own + deviation * (words + JITTER * noise[rows])

    place = torch.tensor([ids[name] for name in fresh], dtype=torch.long)
    weight[place] = values[[names[name] for name in fresh]].to(weight.dtype)
    _check_distinct(weight[place])


def _check_distinct(rows: torch.Tensor) -> None:
    """Refuse new embeddings that are equal: a model could not tell their tokens apart."""
    bits = rows.contiguous().view(torch.uint8).numpy()
    different = len({row.tobytes() for row in bits})
    if different < len(bits):
        kind = str(rows.dtype).removeprefix("torch.")
        raise SidmillError(
            f"{len(bits) - different} of {len(bits)} new embeddings equal another in {kind}: set "
            f"vocabulary.dtype: float32 (sidmill vocab --dtype float32)"
        )
