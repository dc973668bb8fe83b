"""Asking a server again: with growing waits, and never before it says so.

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
LONGEST_S = 3600  # a server that wants more is asked by another run


class AgainError(Exception):
    """Another try may help: why, and the server's Retry-After."""

    def __init__(self, why: str, retry_after: str | None = None) -> None:
        """Keep both."""
        super().__init__(why)
        self.why = why
        self.retry_after = retry_after


class Patience:
    """When the threads of a process may ask a server; one wait is for all of them.

    Chance in the waits keeps clients apart; it reaches no result.
    """

    def __init__(self, retries: int, wait_s: float) -> None:
        """Ask ``1 + retries`` times, first after ``wait_s`` seconds, then after twice as long."""
        self.retries = retries
        self.wait_s = wait_s
        self._not_before = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def insist(self, ask: Callable[[], T]) -> T:
        """Call ``ask`` until it raises no :class:`AgainError`.

        Raises:
            SidmillError: when the tries are used up, or another thread gave up.
        """
        for number in range(1 + self.retries):
            while (left := self._not_before - time.monotonic()) > 0 and not self._stopped.is_set():
                self._stopped.wait(left)
            if self._stopped.is_set():
                raise SidmillError("another request to the embeddings server failed")
            try:
                return ask()
            except AgainError as error:
                if number == self.retries:
                    raise SidmillError(
                        f"the embeddings server failed {number + 1} times, last with: {error.why}: "
                        f"see to it and run again; what is done is kept"
                    ) from None
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
