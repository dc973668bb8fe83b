"""Does a tokenizer hold the SID tokens? Checks of the tokenizer that a model will be saved with.

    alone        each SID token is one token; each SID is begin, L tokens and end, and is decoded as
                 the same text
    in a text    a SID is the same tokens after and before anything: words, line feeds, another SID
    in a chat    the chat template leaves a SID whole, in a question and in an answer
    others       special tokens, their roles, the chat template and the encoding of all other added
                 tokens are those of before

Added tokens are cut out of a text before anything else is done with it, the leftmost first and of
those the longest. Therefore only another added token can take a character of a SID: one that ends
as a SID begins, or that begins with the end of a SID. Both are searched for.

Shapes: N items, L levels.
"""

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from sidmill.core.errors import SidmillError
from sidmill.formats import sid_text

logger = logging.getLogger(__name__)

BATCH = 4096  # SIDs that are tokenized at a time
LISTED = 20  # names in a message, at most
IN_CONTEXT = 8  # SIDs that are tried in each context
# What the wordings of the datasets, and people, write before and after a SID.
BEFORE = ("", " ", "\n", "a", "1", ".", ": ", "(", '"', "`", "《", "看", "：")
AFTER = ("", " ", "\n", "a", "1", ".", ", ", ")", '"', "`", "》", "看", "，")


class State(NamedTuple):
    """What must not change as SID tokens are added.

    Attributes:
        length: number of tokens.
        special: special tokens by role.
        added: ids that the text of each added token is encoded as.
        template: the chat template; None without one.
    """

    length: int
    special: dict[str, Any]
    added: dict[str, list[int]]
    template: str | None


def state(tokenizer: PreTrainedTokenizerBase, without: list[str]) -> State:
    """Note what must not change; ``without`` are the SID tokens."""
    others = sorted(set(tokenizer.get_added_vocab()) - set(without))
    encoded = _encode(tokenizer, others) if others else []
    return State(
        len(tokenizer),
        dict(tokenizer.special_tokens_map),
        dict(zip(others, encoded, strict=True)),
        cast("str | None", tokenizer.chat_template),
    )


def check(
    tokenizer: PreTrainedTokenizerBase, before: State, codes: np.ndarray, ids: dict[str, int]
) -> dict[str, Any]:
    """Check a tokenizer that the SID tokens were added to.

    Args:
        tokenizer: with the SID tokens.
        before: its :func:`state` without them.
        codes: int32 (N, L), the SIDs of items.
        ids: id of each SID token.

    Returns:
        What was checked, and what is worth knowing, for ``sid_vocabulary.json``.

    Raises:
        SidmillError: at the first check that fails.
    """
    _check_others(tokenizer, before, list(ids))
    check_round_trip(tokenizer, codes, ids)
    breaking = _check_contexts(tokenizer, codes[:IN_CONTEXT], ids)
    return {
        "tokenizer_length": len(tokenizer),
        "sids_encoded_and_decoded": len(codes),
        "breaking_contexts": breaking,
        "chat": _check_chat(tokenizer, codes[:IN_CONTEXT], ids),
    }


def warn(checked: dict[str, Any]) -> None:
    """Log what :func:`check` allows and a user should know."""
    if checked["breaking_contexts"]:
        logger.warning(
            "%s: added tokens that end as a SID begins, or begin as one ends; a text with one of "
            "them at a SID splits the SID",
            checked["breaking_contexts"][:LISTED],
        )
    chat = checked["chat"] or {}
    if "template_error" in chat:
        logger.warning("the chat template takes no question and answer: %s", chat["template_error"])
    if chat.get("answer_ends_with_eos") is False:
        logger.warning(
            "the chat template ends an answer without the end token: a model that is trained on "
            "chat rows does not learn to stop; a constraint (trie.SidLogits) stops it"
        )


def check_round_trip(
    tokenizer: PreTrainedTokenizerBase, codes: np.ndarray, ids: dict[str, int] | None = None
) -> None:
    """Encode every token and every SID, and decode every SID.

    Args:
        tokenizer: with the SID tokens.
        codes: int32 (N, L).
        ids: id of each SID token; None: those that the tokenizer gives the tokens of ``codes``.

    Raises:
        SidmillError: at the first token or SID that is not exactly its own ids, or another text.
    """
    # Each token by itself: SIDs may leave some of them out.
    ids = ids or _ids_in_use(tokenizer, codes)
    names = list(ids)
    for name, tokens in zip(names, _encode(tokenizer, names), strict=True):
        if tokens != [ids[name]]:
            raise SidmillError(
                f"{name} becomes the tokens {tokens[:LISTED]} instead of {ids[name]} alone: this "
                f"tokenizer changes SID tokens, take another model"
            )

    # Each SID: the ids of its tokens, and the same text again.
    for start in range(0, len(codes), BATCH):
        rows = codes[start : start + BATCH]
        texts = sid_text.render(rows).to_pylist()
        wanted = _expected(rows, ids)
        for text, tokens, right in zip(texts, _encode(tokenizer, texts), wanted, strict=True):
            decoded = cast(str, tokenizer.decode(tokens, skip_special_tokens=True))
            if tokens != right or decoded.replace(" ", "") != text:
                raise SidmillError(
                    f"{text} becomes {len(tokens)} tokens instead of {len(right)} tokens of its "
                    f"own, and is decoded as {decoded!r}: this tokenizer changes SID tokens, take "
                    f"another model"
                )


def _check_others(tokenizer: PreTrainedTokenizerBase, before: State, names: list[str]) -> None:
    """Refuse a tokenizer in which something else than the SID tokens changed."""
    after = state(tokenizer, without=names)
    changed = sorted(text for text, ids in before.added.items() if after.added.get(text) != ids)
    if changed:
        raise SidmillError(
            f"{', '.join(changed[:LISTED])}: added tokens that hold a SID token and are encoded "
            f"otherwise now: take the model without them"
        )
    if after.special != before.special:
        raise SidmillError(
            f"special tokens changed from {before.special} to {after.special} as SID tokens were "
            f"added: take another model"
        )
    if after.template != before.template:
        raise SidmillError("the chat template changed as SID tokens were added: take another model")


def _check_contexts(
    tokenizer: PreTrainedTokenizerBase, codes: np.ndarray, ids: dict[str, int]
) -> list[str]:
    """Refuse SIDs that a common context breaks, and return other contexts that do."""
    # Pairs of SIDs between each text before and each after.
    texts, wanted = sid_text.render(codes).to_pylist(), _expected(codes, ids)
    for before, after in [*((b, "") for b in BEFORE), *(("", a) for a in AFTER)]:
        pairs = [f"{before}{text}{text}{after}" for text in texts]
        for pair, tokens, right in zip(pairs, _encode(tokenizer, pairs), wanted, strict=True):
            if not _holds(tokens, right + right):
                raise SidmillError(
                    f"{pair!r} is not encoded as the tokens of its SIDs: an added token of this "
                    f"tokenizer takes a part of them, take the model without it"
                )

    # Added tokens that take the first or the last character of a SID.
    breaking = []
    for text, around in _overlapping(set(tokenizer.get_added_vocab()) - set(ids), texts[0]):
        (tokens,) = _encode(tokenizer, [around])
        if not _holds(tokens, wanted[0]):
            breaking.append(text)
    return sorted(breaking)


def _overlapping(added: set[str], text: str) -> Iterator[tuple[str, str]]:
    """Added tokens that may overlap a SID, each with a text in which it does."""
    for other in sorted(added):
        for size in range(1, min(len(other), len(sid_text.BEGIN) + 1)):
            if other.endswith(sid_text.BEGIN[:size]):
                yield other, other[:-size] + text
        if other.startswith(sid_text.END) and other != sid_text.END:
            yield other, text + other.removeprefix(sid_text.END)


def _check_chat(
    tokenizer: PreTrainedTokenizerBase, codes: np.ndarray, ids: dict[str, int]
) -> dict[str, Any] | None:
    """Refuse a chat template that splits a SID; say how it ends a turn. None without a template."""
    if tokenizer.chat_template is None:
        return None
    text, wanted = sid_text.render(codes[:1])[0].as_py(), _expected(codes[:1], ids)[0]
    turns = [
        {"role": "user", "content": f"History: {text}\nWhat is next?"},
        {"role": "assistant", "content": text},
    ]
    try:
        chat = cast(str, tokenizer.apply_chat_template(turns, tokenize=False))
        question = cast(
            str,
            tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True),
        )
    except (TemplateError, TypeError, ValueError) as error:  # of the template
        return {"template_error": str(error)}

    # The SID in the question and in the answer.
    (tokens,) = _encode(tokenizer, [chat])
    if chat.count(text) < 2 or not _holds(tokens, wanted, times=chat.count(text)):
        raise SidmillError(
            f"the chat template does not leave {text} whole in a question and in an answer: take "
            f"another template (tokenizer.chat_template)"
        )

    # How an answer ends, and whether a trainer finds where it begins.
    after_answer = tokens[_last(tokens, wanted) + len(wanted) :]
    ends = tokenizer.eos_token_id in after_answer
    return {"answer_ends_with_eos": ends, "prompt_is_prefix": chat.startswith(question)}


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    return cast("list[list[int]]", tokenizer(texts, add_special_tokens=False)["input_ids"])


def _ids_in_use(tokenizer: PreTrainedTokenizerBase, codes: np.ndarray) -> dict[str, int]:
    """Ids that a tokenizer has for the tokens of SIDs."""
    names = [sid_text.BEGIN, sid_text.END]
    for level, column in enumerate(codes.T):
        names += [sid_text.token(level, int(code)) for code in np.unique(column)]
    numbers = cast("list[int]", tokenizer.convert_tokens_to_ids(names))
    return dict(zip(names, numbers, strict=True))


def _expected(codes: np.ndarray, ids: dict[str, int]) -> list[list[int]]:
    """Ids that each SID must become: begin, L tokens, end."""
    columns = [np.full(len(codes), ids[sid_text.BEGIN])]
    for level, column in enumerate(codes.T):
        used, inverse = np.unique(column, return_inverse=True)
        of_code = np.array([ids[sid_text.token(level, int(code))] for code in used])
        columns.append(of_code[inverse])
    columns.append(np.full(len(codes), ids[sid_text.END]))
    return cast("list[list[int]]", np.stack(columns, axis=1).tolist())


def _positions(tokens: list[int], wanted: list[int]) -> list[int]:
    """Where a list of ids occurs in another."""
    last = len(tokens) - len(wanted)
    return [at for at in range(last + 1) if tokens[at : at + len(wanted)] == wanted]


def _holds(tokens: list[int], wanted: list[int], times: int = 1) -> bool:
    return len(_positions(tokens, wanted)) == times


def _last(tokens: list[int], wanted: list[int]) -> int:
    return _positions(tokens, wanted)[-1]
