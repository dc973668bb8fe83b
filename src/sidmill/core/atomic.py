"""A file is either whole or absent."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FICLONE = 0x40049409  # ioctl of Linux: ``cp --reflink``


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path, and rename it to ``path`` if the block succeeds.

    The temporary file is flushed to disk before the rename and the folder after it, so a crash at
    any moment leaves the old file or the new one. Its name is fixed (``.NAME.partial``): the next
    run overwrites the file of a killed run, and no reader takes it for a result.

    Args:
        path: file to write. Its folder is created if it is missing.

    Yields:
        The temporary path, in the folder of ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        _flush(temporary, os.O_RDWR)
        temporary.replace(path)
        _flush(path.parent, os.O_RDONLY)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with line feeds, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def link_or_copy(source: str | Path, path: str | Path) -> None:
    """Give a file a second path, atomically.

    Where the file system allows (XFS, Btrfs, ...), the second file is a reflink: it shares the
    blocks of the first one, and no byte is read or written. Elsewhere the kernel copies the bytes.

    Either way the two are separate files: one can be deleted, touched or written, and the other
    stays as it is. A hard link is no substitute: Snakemake touches each output after its job, and
    the modification time of a hard link is that of the source, so every other rule that read the
    source would run again.

    Args:
        source: the file to reflink or copy.
        path: the second path. Its folder is made if it is missing.
    """
    with replacing(path) as temporary:
        with Path(source).open("rb") as original, temporary.open("wb") as clone:
            try:
                fcntl.ioctl(clone, FICLONE, original.fileno())
                return
            except OSError:  # other file system, or one without reflinks
                pass
        shutil.copyfile(source, temporary)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
