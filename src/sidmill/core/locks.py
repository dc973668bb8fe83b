"""Locks that end with the process that holds them, however it ends.

A run holds one on its folder of results. Snakemake's own lock is a set of files, which stay when a
run is killed: the next one is refused until somebody unlocks. A run that finds the kernel's lock
free knows that those files are nobody's. A job holds one on its JSON log, since on a cluster jobs
may outlive the run that submitted them.

Locks hold between machines where the file system carries them (NFS 4 does). Where it has none,
each counts as taken, and Snakemake's rule stands: unlock by hand.
"""

import fcntl
import logging
import os
import sys
from pathlib import Path

from sidmill.core.errors import SidmillError

logger = logging.getLogger(__name__)

NAME = "sidmill.lock"  # in Snakemake's folder of state
_held: list[int] = []  # descriptors that stay open as long as this process lives


def take(descriptor: int, where_none: bool = True) -> bool:
    """Lock an open file until it is closed; say whether that worked.

    Args:
        descriptor: of the file.
        where_none: what to say on a file system without locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return where_none
    return True


def hold_folder(state: Path) -> None:
    """Lock a folder of results until this process ends.

    Args:
        state: Snakemake's folder of state in it, ``.snakemake``.

    Raises:
        SidmillError: if another run holds it.
    """
    descriptor = os.open(state / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    if not take(descriptor):
        os.close(descriptor)
        raise SidmillError(
            f"another run is at work in {state.absolute().parent}: wait until it ends, or give "
            "this one a folder of its own with --directory"
        )
    _held.append(descriptor)


def hold_file(path: Path, what: str) -> int:
    """Lock a file, made if it is missing, and return the descriptor that holds the lock.

    A script has no way to say so in its log, which is another's: the message goes to the console.

    Raises:
        SystemExit: if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if take(descriptor):
        return descriptor
    os.close(descriptor)
    sys.exit(
        f"{path}: {what} of an earlier run, which was killed, is still at work: wait until it has "
        "ended or end it (on a cluster: cancel it), and run again"
    )


def clear_stale(state: Path) -> None:
    """Remove the files of Snakemake's lock if no run is alive to hold them."""
    files = sorted(state.glob("locks/*.lock"))
    if not files:
        return
    descriptor = os.open(state / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if take(descriptor, where_none=False):
            for file in files:
                file.unlink(missing_ok=True)
            logger.warning("removed the lock of a run that did not end by itself")
    finally:
        os.close(descriptor)
