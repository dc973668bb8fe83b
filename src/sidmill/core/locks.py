"""Locks that the system releases when the process that holds them ends, also when it is killed.

Snakemake's own lock is a set of files, which remain when a run is killed, so that the next run is
refused until a user unlocks the folder. Here every Snakemake process holds a shared lock until it
ends. A process that can get the exclusive lock is alone, and removes the remaining lock files. A
run also holds a lock of its own, and a job holds one on its JSON log, since jobs on a cluster may
outlive their run.

The locks work between machines if the file system supports them (NFS 4 does). Lock files of a run
on another machine are never removed, nor any on a file system without locks: there the user unlocks
the folder, as Snakemake says.
"""

import fcntl
import logging
import os
import socket
import sys
from pathlib import Path

from sidmill.core.errors import SidmillError

logger = logging.getLogger(__name__)

ALIVE, RUN = "sidmill.alive", "sidmill.run"  # in Snakemake's folder of state
_held: list[int] = []  # descriptors that stay open until this process ends


def take(descriptor: int, where_none: bool = True, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file until it is closed; return whether the lock was free.

    Args:
        descriptor: of the file.
        where_none: the answer on a file system without locks.
        kind: exclusive or shared.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return where_none
    return True


def enter(state: Path) -> None:
    """Hold the shared lock of a folder until this process ends.

    If no other process holds it, lock files of a killed run on this machine are removed. A folder
    that cannot be written is not changed.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
    """
    try:
        state.mkdir(exist_ok=True)
        descriptor = _open(state / ALIVE)
    except OSError:
        return
    _held.append(descriptor)

    # Who gets the exclusive lock is alone: files of Snakemake's lock are of a run that was killed.
    run = state / RUN
    host = run.read_text(encoding="utf-8") if run.exists() else socket.gethostname()
    if take(descriptor, where_none=False) and host == socket.gethostname():
        files = sorted(state.glob("locks/*.lock"))
        for file in files:
            file.unlink(missing_ok=True)
        if files:
            logger.warning("removed the lock of a run that did not end by itself")

    take(descriptor, kind=fcntl.LOCK_SH)


def hold_folder(state: Path) -> None:
    """Lock a folder of results for a run, until this process ends.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.

    Raises:
        SidmillError: if another run holds it.
    """
    descriptor = _open(state / RUN)
    if not take(descriptor):
        os.close(descriptor)
        raise SidmillError(
            f"another run is at work in {state.absolute().parent}: wait until it ends, or give "
            "this one a folder of its own with --directory NAME"
        )
    os.truncate(descriptor, 0)
    os.write(descriptor, socket.gethostname().encode())
    _held.append(descriptor)


def hold_file(path: Path, what: str) -> int:
    """Lock a file, created if it is missing, and return the descriptor that holds the lock.

    The refusal goes to the console: the log of the script belongs to the process with the lock.

    Raises:
        SystemExit: if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open(path)
    if take(descriptor):
        return descriptor
    os.close(descriptor)
    sys.exit(
        f"{path}: {what} of an earlier run, which was killed, is still at work: wait until it has "
        "ended or end it (on a cluster: cancel it), and run again"
    )


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
