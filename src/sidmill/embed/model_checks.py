"""Whether a model that is loaded fits: its weights, its positions, its prompt, its kind.

Each check answers what would otherwise give vectors that look fine: weights drawn at random, texts
of which nothing is left, a decoder that guesses the next word. An error comes before any text.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import modeling_utils

from sidmill.core.errors import SidmillError

logger = logging.getLogger(__name__)

# Modules that treat all texts alike and take what Transformer and Pooling leave; a Router has one
# way for queries and another for documents.
MODULES = {
    *("Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout", "CNN", "LSTM"),
    "WeightedLayerPooling",
}
UNUSED = "pooler"  # a head of BERT and its kind, which no pooling of tokens reads
POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")
REPORT = "log_state_dict_report"  # the function of transformers that is told of missing weights
NAMED = 5  # weights that a message names


@contextmanager
def complete(model: str) -> Iterator[None]:
    """Refuse a model that is loaded within the block without some of its weights.

    transformers draws those at random and reports them in its log alone.

    Raises:
        SidmillError: naming the first of them.
    """
    missing: list[str] = []
    report = getattr(modeling_utils, REPORT)

    def keep(*arguments: Any, **options: Any) -> None:
        missing.extend(sorted(options["loading_info"].missing_keys))
        report(*arguments, **options)

    setattr(modeling_utils, REPORT, keep)
    try:
        yield
    finally:
        setattr(modeling_utils, REPORT, report)

    # A head that no pooling reads may be drawn at random.
    used = [name for name in missing if UNUSED not in name.split(".")]
    if used:
        raise SidmillError(
            f"{model}: its files lack {len(used)} weights of the model that config.json describes, "
            f"first {', '.join(used[:NAMED])}: they would be drawn at random; get the whole model "
            f"again, or name one whose weights are whole"
        )


def check(model: str, loaded: SentenceTransformer, max_length: int, prompt: str) -> None:
    """Refuse a model, a length or a prompt with which vectors would not be those of the texts.

    Args:
        model: its name, for the message.
        loaded: the model.
        max_length: tokens per text.
        prompt: put before every text.

    Raises:
        SidmillError: if the model is an encoder-decoder, has fewer positions than ``max_length``,
            or the prompt leaves no room for a text.
    """
    # The last layer has to be that of an encoder.
    transformer: Any = loaded[0]
    inner = transformer.model
    if getattr(inner.config, "is_encoder_decoder", False) and hasattr(inner, "decoder"):
        raise SidmillError(
            f"{model}: is an encoder-decoder ({type(inner).__name__}), whose last layer is that of "
            f"its decoder: name an encoder, or bring vectors that you made with "
            f"embedding.backend: precomputed"
        )

    # Every token needs a position.
    positions = _positions(inner)
    if positions is not None and max_length > positions:
        raise SidmillError(
            f"{model}: its weights have {positions} positions, fewer than the {max_length} tokens "
            f"that its folder and embedding.max_length allow: set embedding.max_length to at most "
            f"{positions}"
        )

    # The prompt has to leave room for the text.
    taken = len(loaded.tokenizer(prompt)["input_ids"])  # with the special tokens of every text
    if taken >= max_length:
        raise SidmillError(
            f"{model}: the prompt and the special tokens are {taken} tokens, embedding.max_length "
            f"is {max_length}, so nothing of a text would be left: raise embedding.max_length "
            f"above {taken}, or shorten the prompt (embedding.prompt, for queries "
            f"retrieval.query_prompt)"
        )


def log_prompts(model: str, loaded: SentenceTransformer, prompt: str) -> None:
    """Log the prompts that a model's folder names, none of which is put before a text."""
    named = {name: text for name, text in loaded.prompts.items() if text and text != prompt}
    if not named:
        return
    default = loaded.default_prompt_name
    logger.warning(
        "%s names prompts that are not applied (%s)%s: %r stands before every text; what the model "
        "wants before items goes into embedding.prompt, before queries into retrieval.query_prompt",
        model,
        ", ".join(f"{name} {text!r:.200}" for name, text in sorted(named.items())[:20]),
        f", {default} by default" if default else "",
        prompt,
    )


def _positions(model: nn.Module) -> int | None:
    """The longest text in tokens that a table of positions has rows for; None without a table."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in POSITION_TABLES and isinstance(module, nn.Embedding):
            # RoBERTa and its kind count positions from the row after the padding's.
            padding = module.padding_idx
            return module.num_embeddings - (0 if padding is None else padding + 1)
    return None
