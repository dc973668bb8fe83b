"""Vectors from an OpenAI-compatible server (vLLM, TEI, a hosted one) over HTTPS.

The address and the key come from the environment (``OPENAI_BASE_URL``, ``OPENAI_API_KEY``) and go
nowhere else: not into settings, logs, messages, or files. Redirects are not followed, since they
would carry the key elsewhere. https://platform.openai.com/docs/api-reference/embeddings
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import httpx2
import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.embed import fingerprint
from sidmill.embed.backend import DEFAULT_RUN, Backend, Run, unit_rows
from sidmill.embed.progress import Advance
from sidmill.embed.retry import AgainError, Retries
from sidmill.embed.throughput import Encoded, Work, total
from sidmill.settings.embedding import Embedding, Openai

logger = logging.getLogger(__name__)

HOME = "https://api.openai.com/v1"
OWN_MACHINE = ("localhost", "127.0.0.1", "::1")
BUSY = (408, 409, 425, 429)  # and all from 500: worth another try
TOO_MUCH = (400, 413, 422)  # what servers say of too many texts, and of a text that is too long
TOLD = 200  # characters of a server's message that are passed on
SPENT = "insufficient_quota"  # what OpenAI says with 429 when no wait helps
NUMBERS = {float, int, type(None)}
SHOWN = 60  # characters of a text that a message shows
PROBE = "SIDMill asks how wide a vector is."


class Answer(NamedTuple):
    """What a server gave for a request: float32 (n, width), and the tokens it counted."""

    vectors: np.ndarray
    tokens: int


class Limit:
    """How many texts a server takes at once, as far as it has said; shared by all requests."""

    def __init__(self, most: int) -> None:
        """Begin with ``most``."""
        self.most = most
        self._lock = threading.Lock()

    def lower(self, refused: int, why: str) -> None:
        """Learn that ``refused`` texts are too many: half of them are asked from now on."""
        with self._lock:
            if refused <= self.most:
                self.most = max(refused // 2, 1)
                logger.warning(
                    "the embeddings server refuses %d texts at once (%s): asking %d at a time; set "
                    "openai.texts_per_request to what it takes",
                    refused,
                    why,
                    self.most,
                )


class TooMuchError(Exception):
    """A server refused a request as too much: fewer texts may be taken."""


class Server(NamedTuple):
    """Where and how to ask.

    Attributes:
        client: holds address, key, certificates, timeouts and connections.
        secrets: what no message may hold.
        model: the server's name of the model.
        prompt: put before every text.
        width: values of a vector, None before the first answer.
        retries: when a request is sent again.
        limit: texts of a request.
    """

    client: httpx2.Client
    secrets: tuple[str, ...]
    model: str
    prompt: str
    width: int | None
    retries: Retries
    limit: Limit


def load(settings: Embedding, run: Run = DEFAULT_RUN) -> Backend:
    """Connect to an embeddings server and ask it for one vector, which tells the width.

    A server that sums in another order for batches of another size may move the last bits of a
    vector; nothing here does: how a server is asked changes no vector.

    Args:
        settings: ``model`` is the server's name of it, ``revision`` what the user knows of its
            version. ``dim`` below the model's width keeps the first D values.
        run: how the server is asked. A server that refuses ``texts_per_request`` texts at once is
            asked half as many.

    Raises:
        SidmillError: if the server cannot be asked, or answers what is no embedding.
    """
    if not settings.model:
        raise SidmillError("embedding.model is null: backend openai needs the server's model name")

    # The first answer tells the width of a vector.
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs whole addresses
    client, secrets = _connect(run.openai)
    retries = Retries(run.openai.retries, run.openai.wait_s)
    limit = Limit(run.openai.texts_per_request)
    server = Server(client, secrets, settings.model, settings.prompt, None, retries, limit)
    width = _ask(server, [PROBE]).vectors.shape[1]
    if settings.dim is not None and settings.dim > width:
        raise SidmillError(
            f"embedding.dim is {settings.dim}, {settings.model} gives {width}: lower it, or set "
            f"null for all"
        )

    space = fingerprint.make(
        settings,
        model=settings.model,
        revision=settings.revision,
        pooling="",
        dim=settings.dim or width,
        dtype="",
        max_length=None,
    )
    return Backend(partial(_stream, server._replace(width=width), run.openai, space), space)


def _stream(
    server: Server,
    openai: Openai,
    space: fingerprint.Fingerprint,
    chunks: Iterator[list[str]],
    advance: Advance,
) -> Iterator[Encoded]:
    """Ask for the vectors of each chunk, several requests at a time: float32 (n, D)."""
    dim = space["dim"]
    with ThreadPoolExecutor(openai.requests, thread_name_prefix="request") as pool:
        for texts in chunks:
            vectors = np.empty((len(texts), dim), dtype=np.float32)
            works: list[Work] = []
            row = 0
            requests = _split(texts, openai.texts_per_request)
            for answer in _in_order(pool, server, requests, openai.requests):
                block = answer.vectors[:, :dim]
                vectors[row : row + len(block)] = block
                row += len(block)
                works.append(Work(len(block), answer.tokens, answer.tokens))
                advance(len(block))
            yield Encoded(unit_rows(vectors) if space["normalize"] else vectors, total(works))


def _connect(openai: Openai) -> tuple[httpx2.Client, tuple[str, ...]]:
    """Make the client, and list the words that no message may hold.

    White space around address and key is no part of them: secrets that come from files end in a
    line feed.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    address = os.environ.get("OPENAI_BASE_URL", "").strip() or HOME
    url = _address(address, allow_http=openai.allow_http)
    own = url.host in OWN_MACHINE

    # One of two ways to say who asks: httpx2 would send user and password in place of the key.
    if key and url.userinfo:
        raise SidmillError(
            "OPENAI_BASE_URL holds a user or a password, and OPENAI_API_KEY a key, but a request "
            "carries one of them: take user and password out of the address, or unset the key"
        )
    if not key and not url.userinfo and not own:
        raise SidmillError(
            "OPENAI_API_KEY is not set: export it (any word, if the server wants none)"
        )
    if not all("!" <= character <= "~" for character in key):
        raise SidmillError(
            "OPENAI_API_KEY holds white space or characters that no key has: export the key alone"
        )

    client = httpx2.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(openai.timeout_s, connect=min(openai.timeout_s, 30)),
        limits=httpx2.Limits(max_connections=openai.requests),
        follow_redirects=False,
        trust_env=not own,
    )

    # What no message may hold: every form of address and key, longest first.
    parts = (url.userinfo, url.netloc, *(() if own else (url.raw_host, url.host.encode())))
    secrets = {address, str(url), key, url.path.strip("/"), url.username, url.password}
    secrets |= {part.decode("utf-8", "replace") for part in parts}
    kept = (word for word in secrets if len(word) > 3)
    return client, tuple(sorted(kept, key=lambda word: (-len(word), word)))


def _address(address: str, *, allow_http: bool) -> httpx2.URL:
    """Read the address of a server, to which the path of a request is added."""
    try:
        url = httpx2.URL(address.rstrip("/") + "/")
    except (httpx2.InvalidURL, ValueError):
        raise SidmillError(
            "OPENAI_BASE_URL is no address: set it to one such as https://host:8000/v1"
        ) from None
    if url.query or url.fragment:
        raise SidmillError(
            "OPENAI_BASE_URL holds a ? or a #, which would be lost: end it with the path that "
            "/embeddings follows, as in https://host:8000/v1"
        )
    own = url.host in OWN_MACHINE
    if url.scheme != "https" and not (url.scheme == "http" and (own or allow_http)):
        raise SidmillError(
            "OPENAI_BASE_URL is not https, so texts and key could be read on their way: serve "
            "https, or set openai.allow_http: true within a network that you trust"
        )
    return url


def _split(texts: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _in_order(
    pool: ThreadPoolExecutor, server: Server, requests: Iterator[list[str]], at_once: int
) -> Iterator[Answer]:
    """Send requests, ``at_once`` at a time, and yield the answers in order."""
    waiting: deque[Future[Answer]] = deque()
    try:
        for texts in requests:
            waiting.append(pool.submit(_ask, server, texts))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException:
        server.retries.give_up()
        for future in waiting:
            future.cancel()
        raise


def _ask(server: Server, texts: list[str]) -> Answer:
    """Ask until there is an answer or no retry remains; for fewer texts, where they are too many.

    Raises:
        SidmillError: if there is none, or a single text is refused.
    """
    most = server.limit.most
    if len(texts) <= most:
        try:
            return server.retries.call(lambda: _once(server, texts))
        except TooMuchError as error:
            if len(texts) == 1:
                raise SidmillError(
                    f"the embeddings server answers {error}: check embedding.model "
                    f"({server.model}), OPENAI_BASE_URL and the length of the text "
                    f"{_shown(texts[0])}"
                ) from None
            server.limit.lower(len(texts), str(error))
            most = len(texts) // 2
    answers = [_ask(server, fewer) for fewer in _split(texts, most)]
    vectors = np.concatenate([answer.vectors for answer in answers])
    return Answer(vectors, sum(answer.tokens for answer in answers))


def _once(server: Server, texts: list[str]) -> Answer:
    """Ask once.

    Raises:
        AgainError: if another try may help.
        TooMuchError: if fewer texts may be taken.
        SidmillError: if nothing of it helps.
    """
    # Send the texts.
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

    # What a status means: stop, send again, or send fewer.
    status, told = answer.status_code, f"{answer.status_code} {_safe(server, answer.text)}"
    if status == 429 and SPENT in answer.text:
        raise SidmillError(
            f"the embeddings server answers {told}: what the key may spend is used up: raise it "
            f"and run again; what is done is kept"
        )
    if status in BUSY or status >= 500:
        raise AgainError(told, answer.headers.get("Retry-After"))
    if status in (401, 403):
        raise SidmillError(
            f"the embeddings server refuses the key ({status}): check OPENAI_API_KEY and what it "
            f"may do"
        )
    if status in TOO_MUCH:
        raise TooMuchError(told)
    if status != 200:
        raise SidmillError(
            f"the embeddings server answers {told}: check embedding.model ({server.model}) and "
            f"OPENAI_BASE_URL"
        )
    return _read(server, answer, texts)


def _read(server: Server, answer: httpx2.Response, texts: list[str]) -> Answer:
    """Check an answer and put its vectors in the order of the texts."""
    body = _body(server, answer)
    entries = body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _no_vectors("its answer holds no list 'data' of objects")

    # Order: by index; where servers leave that out, the list is in the order of the texts.
    rows = [entry.get("index") for entry in entries]
    if all(row is None for row in rows):
        rows = list(range(len(rows)))
    rows = [0 if row is None else row for row in rows]  # some leave out a zero
    if not all(isinstance(row, int) for row in rows) or sorted(rows) != list(range(len(texts))):
        raise AgainError(f"{len(entries)} vectors, wanted those of {len(texts)} texts")
    values = [
        entry.get("embedding") for _, entry in sorted(zip(rows, entries, strict=True), key=_row)
    ]

    # Values: lists of numbers, all of one length.
    for line, value in zip(texts, values, strict=True):
        if isinstance(value, str):
            raise _no_vectors("it gives text (base64) where lists of numbers were asked for")
        if not isinstance(value, list) or not {*map(type, value)} <= NUMBERS:
            raise _no_vectors(f"it gives no list of numbers for the text {_shown(line)}")
    widths = {len(value) for value in values}
    if len(widths) > 1 or 0 in widths or server.width not in (None, *widths):
        raise _no_vectors(
            f"it gives vectors of {', '.join(map(str, sorted(widths)))} values, wanted "
            f"{server.width or 'one length'}"
        )
    try:
        with np.errstate(over="ignore"):
            vectors = np.array(values, dtype=np.float32)  # a null is a NaN
    except OverflowError:  # an integer of hundreds of digits
        raise _no_vectors("it gives numbers that no float holds") from None
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if broken.size:
        raise AgainError(
            f"{broken.size} vectors with a NaN, a null or an infinity, first that of the text "
            f"{_shown(texts[broken[0]])}"
        )
    return Answer(vectors, _counted(body.get("usage")))


def _body(server: Server, answer: httpx2.Response) -> Any:
    """Read the JSON of an answer with status 200, which may be an error all the same.

    Raises:
        AgainError: if it is cut short, or says that the server is busy.
        SidmillError: if it is no JSON, or another error.
    """
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        if "json" in answer.headers.get("Content-Type", "json"):
            raise AgainError("its JSON is cut short") from None
        raise _no_vectors(f"it gives no JSON ({_safe(server, answer.text)})") from None
    error = body.get("error") if isinstance(body, dict) else None
    if error:
        code = error.get("code") if isinstance(error, dict) else None
        told = f"an error in place of vectors: {_safe(server, str(error))}"
        if str(code).isdecimal() and (int(str(code)) in BUSY or int(str(code)) >= 500):
            raise AgainError(told)
        raise _no_vectors(f"it gives {told}")
    return body


def _no_vectors(why: str) -> SidmillError:
    """What another try does not mend."""
    return SidmillError(
        f"the embeddings server answers, but {why}: check that OPENAI_BASE_URL is that of an "
        f"OpenAI-compatible server and embedding.model an embedding model of it"
    )


def _row(entry: tuple[int, dict[str, Any]]) -> int:
    return entry[0]


def _shown(line: str) -> str:
    return repr(line if len(line) <= SHOWN else f"{line[:SHOWN]}...")


def _counted(usage: object) -> int:
    """Tokens that a server counted; 0 where it says nothing that can be read."""
    told = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return int(told) if isinstance(told, int | float) and 0 < told < float("inf") else 0


def _safe(server: Server, told: str) -> str:
    """Return the start of a message on one line, secrets left out."""
    for secret in server.secrets:
        told = told.replace(secret, "***")
    return " ".join(told.split())[:TOLD]
