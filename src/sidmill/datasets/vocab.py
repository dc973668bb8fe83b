"""SID tokens for a Hugging Face model: tokenizer, embeddings, and a test that they fit.

Tokens are added verbatim (not normalised, never split) and not as special ones, which decoding with
``skip_special_tokens=True`` would drop. Their embeddings start from

    codebook   the words of the quantizer, projected to the model's width: near codes begin alike
    mean       the mean of the embeddings that are there, with a little noise
    random     a normal draw with their mean and deviation

Shapes: N items, L levels, K_l codes, d codebook dimensions, H the model's width.
"""

import logging
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from sidmill.core.errors import SidmillError
from sidmill.formats import sid_text

logger = logging.getLogger(__name__)

NOISE = 0.1  # of the deviation, around the mean
BATCH = 4096


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
        SidmillError: if there is no model, or a SID does not survive the tokenizer.
    """
    if model is None:
        raise SidmillError("vocabulary.model: null: name the model that gets the SID tokens")
    if init == "codebook" and not codebooks:
        raise SidmillError(
            "vocabulary.init: codebook takes embeddings from codewords, and given SIDs have none: "
            "set mean or random"
        )
    source = {"trust_remote_code": False} | ({"revision": revision} if revision else {})
    tokenizer = AutoTokenizer.from_pretrained(model, **source)
    template = tokenizer.chat_template
    tokens = sid_text.vocabulary(sizes)
    old = set(tokenizer.get_vocab())
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in tokens])
    ids = dict(zip(tokens, tokenizer.convert_tokens_to_ids(tokens), strict=True))
    check_round_trip(tokenizer, codes)
    network = AutoModelForCausalLM.from_pretrained(
        model, dtype=dtype, use_safetensors=True, **source
    )
    fresh = [text for text in tokens if text not in old]
    rows = max(network.get_input_embeddings().num_embeddings, len(tokenizer))
    network.resize_token_embeddings(-(-rows // pad_to) * pad_to, mean_resizing=False)
    matrices = {id(part.weight): part.weight for part in (network.get_input_embeddings(),
                network.get_output_embeddings()) if part is not None}  # fmt: skip
    for weight in matrices.values():
        _fill(weight.data, sizes, codebooks, ids, fresh, init, min(ids.values()), seed)
    if tokenizer.chat_template != template:
        raise SidmillError(f"{model}: its chat template changed as tokens were added")
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    logger.info(
        "%d tokens added to %s, %d embeddings", len(fresh), model, -(-rows // pad_to) * pad_to
    )
    return ids


def check_round_trip(tokenizer: PreTrainedTokenizerBase, codes: np.ndarray) -> None:
    """Encode and decode every SID: L + 2 tokens each, and the same text again.

    Raises:
        SidmillError: at the first SID that does not survive.
    """
    wanted = codes.shape[1] + 2
    for start in range(0, len(codes), BATCH):
        texts = sid_text.render(codes[start : start + BATCH]).to_pylist()
        for text, ids in zip(
            texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True
        ):
            again = tokenizer.decode(ids, skip_special_tokens=True)
            if len(ids) != wanted or again.replace(" ", "") != text:
                raise SidmillError(
                    f"{text} becomes {len(ids)} tokens, wanted {wanted}, and comes back "
                    f"as {again!r}"
                )


def _fill(weight, sizes, codebooks, ids, fresh, init, n_old, seed) -> None:
    """Write the rows of the new tokens in place, like the old rows in mean and deviation."""
    old = weight[:n_old].float()
    mean, deviation = old.mean(dim=0), old.std(dim=0)
    width = weight.shape[1]
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn((len(ids), width), generator=draw)
    values = mean + deviation * (noise if init == "random" else NOISE * noise)
    names = {name: row for row, name in enumerate(ids)}
    if init == "codebook":
        dim = codebooks[0].shape[1]
        projection = torch.randn((dim, width), generator=draw) / dim**0.5
        for level, book in enumerate(codebooks[: len(sizes)]):
            words = torch.from_numpy(book).float() @ projection  # (K, H), distances kept on average
            words = words - words.mean(dim=0)
            words = words / words.std().clamp_min(1e-12)
            rows = [names[sid_text.token(level, code)] for code in range(len(book))]
            own = mean + deviation * NOISE * torch.randn(width, generator=draw)  # of the level
            values[rows] = own + deviation * words
    place = torch.tensor([ids[name] for name in fresh], dtype=torch.long)
    weight[place] = values[[names[name] for name in fresh]].to(weight.dtype)
