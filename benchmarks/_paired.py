"""Run two programs in turn, each in a fresh process, and compare time and memory."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple, TypeVar

KIB_PER_MIB = 1024
WATCH_SECONDS = 0.1  # between two looks at the memory of a tree of processes


class Run(NamedTuple):
    """One process, from its start to its end, imports included."""

    seconds: float  # wall time
    cpu_seconds: float  # user and system, all threads: wall time says little on a busy machine
    peak_mb: float  # largest resident set in MiB, mapped file pages included


def run(
    arguments: Sequence[str], beside: Callable[[int], AbstractContextManager[None]] | None = None
) -> Run:
    """Run ``python ARGUMENTS`` and measure it; its output goes to stderr.

    This process must stay small: Linux counts its memory for the child until the child's exec.

    Args:
        arguments: of Python.
        beside: what happens while the program runs, given the number of its process.

    Raises:
        SystemExit: if the program fails.
    """
    began = time.perf_counter()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, *arguments],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)],
    )
    with beside(child) if beside else nullcontext():
        _, status, usage = os.wait4(child, 0)
        seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return measured(seconds, usage)


class Tree(NamedTuple):
    """A process and all that it starts, from its start to its end."""

    seconds: float
    cpu_seconds: float  # of all processes that were waited for
    peak_mb: float  # largest memory of all together in MiB; a page that several share counts once
    written_mb: float  # MiB that the tree gave to the disk


Measured = TypeVar("Measured", Run, Tree)


def run_tree(arguments: Sequence[str]) -> Tree:
    """Run ``python ARGUMENTS``, and measure it with all processes that it starts, as :func:`run`.

    Raises:
        SystemExit: if the program fails.
    """
    # The bytes of a process are counted for its parent when it ends, at last for this process.
    written = _bytes_written()
    sums = [0.0]

    @contextmanager
    def watched(child: int) -> Iterator[None]:
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(child, ended, sums))
        watcher.start()
        yield
        ended.set()
        watcher.join()

    alone = run(arguments, watched)
    written = (_bytes_written() - written) / KIB_PER_MIB**2
    return Tree(alone.seconds, alone.cpu_seconds, max(sums), written)


def run_tree_twice(arguments: Sequence[str]) -> Tree:
    """Run ``python ARGUMENTS`` for its time, and once more for its memory, as :func:`run_tree`.

    Looking at the memory of a process takes a core for some milliseconds and makes the process
    wait: more of it the larger it is, and for each process of a tree.

    Raises:
        SystemExit: if the program fails.
    """
    alone = run(arguments)
    return run_tree(arguments)._replace(seconds=alone.seconds, cpu_seconds=alone.cpu_seconds)


def _watch(pid: int, ended: threading.Event, sums: list[float]) -> None:
    """Append the memory of a tree of processes in MiB (proportional set sizes), until it ends."""
    import psutil  # type: ignore[import-untyped]

    while not ended.wait(WATCH_SECONDS):
        total = 0
        try:
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for process in tree:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue  # it has ended
        sums.append(total / KIB_PER_MIB**2)


def _bytes_written() -> int:
    """Bytes that this process and those that it waited for gave to the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def measured(seconds: float, usage: resource.struct_rusage) -> Run:
    """A run from its wall time and what ``os.wait4`` says of the process."""
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / KIB_PER_MIB)


def flags(options: argparse.Namespace, folder: str) -> list[str]:
    """The options of a benchmark as flags for its sides, with the folder that they share.

    An option that may be given several times is given so again.
    """
    shared = {"folder": folder}
    for name, value in vars(options).items():
        if name not in ("folder", "repeats", "side", "alone", "crowded") and value is not None:
            shared[name.replace("_", "-")] = value
    return [
        f"--{name}={one}"
        for name, value in shared.items()
        for one in (value if isinstance(value, list) else [value])
    ]


def alternate(
    sides: dict[str, Sequence[str]],
    repeats: int,
    measure: Callable[[Sequence[str]], Measured] = run,
) -> dict[str, Measured]:
    """Run every side ``repeats`` times in turn; return the medians per side."""
    runs: dict[str, list[Measured]] = {name: [] for name in sides}
    for number in range(repeats):
        for name, arguments in sides.items():
            runs[name].append(measure(arguments))
            print(f"run {number + 1} {name}: {runs[name][-1]}", file=sys.stderr, flush=True)
    return {
        name: type(done[0])(*(statistics.median(part) for part in zip(*done, strict=True)))
        for name, done in runs.items()
    }


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Keep so many processes busy beside what runs in the block, each with one thread."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def kernels() -> dict[str, str]:
    """The kernels that the OpenBLAS of NumPy and of faiss take on this machine, as it is set up.

    Without ``sidmill``: those of a program that uses faiss itself. Ratios of two programs depend on
    them.
    """
    program = (
        "import json, faiss, numpy; from threadpoolctl import threadpool_info\n"
        "pools = [pool for pool in threadpool_info() if pool['internal_api'] == 'openblas']\n"
        "print(json.dumps({name: pool['architecture'] for name in ('numpy', 'faiss')\n"
        "                  for pool in pools if name in pool['filepath']}))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def report(
    medians: Mapping[str, Run | Tree], figures: dict[str, object], quality_ratio: float
) -> None:
    """Print a table, and last one JSON line with the ratios of the first side over the second."""
    ours, theirs = medians.values()
    print(f"{'side':<14}{'seconds':>10}{'CPU s':>10}{'peak MiB':>10}")
    for name, median in medians.items():
        print(
            f"{name:<14}{median.seconds:>10.1f}{median.cpu_seconds:>10.1f}{median.peak_mb:>10.0f}"
        )
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(
        json.dumps(
            {
                "time_ratio": round(ours.seconds / theirs.seconds, 4),
                "cpu_ratio": round(ours.cpu_seconds / theirs.cpu_seconds, 4),
                "memory_ratio": round(ours.peak_mb / theirs.peak_mb, 4),
                "quality_ratio": round(quality_ratio, 4),
                "kernels": kernels(),
                **{
                    f"{name}_{key}": round(value, 2)
                    for name, m in medians.items()
                    for key, value in m._asdict().items()
                },
                **figures,
            }
        )
    )
