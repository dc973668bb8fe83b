"""A file is either whole or absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sidmill.core import locks
from sidmill.core.errors import SidmillError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; take its place when the block ends well.

    The temporary file is flushed to disk before the rename and the folder after it, so a crash at
    any moment leaves the old file or the new one. Its name is fixed (``.NAME.partial``): what a
    killed run left is overwritten by the next one, never taken for a result. It is locked while it
    is written: a job that outlived its run, on a node of a cluster say, and the job of the next run
    do not write into one file.

    Args:
        path: file to write. Its folder is made if it is missing.

    Yields:
        The path to write to, in the same folder.

    Raises:
        SidmillError: if another process is writing the same file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    descriptor = _locked(temporary)
    try:
        yield temporary
        _flush(temporary, os.O_RDWR)
        temporary.replace(path)
        _flush(path.parent, os.O_RDONLY)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with line feeds, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _locked(temporary: Path) -> int:
    """Make the file, and return a descriptor that holds a lock on it until it is closed."""
    while True:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
        if not locks.take(descriptor):
            os.close(descriptor)
            raise SidmillError(
                f"{temporary}: another process is writing here, such as a job of a run that was "
                "killed: end it or wait for it, and run again"
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), temporary.stat()):
                return descriptor
        os.close(descriptor)  # its owner put it in place between our two calls


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
