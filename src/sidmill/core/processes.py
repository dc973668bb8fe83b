"""Processes of one machine that share a task: they start together and end together.

``run("module:function", arguments, task=...)`` calls the function in one process per entry of
``arguments``. Arguments and results are JSON and go through pipes, so that no setting stands on a
command line or in a file.

The processes are forks of a server, which imports the modules that they need once: importing torch
takes a second of CPU and 190 MiB. The server is a new Python, whose environment is that of the
processes from its start. When it forks it has imported modules and done nothing else: no thread of
its own runs, and no GPU is in use.

A process ends with the one that called :func:`run`, however that one dies: it holds the reading end
of a pipe that the kernel closes even after a SIGKILL. No GPU stays taken by a job that is gone.
"""

import atexit
import gc
import importlib
import itertools
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, TypeAlias

from sidmill.core import threads
from sidmill.core.errors import SidmillError

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).parents[2]  # the folder that the package lies in
DRAIN_S = 10  # for reading what ended processes wrote
MISTAKE = 2  # exit code after a SidmillError
ORPHANED = 3  # exit code after the end of the parent; nobody reads it
LEFT_ALONE = 4  # exit code after the end of another process, which is the cause
CAUSE_S = 5  # for the process that is the cause to end, after those that it left alone
STDIN, STDOUT, STDERR = 0, 1, 2


class PeerEndedError(SidmillError):
    """Another process of the same task has ended: its message is the one to read."""


class Launcher(NamedTuple):
    """A program that starts the processes in place of this one, on other machines too.

    Attributes:
        command: it starts what follows it in every process, and passes its standard input to all.
        n_processes: how many it starts; they find out their numbers in their environment.
    """

    command: Sequence[str]
    n_processes: int


class Inherited(NamedTuple):
    """What the processes have from the start, besides their arguments.

    Attributes:
        modules: imported once, before the processes are forked. The module of the function always
            is.
        files: descriptors of open files and sockets that the processes use under the same numbers.
    """

    modules: Sequence[str] = ()
    files: Sequence[int] = ()


NOTHING = Inherited()


class _Pipes(NamedTuple):
    """What a process writes to, by descriptor."""

    reply: int
    lines: int


# Number and exit code of processes that have ended; the number None stands for all others.
Ends: TypeAlias = "queue.SimpleQueue[tuple[int | None, int]]"


class _Started(NamedTuple):
    """The server or the launcher, what reads its pipes, and what was read of them."""

    program: subprocess.Popen[bytes]
    readers: list[threading.Thread]
    ends: Ends
    replies: list[bytearray]
    is_server: bool


def run(
    function: str,
    arguments: Sequence[Mapping[str, object]],
    *,
    task: str,
    launcher: Launcher | None = None,
    inherited: Inherited = NOTHING,
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
        inherited: what the processes have from the start; of it, those of a launcher get nothing.

    Returns:
        What each call returned, in the order of ``arguments``; of a launcher's processes what the
        first that ended returned.

    Raises:
        SidmillError: if a process failed, with the message of its own SidmillError where it has
            one.
    """
    environment = worker_environment(len(arguments))
    open_standard_streams()
    started = None
    exit_codes: list[int | None] = []

    # run until all processes have ended or one has failed; leave none behind, whatever happens
    try:
        if launcher:
            started = _launch(function, arguments[0], environment, launcher)
        else:
            started = _serve(function, arguments, environment, inherited)
        exit_codes = _wait(started.ends, len(arguments))
    finally:
        if started:
            _stop(started)

    # the cause of a failure may be in a process that was still on its way out: replies come first
    replies = [_reply(each) for each in started.replies]
    for number, reply in enumerate(replies):
        if "error" in reply:
            raise _failure(number, len(replies), task, reply["error"], launcher)
    causes = [number for number, code in enumerate(exit_codes) if code]
    for number in sorted(causes, key=lambda number: exit_codes[number] == LEFT_ALONE):
        reason = f"exit code {exit_codes[number]}, see its lines above"
        raise _failure(number, len(replies), task, reason, launcher)

    # A library may end a process with exit code 0, as sys.exit() does.
    for number, reply in enumerate(replies):
        if "result" not in reply:
            reason = "it ended without a result, see its lines above"
            raise _failure(number, len(replies), task, reason, launcher)
    return [reply["result"] for reply in replies]


def open_standard_streams() -> None:
    """Open the null device in place of standard streams that are closed in this process.

    Pipes and sockets opened later would take their descriptors, and new processes close these.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest descriptor that is free


def worker_environment(n_processes: int) -> dict[str, str]:
    """Return the environment of each process: its share of the threads, and the package's path."""
    shares = dict.fromkeys(threads.LIMITS, str(max(1, threads.granted() // n_processes)))
    search_path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **shares, "PYTHONPATH": search_path}


def main() -> None:
    """Run as the server or as a process of a launcher: read the request, and do what it says."""
    # Where the parent ignores this signal, the kernel would report no process that ends.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    # What libraries print goes to the log: standard output carries what the parent reads alone.
    answers = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    request = json.loads(_read_request())
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    # Modules are no garbage: the collector looks at them neither now nor later.
    gc.disable()
    module = request["function"].partition(":")[0]
    for name in [module, *request["modules"]]:
        importlib.import_module(name)
    gc.freeze()

    # The server forks here; what follows is done by its processes.
    arguments = request["arguments"]
    if request["pipes"]:
        number = _fork([_Pipes(*each) for each in request["pipes"]], answers)
        arguments = arguments[number]
    gc.enable()
    _end(_work(request["function"], arguments, answers))


def _fork(pipes: list[_Pipes], answers: int) -> int:
    """Fork the processes, and return its number to each; the server ends when they have ended.

    The server writes ``[number, exit code]``, a line, for each process that has ended. In a process
    ``answers`` is the pipe of its reply.
    """
    if _is_closed():  # the parent has ended during the imports
        os._exit(ORPHANED)

    # Python 3.12 warns of any thread. Those of OpenBLAS and of Arrow's allocator have hooks for it.
    warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
    numbers = {}
    for number, own in enumerate(pipes):
        pid = os.fork()
        if not pid:
            os.dup2(own.reply, answers, inheritable=False)
            os.dup2(own.lines, STDOUT)
            os.dup2(own.lines, STDERR)
            _close(pipes)
            return number
        numbers[pid] = number

    # The parent reads to the end of pipes: only the process itself has its own open.
    _close(pipes)
    reaping = threading.Lock()
    _thread(_kill_with_parent, numbers, reaping)
    all_done = True
    while numbers:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        with reaping:  # until it is reaped, no other process can have its number
            _, status = os.waitpid(ended.si_pid, 0)
            end = [numbers.pop(ended.si_pid), os.waitstatus_to_exitcode(status)]
        with suppress(BrokenPipeError):  # the parent has ended
            os.write(answers, json.dumps(end).encode() + b"\n")
        all_done = all_done and not end[1]
    if not all_done or _is_closed():
        os.killpg(0, signal.SIGKILL)  # this process, and programs that the others have started
    os._exit(0)


def _kill_with_parent(numbers: Mapping[int, int], reaping: threading.Lock) -> None:
    """Kill the processes of a server, by their ids, when the parent closes the pipe or ends."""
    os.read(STDIN, 1)
    with reaping:
        for pid in numbers:
            os.kill(pid, signal.SIGKILL)


def _work(function: str, arguments: Mapping[str, object], answers: int) -> int:
    """Call the function, write the reply, and return the exit code of this process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    module, _, name = function.partition(":")
    with os.fdopen(answers, "w", encoding="utf-8") as reply:
        try:
            result = getattr(importlib.import_module(module), name)(**arguments)
            reply.write(json.dumps({"result": result}) + "\n")
        except PeerEndedError as error:
            logger.error("%s", error)
            return LEFT_ALONE
        except SidmillError as error:
            logger.error("%s", error)
            reply.write(json.dumps({"error": str(error)}) + "\n")
            return MISTAKE
        except Exception:
            sys.excepthook(*sys.exc_info())
            return 1
    return 0


def _end(exit_code: int) -> NoReturn:
    """End this process, without taking its modules apart as Python does.

    That would write to all memory that it shares with the others, and so copy it. Threads that
    still run are not waited for.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(exit_code)


def _serve(
    function: str,
    arguments: Sequence[Mapping[str, object]],
    environment: dict[str, str],
    inherited: Inherited,
) -> _Started:
    """Start the server of the processes."""
    # Two pipes per process; the server passes their writing ends on.
    pairs = [(os.pipe(), os.pipe()) for _ in arguments]
    pipes = [_Pipes(reply[1], lines[1]) for reply, lines in pairs]
    request = {
        "function": function,
        "arguments": list(arguments),
        "modules": list(inherited.modules),
        "pipes": pipes,
    }
    try:
        program = subprocess.Popen(
            _command(),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[*itertools.chain(*pipes), *inherited.files],
            process_group=0,  # what its processes start can be ended with them
        )
    finally:
        _close(pipes)

    # Threads read the pipes: the ends of processes, and of each one its reply and its lines.
    ends: Ends = queue.SimpleQueue()
    replies = [bytearray() for _ in arguments]
    readers = [
        _thread(_collect_ends, program, ends),
        _thread(_relay, "server of the processes", program.stderr),
    ]
    for number, (reply, lines) in enumerate(pairs):
        readers.append(_thread(_collect, os.fdopen(reply[0], "rb"), replies[number]))
        readers.append(_thread(_relay, f"process {number}", os.fdopen(lines[0], "rb")))
    _ask(program, request)
    return _Started(program, readers, ends, replies, is_server=True)


def _launch(
    function: str,
    arguments: Mapping[str, object],
    environment: dict[str, str],
    launcher: Launcher,
) -> _Started:
    """Start the program that starts the processes."""
    request = {"function": function, "arguments": arguments, "modules": [], "pipes": []}
    program = subprocess.Popen(
        [*launcher.command, *_command()],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    ends: Ends = queue.SimpleQueue()
    reply = bytearray()
    readers = [
        _thread(_collect, program.stdout, reply),
        _thread(_relay, "process 0", program.stderr),
        _thread(_collect_last, program, ends),
    ]
    _ask(program, request)
    return _Started(program, readers, ends, [reply], is_server=False)


def _command() -> list[str]:
    worker = f"from {__name__} import main; main()"
    return [sys.executable, "-P", "-c", worker]  # -P: no files of cwd


def _thread(function: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def _ask(program: subprocess.Popen[bytes], request: Mapping[str, object]) -> None:
    """Write the request. A program that has ended is found by its exit code; the pipe stays."""
    if program.stdin:
        with suppress(BrokenPipeError):
            program.stdin.write(json.dumps(request).encode() + b"\n")
            program.stdin.flush()


def _wait(ends: Ends, n_processes: int) -> list[int | None]:
    """Return exit codes once all have ended or one has failed; None of those that still run."""
    codes: list[int | None] = [None] * n_processes
    deadline = None  # for the cause, once a process was left alone
    while None in codes and not set(codes) - {None, 0, LEFT_ALONE}:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            number, ended = ends.get(timeout=remaining)
        except queue.Empty:
            return codes
        if number is None:
            codes = [ended if code is None else code for code in codes]
        else:
            codes[number] = ended
        if LEFT_ALONE in codes and deadline is None:
            deadline = time.monotonic() + CAUSE_S
    return codes


def _stop(started: _Started) -> None:
    """End the server or the launcher, and all processes."""
    program = started.program
    if not started.is_server and program.poll() is None:
        program.kill()

    # A server ends its processes when the pipe is closed; those of one that is gone end themselves.
    if program.stdin:
        with suppress(BrokenPipeError):
            program.stdin.close()
    try:
        program.wait(DRAIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()

    # A pipe stays open as long as a program that a process has started runs.
    deadline = time.monotonic() + DRAIN_S
    for reader in started.readers:
        reader.join(max(0.0, deadline - time.monotonic()))


def _collect_ends(program: subprocess.Popen[bytes], ends: Ends) -> None:
    """Collect the ends that a server reports, and its own."""
    if program.stdout:
        with program.stdout as stream:
            for line in stream:
                ends.put(tuple(json.loads(line)))
    _collect_last(program, ends)


def _collect_last(program: subprocess.Popen[bytes], ends: Ends) -> None:
    ends.put((None, program.wait()))


def _relay(source: str, stream: IO[bytes]) -> None:
    with stream:
        for line in stream:
            logger.info("%s: %s", source, line.decode(errors="replace").rstrip())


def _collect(stream: IO[bytes], reply: bytearray) -> None:
    with stream:
        for line in stream:
            reply.extend(line)


def _reply(written: bytearray) -> dict[str, Any]:
    """Return what a process replied; empty where it ended before it could.

    Processes of a launcher reply one line each: an error comes first.
    """
    replies = []
    for line in written.splitlines():
        with suppress(ValueError):
            replies.append(json.loads(line))
    replies.sort(key=lambda reply: "error" not in reply)
    return replies[0] if replies else {}


def _close(pipes: Sequence[_Pipes]) -> None:
    for each in pipes:
        for descriptor in each:
            os.close(descriptor)


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
        part = os.read(STDIN, 1 << 16)
        if not part:
            os._exit(ORPHANED)
        request += part
    return request


def _is_closed() -> bool:
    """Whether the parent has closed the pipe or ended. It writes nothing after the request."""
    return bool(select.select([STDIN], [], [], 0)[0])


def _end_with_parent() -> None:
    os.read(STDIN, 1)  # this returns when the pipe is closed
    os._exit(ORPHANED)
