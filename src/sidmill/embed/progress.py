"""How far a shard is: a bar on a terminal, a line in the log now and then."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30

Advance = Callable[[int], None]


def _show_nothing(count: int) -> None:
    """The bar of a process without a terminal."""


@contextmanager
def counting(total: int, unit: str) -> Iterator[Advance]:
    """Give a function that shows the progress of a shard; it takes the number of items just done.

    Logs items per second and the time left about every 30 seconds, and the total when the block
    ends well.

    Args:
        total: items to do.
        unit: what they are, in the plural.
    """
    start = last_line = time.monotonic()
    done = 0
    show: Callable[[int], object] = _show_nothing

    def advance(count: int) -> None:
        nonlocal done, last_line
        done += count
        show(count)
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES and done:
            last_line = now
            rate = done / (now - start)
            left = timedelta(seconds=round((total - done) / rate))
            logger.info("%d of %d %s, %.1f per second, %s left", done, total, unit, rate, left)

    with ExitStack() as stack:
        if sys.stderr.isatty():
            from tqdm import tqdm  # few jobs have a terminal to show a bar on

            show = stack.enter_context(tqdm(total=total, unit=f" {unit}")).update
        yield advance
    seconds = time.monotonic() - start
    rate = done / max(seconds, 1e-9)
    logger.info("%d of %d %s in %.1f s, %.1f per second", done, total, unit, seconds, rate)
