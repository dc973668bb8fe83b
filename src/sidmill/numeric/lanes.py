"""Lanes: threads that share the pieces of a computation, each with products of NumPy on one core.

A lane does its jobs one after the other, so that it can have memory of its own. With the threads of
OpenBLAS in place of lanes, all that stands between two products would run on one core.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

from sidmill.core import threads

Found = TypeVar("Found")


def run(
    work: Callable[..., Found],
    jobs: Sequence[tuple[Any, ...]],
    numbers: Sequence[int],
    pool: Executor | None = None,
) -> list[Found]:
    """Call ``work`` with the arguments of each job, in lanes that work at the same time.

    When it returns or raises, no lane works any more: they may write to memory that the caller uses
    again. Of several errors that of the first lane is raised.

    Args:
        work: what is called.
        jobs: the arguments of each call.
        numbers: the lane of each job; a lane does its jobs in their order.
        pool: threads that work; None: the caller is the first lane, and threads that stay are the
            others.

    Returns:
        What each call returned, in the order of ``jobs``.
    """
    found: dict[int, Found] = {}

    def work_through(positions: list[int]) -> None:
        for position in positions:
            found[position] = work(*jobs[position])

    # Positions of the jobs of each lane.
    lanes: dict[int, list[int]] = {}
    for position, number in enumerate(numbers):
        lanes.setdefault(number, []).append(position)

    # The caller works beside its own threads, and waits for those of a pool.
    workers = pool or _threads(max(1, threads.granted() - 1))
    n_own = 0 if pool else 1
    working: list[Future[None]] = []
    try:
        for lane in list(lanes.values())[n_own:]:
            working.append(workers.submit(work_through, lane))
        for lane in list(lanes.values())[:n_own]:
            work_through(lane)
    finally:
        wait(working)
    for each in working:
        each.result()
    return [found[position] for position in range(len(jobs))]


def one_core_each() -> AbstractContextManager[Any]:
    """Let each product of NumPy take one core, and put back what was set before.

    Whatever the number of threads: the bits of a product do not depend on it, and lanes and the
    threads of OpenBLAS do not take each other's cores.
    """
    limits: AbstractContextManager[Any] = _pools_of_numpy().limit(limits=1, user_api="blas")
    return limits


@cache
def _pools_of_numpy() -> Any:
    """NumPy's threads; to look for them among all loaded libraries takes a millisecond."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@cache
def _threads(n_threads: int) -> ThreadPoolExecutor:
    """Threads besides the caller; they stay."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="lane")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of the threads
