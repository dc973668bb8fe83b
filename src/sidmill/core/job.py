"""The few lines that every workflow script needs around its call into the library."""

import errno
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sidmill.core import locks
from sidmill.core.errors import SidmillError
from sidmill.core.logs import JsonLines, Lines, keep_attempt

# What the system refuses and an operator mends; no code is at fault.
MACHINE_TROUBLES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextmanager
def job(snakemake) -> Iterator[logging.Logger]:
    """Log to the rule's log file and to stderr; end a user's mistake without a traceback.

    Beside the log, ``NAME.log``, goes ``NAME.jsonl``: the same records as JSON lines, between one
    that says ``started`` and, unless the job is killed, one that says ``finished`` or ``failed``.
    Snakemake knows nothing of it, so that it shows the log of a failed job once. What both said of
    an attempt that failed or was killed stays as ``NAME.log.1`` and ``NAME.jsonl.1``.

    The JSON lines are locked as long as the job lives: a job that outlived its run, on a node of a
    cluster say, and the same job of the next run do not work side by side. (Snakemake removes the
    other log before a job begins, and a lock with it.)

    Args:
        snakemake: the object Snakemake puts in a script's namespace. ``log[0]`` must be declared.

    Yields:
        A logger named after the rule.
    """
    json_path = Path(snakemake.log[0]).with_suffix(".jsonl")
    lock = locks.hold_file(json_path, f"job {snakemake.rule}")
    with suppress(OSError):  # an old log is no reason to do nothing
        keep_attempt(snakemake.log[0])
    lines = logging.FileHandler(snakemake.log[0], mode="w", encoding="utf-8")
    console = logging.StreamHandler()
    json_lines = logging.FileHandler(json_path, mode="w", encoding="utf-8")
    for handler in (lines, console):
        handler.setFormatter(Lines())
    json_lines.setFormatter(JsonLines(snakemake.rule))
    logging.basicConfig(level=logging.INFO, handlers=[lines, console, json_lines], force=True)
    try:
        with _marked(json_lines, snakemake), _explained(snakemake.rule) as log:
            yield log
    finally:
        os.close(lock)


@contextmanager
def _marked(handler: logging.Handler, snakemake) -> Iterator[None]:
    """Say in the JSON lines alone that the job began, and how it ended."""

    def say(word: str, **fields) -> None:
        marked = {"name": snakemake.rule, "levelno": logging.INFO, "levelname": "INFO"}
        handler.handle(logging.makeLogRecord(marked | {"msg": word} | fields))

    began, outcome = time.monotonic(), "failed"
    wildcards = dict(getattr(snakemake, "wildcards", None) or {})
    threads = getattr(snakemake, "threads", None)
    say("started", wildcards=wildcards, threads=threads, host=socket.gethostname(), pid=os.getpid())
    try:
        yield
        outcome = "finished"
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
        say(outcome, seconds=round(time.monotonic() - began, 3), peak_mib=round(peak, 1))


@contextmanager
def _explained(rule: str) -> Iterator[logging.Logger]:
    """Log what goes wrong: a user's mistake and trouble of the machine without a traceback."""
    log = logging.getLogger(rule)
    try:
        yield log
    except SidmillError as error:
        log.error("%s", error)
        sys.exit(2)
    except OSError as error:
        if error.errno not in MACHINE_TROUBLES:
            log.exception("rule %s failed", rule)
            raise
        place = error.filename or f"output of rule {rule}"
        log.error("%s: %s: mend that and run again", place, os.strerror(error.errno))
        sys.exit(2)
    except Exception:
        log.exception("rule %s failed", rule)
        raise
