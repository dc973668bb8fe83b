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
LEFT_ALONE = 4  # exit code after the end of another process, which is the cause
CAUSE_S = 5  # for the process that is the cause to end, after those that it left alone


class PeerEndedError(SidmillError):
    """Another process of the same task has ended: its message is the one to read."""


class Worker(NamedTuple):
    """One started process, the threads that read its pipes, and its reply so far."""

    process: subprocess.Popen[bytes]
    readers: list[threading.Thread]
    reply: bytearray


class Launcher(NamedTuple):
    """A program that starts the processes in place of this one, on other machines too.

    Attributes:
        command: it starts what follows it in every process, and passes its standard input to all.
        n_processes: how many it starts; they find out their numbers in their environment.
    """

    command: Sequence[str]
    n_processes: int


def run(
    function: str,
    arguments: Sequence[Mapping[str, object]],
    *,
    task: str,
    launcher: Launcher | None = None,
) -> list[Any]:
    """Call a function in one process per entry of ``arguments``, all at the same time.

    The threads of this process, by ``OMP_NUM_THREADS`` or its cores, are shared out evenly. What a
    process writes to its standard error or prints becomes log lines of this one. The first process
    that fails ends the others.

    Args:
        function: ``module:function``; it takes an entry of ``arguments`` as keyword arguments and
            returns JSON.
        arguments: per process, JSON.
        task: what the processes do, as a verb and its object, for the message of a failure.
        launcher: starts all processes; each gets the one entry of ``arguments``, and all threads.

    Returns:
        What each call returned, in the order of ``arguments``; of a launcher's processes what the
        first that ended returned.

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
            workers.append(_start(number, request, environment, launcher))
        exit_codes = _wait(workers)
    finally:
        for worker in workers:
            _stop(worker)

    # the cause of a failure may be in a process that was still on its way out: replies come first
    replies = [_reply(worker) for worker in workers]
    for number, reply in enumerate(replies):
        if "error" in reply:
            raise _failure(number, len(workers), task, reply["error"], launcher)
    causes = [number for number, code in enumerate(exit_codes) if code]
    for number in sorted(causes, key=lambda number: exit_codes[number] == LEFT_ALONE):
        code = exit_codes[number]
        if code:
            reason = f"exit code {code}, see its lines above"
            raise _failure(number, len(workers), task, reason, launcher)
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
        except PeerEndedError as error:
            logger.error("%s", error)
            sys.exit(LEFT_ALONE)
        except SidmillError as error:
            logger.error("%s", error)
            reply.write(json.dumps({"error": str(error)}) + "\n")
            reply.flush()
            sys.exit(MISTAKE)
        reply.write(json.dumps({"result": result}) + "\n")


def _start(
    number: int, request: str, environment: dict[str, str], launcher: Launcher | None
) -> Worker:
    prefix = launcher.command if launcher else ()
    worker = f"from {__name__} import main; main()"
    process = subprocess.Popen(
        [*prefix, sys.executable, "-P", "-c", worker],  # -P: no files of cwd
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
    deadline = float("inf")  # for the cause, once a process was left alone
    while True:
        codes = [worker.process.poll() for worker in workers]
        if None not in codes or set(codes) - {None, 0, LEFT_ALONE} or time.monotonic() > deadline:
            return codes
        if LEFT_ALONE in codes:
            deadline = min(deadline, time.monotonic() + CAUSE_S)
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
    """Return what a process replied; empty where it ended before it could.

    Processes of a launcher reply one line each: an error comes first.
    """
    replies = []
    for line in worker.reply.splitlines():
        with suppress(ValueError):
            replies.append(json.loads(line))
    replies.sort(key=lambda reply: "error" not in reply)
    return replies[0] if replies else {}


def _failure(
    number: int, n_processes: int, task: str, reason: str, launcher: Launcher | None
) -> SidmillError:
    which = f"process {number} of the {n_processes} that {task}"
    if launcher is not None:
        which = f"one of the {launcher.n_processes} processes that {task}"
    return SidmillError(f"{which} failed: {reason}; what is done is kept, run again")


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
