"""Processes of one machine that share a task: they start together and end together.

``run("module:function", arguments, task=...)`` calls the function in one process per entry of
``arguments``. Arguments and results are JSON and go through pipes, so that no setting stands on a
command line or in a file.

A process ends with the one that started it, however that one dies: it holds the reading end of a
pipe that the kernel closes even after a SIGKILL. No GPU stays taken by a job that is gone.
"""

import importlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from sidmill.core import threads
from sidmill.core.errors import SidmillError

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).parents[2]  # the folder that the package lies in
POLL_S = 0.2  # between two looks at whether a process has ended
DRAIN_S = 10  # for reading what an ended process wrote
MISTAKE = 2  # exit code after a SidmillError
ORPHANED = 3  # exit code after the end of the parent; nobody reads it


class Worker(NamedTuple):
    """One started process, the threads that read its pipes, and its reply so far."""

    process: subprocess.Popen[bytes]
    readers: list[threading.Thread]
    reply: bytearray


def run(function: str, arguments: Sequence[Mapping[str, object]], *, task: str) -> list[Any]:
    """Call a function in one process per entry of ``arguments``, all at the same time.

    The threads of this process, by ``OMP_NUM_THREADS`` or its cores, are shared out evenly. What a
    process writes to its standard error or prints becomes log lines of this one. The first process
    that fails ends the others.

    Args:
        function: ``module:function``; it takes an entry of ``arguments`` as keyword arguments and
            returns JSON.
        arguments: per process, JSON.
        task: what the processes do, as a verb and its object, for the message of a failure.

    Returns:
        What each call returned, in the order of ``arguments``.

    Raises:
        SidmillError: if a process failed, with the message of its own SidmillError where it has
            one.
    """
    environment = worker_environment(len(arguments))
    workers: list[Worker] = []
    exit_codes: list[int | None] = []

    # run until all processes have ended or one has failed; leave none behind, whatever happens
    try:
        for number, each in enumerate(arguments):
            request = json.dumps({"function": function, "arguments": each})
            workers.append(_start(number, request, environment))
        exit_codes = _wait(workers)
    finally:
        for worker in workers:
            _stop(worker)

    # the cause of a failure may be in a process that was still on its way out: replies come first
    replies = [_reply(worker) for worker in workers]
    for number, reply in enumerate(replies):
        if "error" in reply:
            raise _failure(number, len(workers), task, reply["error"])
    for number, code in enumerate(exit_codes):
        if code:
            raise _failure(number, len(workers), task, f"exit code {code}, see its lines above")
    return [reply["result"] for reply in replies]


def worker_environment(n_processes: int) -> dict[str, str]:
    """Return the environment of each process: its share of the threads, and the package's path."""
    shares = dict.fromkeys(threads.LIMITS, str(max(1, threads.granted() // n_processes)))
    search_path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **shares, "PYTHONPATH": search_path}


def main() -> None:
    """Run as one of the processes: read the request, call the function, write the reply."""
    request = json.loads(_read_request())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    # what libraries print goes to the log: standard output carries the reply alone
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as reply:
        os.dup2(2, 1)
        module, _, name = request["function"].partition(":")
        try:
            result = getattr(importlib.import_module(module), name)(**request["arguments"])
        except SidmillError as error:
            logger.error("%s", error)
            json.dump({"error": str(error)}, reply)
            reply.flush()
            sys.exit(MISTAKE)
        json.dump({"result": result}, reply)


def _start(number: int, request: str, environment: dict[str, str]) -> Worker:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],  # -P: no files of cwd
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    reply = bytearray()
    readers = [
        threading.Thread(target=_relay, args=(number, process.stderr), daemon=True),
        threading.Thread(target=_collect, args=(process.stdout, reply), daemon=True),
    ]
    for reader in readers:
        reader.start()

    # a process that has ended already is found by its exit code; the pipe stays open
    if process.stdin:
        with suppress(BrokenPipeError):
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
    return Worker(process, readers, reply)


def _wait(workers: list[Worker]) -> list[int | None]:
    """Return exit codes once all have ended or one has failed; None of those that still run."""
    while True:
        codes = [worker.process.poll() for worker in workers]
        if any(codes) or None not in codes:
            return codes
        time.sleep(POLL_S)


def _stop(worker: Worker) -> None:
    worker.process.kill()
    worker.process.wait()
    if worker.process.stdin:
        with suppress(BrokenPipeError):
            worker.process.stdin.close()
    for reader in worker.readers:
        reader.join(DRAIN_S)


def _relay(number: int, stream: IO[bytes]) -> None:
    with stream:
        for line in stream:
            logger.info("process %d: %s", number, line.decode(errors="replace").rstrip())


def _collect(stream: IO[bytes], reply: bytearray) -> None:
    with stream:
        for line in stream:
            reply.extend(line)


def _reply(worker: Worker) -> dict[str, Any]:
    """Return what a process replied; empty where it ended before it could."""
    try:
        reply: dict[str, Any] = json.loads(worker.reply)
    except ValueError:
        return {}
    return reply


def _failure(number: int, n_processes: int, task: str, reason: str) -> SidmillError:
    return SidmillError(
        f"process {number} of the {n_processes} that {task} failed: {reason}; what is done is "
        f"kept, run again"
    )


def _read_request() -> bytes:
    """Read the one line that the parent writes. ``sys.stdin`` would hold a lock at exit."""
    request = b""
    while not request.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            os._exit(ORPHANED)
        request += part
    return request


def _end_with_parent() -> None:
    os.read(0, 1)  # the parent writes nothing more: this returns when the pipe is closed
    os._exit(ORPHANED)
