"""Retries of requests to a server: exponential back-off, and never before its Retry-After.

Own code and not tenacity, which retries one call: here a Retry-After holds for the requests of all
threads, and a request that fails for good ends the waits of the others.

https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from sidmill.core.errors import SidmillError

logger = logging.getLogger(__name__)

T = TypeVar("T")
LONGEST_S = 3600  # a server that asks for a longer wait needs another run


class AgainError(Exception):
    """A request failed in a way that a retry may help."""

    def __init__(self, why: str, retry_after: str | None = None) -> None:
        """Store the reason of the failure and the header of the answer."""
        super().__init__(why)
        self.why = why
        self.retry_after = retry_after


class Retries:
    """When the threads of a process may send requests; one Retry-After holds for all of them.

    The waits have a random part, which keeps clients apart; it reaches no result.
    """

    def __init__(self, retries: int, wait_s: float) -> None:
        """Allow ``retries`` retries: after ``wait_s`` seconds, then after twice as long each."""
        self.retries = retries
        self.wait_s = wait_s
        self._not_before = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def call(self, request: Callable[[], T]) -> T:
        """Call ``request`` until it raises no :class:`AgainError`.

        Raises:
            SidmillError: when no retry remains, or another thread gave up.
        """
        for number in range(1 + self.retries):
            # A Retry-After of any thread comes first.
            while (
                remaining := self._not_before - time.monotonic()
            ) > 0 and not self._stopped.is_set():
                self._stopped.wait(remaining)
            if self._stopped.is_set():
                raise SidmillError("another request to the embeddings server failed")

            try:
                return request()
            except AgainError as error:
                if number == self.retries:
                    raise SidmillError(
                        f"the embeddings server failed {number + 1} times, last with: {error.why}: "
                        f"see to it and run again; what is done is kept"
                    ) from None

                # Exponential back-off, not before the server's own time.
                wait = self.wait_s * 2**number * random.uniform(0.5, 1)
                asked = seconds_of(error.retry_after)
                if asked is not None:
                    self._wait_all(asked)
                logger.warning(
                    "try %d of %d: %s; again in %.1f s",
                    number + 1,
                    1 + self.retries,
                    error.why,
                    max(wait, asked or 0),
                )
                self._stopped.wait(wait)
        raise AssertionError  # the loop returns or raises

    def give_up(self) -> None:
        """End the waits of all threads."""
        self._stopped.set()

    def _wait_all(self, seconds: float) -> None:
        if seconds > LONGEST_S:
            raise SidmillError(
                f"the embeddings server wants to be left alone for {seconds:.0f} s: run again "
                f"after that; what is done is kept"
            )
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)


def seconds_of(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After asks for, a number or a date; None without a readable one."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
        return None if math.isnan(seconds) else max(seconds, 0.0)
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max((date - datetime.now(UTC)).total_seconds(), 0.0)
