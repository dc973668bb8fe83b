"""Vectors from an OpenAI-compatible server (vLLM, TEI, a hosted one) over HTTPS.

The address and the key come from the environment (``OPENAI_BASE_URL``, ``OPENAI_API_KEY``) and go
nowhere else: not into settings, logs, messages, or files. Redirects are not followed, since they
would carry the key elsewhere. https://platform.openai.com/docs/api-reference/embeddings
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx2
import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.embed import fingerprint
from sidmill.embed.patience import AgainError, Patience
from sidmill.embed.progress import Advance
from sidmill.embed.unit import unit_rows
from sidmill.embed.work import Encoded, Work, total

logger = logging.getLogger(__name__)

HOME = "https://api.openai.com/v1"
OWN_MACHINE = ("localhost", "127.0.0.1", "::1")
BUSY = (408, 409, 425, 429)  # and all from 500: worth another try
TOLD = 200  # characters of a server's message that are passed on
PROBE = "SIDMill asks how wide a vector is."


class Answer(NamedTuple):
    """What a server gave for a request: float32 (n, width), and the tokens it counted."""

    vectors: np.ndarray
    tokens: int


class Server(NamedTuple):
    """Where and how to ask.

    Attributes:
        client: holds address, key, certificates, timeouts and connections.
        secrets: what no message may hold.
        model: the server's name of the model.
        prompt: put before every text.
        width: values of a vector, None before the first answer.
        patience: when to ask again.
    """

    client: httpx2.Client
    secrets: tuple[str, ...]
    model: str
    prompt: str
    width: int | None
    patience: Patience


def load(
    *,
    model: str | None,
    revision: str | None,
    dim: int | None,
    prompt: str,
    normalize: bool,
    requests: int,
    texts_per_request: int,
    timeout_s: float,
    retries: int,
    wait_s: float,
    allow_http: bool,
) -> tuple[Callable[[Iterator[list[str]], Advance], Iterator[Encoded]], dict]:
    """Connect to a server and ask it for one vector, which tells the width.

    Args:
        model: the server's name of the model.
        revision: what the user knows of its version; part of the fingerprint.
        dim: D, or null for the model's width. A smaller one keeps the first D values.
        prompt: put before every text.
        normalize: scale to unit length after cutting to D.
        requests: requests at a time.
        texts_per_request: texts in each.
        timeout_s: seconds without a byte after which a request is given up.
        retries: further tries of a request.
        wait_s: seconds before the second try; doubled before every further one, with chance in it.
        allow_http: send texts and key unencrypted to another machine.

    Returns:
        The function from chunks of texts to vectors, and the fingerprint.

    Raises:
        SidmillError: if the server cannot be asked, or answers what is no embedding.
    """
    if not model:
        raise SidmillError("embedding.model is null: backend openai needs the server's model name")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs whole addresses
    client, secrets = _connect(requests, timeout_s, allow_http=allow_http)
    patience = Patience(retries, wait_s)
    server = Server(client, secrets, model, prompt, None, patience)
    width = _ask(server, [PROBE]).vectors.shape[1]
    if dim is not None and dim > width:
        raise SidmillError(
            f"embedding.dim is {dim}, {model} gives {width}: lower it, or set null for all"
        )
    facts = fingerprint.make(
        backend="openai",
        model=model,
        revision=revision,
        pooling="",
        prompt=prompt,
        normalize=normalize,
        dim=dim or width,
        dtype="",
        max_length=None,
    )
    server = server._replace(width=width)

    def stream(chunks: Iterator[list[str]], advance: Advance) -> Iterator[Encoded]:
        with ThreadPoolExecutor(requests, thread_name_prefix="request") as pool:
            for texts in chunks:
                found = np.empty((len(texts), facts["dim"]), dtype=np.float32)
                row, works = 0, []
                for answer in _in_order(pool, server, _cut(texts, texts_per_request), requests):
                    block = answer.vectors[:, : facts["dim"]]
                    found[row : row + len(block)] = block
                    row += len(block)
                    works.append(Work(len(block), answer.tokens, answer.tokens))
                    advance(len(block))
                yield Encoded(unit_rows(found) if normalize else found, total(works))

    return stream, facts


def _connect(
    requests: int, timeout_s: float, *, allow_http: bool
) -> tuple[httpx2.Client, tuple[str, ...]]:
    key = os.environ.get("OPENAI_API_KEY", "")
    address = os.environ.get("OPENAI_BASE_URL") or HOME
    try:
        url = httpx2.URL(address.rstrip("/") + "/")
    except (httpx2.InvalidURL, ValueError):
        raise SidmillError(
            "OPENAI_BASE_URL is no address: set it to one such as https://host:8000/v1"
        ) from None
    own = url.host in OWN_MACHINE
    if url.scheme != "https" and not (url.scheme == "http" and (own or allow_http)):
        raise SidmillError(
            "OPENAI_BASE_URL is not https, so texts and key could be read on their way: serve "
            "https, or set openai.allow_http: true within a network that you trust"
        )
    if not key and not own:
        raise SidmillError(
            "OPENAI_API_KEY is not set: export it (any word, if the server wants none)"
        )
    try:
        client = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 30)),
            limits=httpx2.Limits(max_connections=requests),
            follow_redirects=False,
            trust_env=not own,
        )
    except (UnicodeEncodeError, ValueError):
        raise SidmillError(
            "OPENAI_API_KEY holds characters that no key has: export it again"
        ) from None
    parts = (url.userinfo, url.netloc, *(() if own else (url.raw_host, url.host.encode())))
    secrets = {address, str(url), key, url.path.strip("/")}
    secrets |= {part.decode("utf-8", "replace") for part in parts}
    kept = (word for word in secrets if len(word) > 3)
    return client, tuple(sorted(kept, key=lambda word: (-len(word), word)))


def _cut(texts: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _in_order(
    pool: ThreadPoolExecutor, server: Server, parts: Iterator[list[str]], requests: int
) -> Iterator[Answer]:
    """Ask for parts, so many at a time, and yield the answers in order."""
    waiting = deque()
    try:
        for part in parts:
            waiting.append(pool.submit(_ask, server, part))
            if len(waiting) > requests:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException:
        server.patience.give_up()
        for future in waiting:
            future.cancel()
        raise


def _ask(server: Server, texts: list[str]) -> Answer:
    """Ask until there is an answer, or the tries are used up."""
    return server.patience.insist(lambda: _once(server, texts))


def _once(server: Server, texts: list[str]) -> Answer:
    """Ask once.

    Raises:
        AgainError: if another try may help.
        SidmillError: if none will.
    """
    request = {
        "model": server.model,
        "input": [server.prompt + line for line in texts],
        "encoding_format": "float",
    }
    try:
        answer = server.client.post("embeddings", json=request)
    except httpx2.TimeoutException:
        raise AgainError("no answer in openai.timeout_s") from None
    except httpx2.RequestError as error:
        raise AgainError(f"{type(error).__name__}: {_safe(server, str(error))}") from None
    if answer.status_code in BUSY or answer.status_code >= 500:
        raise AgainError(
            f"{answer.status_code} {_safe(server, answer.text)}", answer.headers.get("Retry-After")
        )
    if answer.status_code in (401, 403):
        raise SidmillError(
            f"the embeddings server refuses the key ({answer.status_code}): check OPENAI_API_KEY "
            f"and what it may do"
        )
    if answer.status_code != 200:
        raise SidmillError(
            f"the embeddings server answers {answer.status_code} {_safe(server, answer.text)}: "
            f"check embedding.model ({server.model}), OPENAI_BASE_URL and the lengths of the texts"
        )
    return _read(answer, len(texts), server.width)


def _read(answer: httpx2.Response, count: int, width: int | None) -> Answer:
    """Check an answer and put its vectors in the order of the texts."""
    try:
        body = answer.json()
        entries = {entry["index"]: entry["embedding"] for entry in body["data"]}
        if len(body["data"]) != count or set(entries) != set(range(count)):
            raise AgainError(f"{len(body['data'])} vectors, wanted those of {count} texts")
        vectors = np.array([entries[row] for row in range(count)], dtype=np.float32)
        tokens = _counted(body.get("usage"))
    except (
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
        AttributeError,
        OverflowError,
    ) as error:
        raise AgainError(f"no list of embeddings ({type(error).__name__})") from None
    if vectors.ndim != 2 or vectors.shape[1] == 0 or width not in (None, vectors.shape[1]):
        raise AgainError(f"vectors of shape {vectors.shape[1:]}, wanted ({width or 'any'},)")
    if not np.isfinite(vectors).all():
        raise AgainError("vectors with a NaN or an infinity")
    return Answer(vectors, tokens)


def _counted(usage: object) -> int:
    """Tokens that a server counted; 0 where it says nothing that can be read."""
    told = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return int(told) if isinstance(told, int | float) and 0 < told < float("inf") else 0


def _safe(server: Server, told: str) -> str:
    """Return the start of a message on one line, secrets left out."""
    for secret in server.secrets:
        told = told.replace(secret, "***")
    return " ".join(told.split())[:TOLD]
