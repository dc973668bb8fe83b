"""A folder is replaced as a whole: at any moment its path holds the old one or the new one."""

import ctypes
import os
import shutil
from contextlib import suppress
from pathlib import Path

AT_FDCWD = -100  # of Linux: paths relative to the working folder
RENAME_EXCHANGE = 2  # flag of renameat2: swap two names


def replace_folder(new: str | Path, target: str | Path) -> None:
    """Replace a folder by renaming another to ``target``; the old one is removed afterwards.

    All files are flushed to disk first. Then Linux swaps the two names in one step, so a crash or a
    kill at any moment leaves the old folder or the new one at ``target``, whole. File systems
    without that step (some network ones) rename twice: between the two, the old folder has the name
    ``.NAME.old``. It gets its name back if the second rename fails; after a kill in between it is
    still there, whole, until the next call for ``target``.

    Args:
        new: a complete folder on the file system of ``target``.
        target: the path to replace, which may be missing.
    """
    new, target = Path(new), Path(target)
    for path in [*new.rglob("*"), new]:
        flush(path)
    if not target.exists():
        new.replace(target)
        flush(target.parent)
    elif _swap(new, target):
        flush(target.parent)
        shutil.rmtree(new)
    else:
        _rename_twice(new, target)
    shutil.rmtree(_old_name(target), ignore_errors=True)  # of a run that was killed


def _rename_twice(new: Path, target: Path) -> None:
    """Move the old folder to ``.NAME.old`` and the new one to ``target``."""
    old = _old_name(target)
    shutil.rmtree(old, ignore_errors=True)
    target.replace(old)
    try:
        new.replace(target)
    except BaseException:
        old.replace(target)
        raise
    flush(target.parent)


def _old_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _swap(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the C library or the file system cannot."""
    with suppress(AttributeError, OSError):
        rename = ctypes.CDLL(None).renameat2
        names = os.fsencode(one), os.fsencode(other)
        return bool(rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0)
    return False


def flush(path: Path) -> None:
    """Flush a file or the names in a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
