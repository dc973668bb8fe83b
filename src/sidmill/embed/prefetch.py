"""Do the next pieces of work while this one is used: one thread, a bounded number of pieces."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
END = object()


def ahead(items: Iterator[T], waiting: int) -> Iterator[T]:
    """Yield ``items`` in order, while a thread makes up to ``waiting`` of those that follow.

    What the thread raises is raised here, where its item would have come.

    Args:
        items: made by the thread alone.
        waiting: items that may wait, at least 1; they are in memory.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        made = deque(pool.submit(next, items, END) for _ in range(waiting))
        try:
            while (item := made.popleft().result()) is not END:
                made.append(pool.submit(next, items, END))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)
