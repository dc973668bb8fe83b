"""The few lines that every workflow script needs around its call into the library.

A job is a short process: most of what it makes are the functions and classes of the modules that it
imports, which are never garbage. Python's collector would visit them again and again during the
imports, and take them apart one by one at the end: a third of the time of importing torch. In a
process that Snakemake started for a script it therefore waits until :func:`job` begins, and leaves
alone what was there before, and what is there at the end.
"""

import errno
import gc
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sidmill.core import locks
from sidmill.core.errors import SidmillError
from sidmill.core.logs import JsonLines, Lines, keep_attempt
from sidmill.core.no_pandas import without_pandas

# Refusals of the system, which an operator resolves; no code is at fault.
MACHINE_TROUBLES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)

# Snakemake puts its object in a script before the script's imports.
if hasattr(getattr(sys.modules["__main__"], "snakemake", None), "rule"):
    gc.disable()  # until the job begins


@contextmanager
def job(snakemake: Any) -> Iterator[logging.Logger]:
    """Log to the rule's log file and to stderr; end a user's mistake without a traceback.

    The folder of the log, ``NAME.log``, also gets ``NAME.jsonl``: the same records as JSON lines,
    from ``started`` to ``finished`` or ``failed`` (neither if the job is killed). It is not
    declared to Snakemake, which therefore prints the log of a failed job once. The logs of an
    attempt that failed or was killed are kept as ``NAME.log.1`` and ``NAME.jsonl.1``.

    A lock on ``NAME.jsonl`` is held until the process ends: a job that outlives its run, for
    instance on a node of a cluster, and the same job of the next run never run at the same time.
    (Snakemake removes ``NAME.log`` before a job begins, and with it any lock on that file.)

    Args:
        snakemake: the object Snakemake puts in a script's namespace. ``log[0]`` must be declared.

    Yields:
        A logger named after the rule.
    """
    # All modules are there: they are no garbage.
    gc.freeze()
    gc.enable()
    if "pyarrow" in sys.modules:
        without_pandas()

    # The lock comes first: the logs may belong to a job that still runs.
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
        gc.freeze()  # the process ends: the system takes back its memory at once


@contextmanager
def _marked(handler: logging.Handler, snakemake: Any) -> Iterator[None]:
    """Record in the JSON lines alone that the job began, and how it ended."""

    def log_event(event: str, **fields: object) -> None:
        marked = {"name": snakemake.rule, "levelno": logging.INFO, "levelname": "INFO"}
        handler.handle(logging.makeLogRecord(marked | {"msg": event} | fields))

    began, outcome = time.monotonic(), "failed"
    wildcards = dict(getattr(snakemake, "wildcards", None) or {})
    threads = getattr(snakemake, "threads", None)
    log_event(
        "started", wildcards=wildcards, threads=threads, host=socket.gethostname(), pid=os.getpid()
    )
    try:
        yield
        outcome = "finished"
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
        log_event(outcome, seconds=round(time.monotonic() - began, 3), peak_mib=round(peak, 1))


@contextmanager
def _explained(rule: str) -> Iterator[logging.Logger]:
    """Log errors: a user's mistake or a refusal of the system without a traceback."""
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
        path = error.filename or f"output of rule {rule}"
        log.error("%s: %s: resolve that and run again", path, os.strerror(error.errno))
        sys.exit(2)
    except Exception:
        log.exception("rule %s failed", rule)
        raise
