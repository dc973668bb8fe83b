"""How far a shard is: a bar on a terminal, a line in the log now and then."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30

Advance = Callable[[int], None]


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

    def advance(count: int) -> None:
        nonlocal done, last_line
        done += count
        bar.update(count)
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES and done:
            last_line = now
            rate = done / (now - start)
            left = timedelta(seconds=round((total - done) / rate))
            logger.info("%d of %d %s, %.1f per second, %s left", done, total, unit, rate, left)

    with tqdm(total=total, unit=f" {unit}", disable=not sys.stderr.isatty()) as bar:
        yield advance
    seconds = time.monotonic() - start
    rate = done / max(seconds, 1e-9)
    logger.info("%d of %d %s in %.1f s, %.1f per second", done, total, unit, seconds, rate)
