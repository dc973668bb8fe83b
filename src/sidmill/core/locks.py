"""Locks that end with the process that holds them, however it ends.

Snakemake's own lock is a set of files, which stay when a run is killed: the next one is refused
until somebody unlocks. So every Snakemake here holds a shared lock while it lives, and one that
finds itself alone knows that files of Snakemake's lock are nobody's. A run holds a lock of its own
besides, and a job one on its JSON log, since on a cluster jobs may outlive their run.

Locks hold between machines where the file system carries them (NFS 4 does). Files of a lock that
another machine's run left are not touched, and where the file system has no locks none are:
Snakemake's rule stands then, to unlock by hand.
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
_held: list[int] = []  # descriptors that stay open as long as this process lives


def take(descriptor: int, where_none: bool = True, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file until it is closed; say whether that worked.

    Args:
        descriptor: of the file.
        where_none: what to say on a file system without locks.
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
    """Hold the shared lock of a folder until this process ends; alone, clear what a dead run left.

    A folder that cannot be written is left as it is.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
    """
    try:
        state.mkdir(exist_ok=True)
        descriptor = _open(state / ALIVE)
    except OSError:
        return
    _held.append(descriptor)
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
    """Lock a file, made if it is missing, and return the descriptor that holds the lock.

    A script has no way to say so in its log, which is another's: the message goes to the console.

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
