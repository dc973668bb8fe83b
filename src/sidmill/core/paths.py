"""A file, a folder or a glob, as a sorted list of files."""

from glob import glob
from pathlib import Path

from sidmill.core.errors import SidmillError

GLOB_CHARACTERS = "*?["


def expand(path: str, suffixes: tuple[str, ...], setting: str) -> list[str]:
    """List the files behind ``path``, in sorted order.

    Args:
        path: one file, kept as it is whether or not it exists yet; a folder, whose files with one
            of ``suffixes`` are taken (hidden ones are not); or a glob, ``**`` included.
        suffixes: accepted endings, lower case, with the dot.
        setting: config key that holds ``path``, for the message.

    Raises:
        SidmillError: if a folder or a glob holds no such file.
    """
    if Path(path).is_dir():
        candidates = sorted(str(entry) for entry in Path(path).iterdir())
    elif Path(path).exists() or not any(character in path for character in GLOB_CHARACTERS):
        return [path]
    else:
        candidates = sorted(glob(path, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    found = [
        name
        for name in candidates
        if name.lower().endswith(suffixes)
        and not Path(name).name.startswith((".", "_"))
        and Path(name).is_file()
    ]
    if not found:
        raise SidmillError(
            f"{setting}: no file matches {path!r}: expected at least one ending in "
            f"{', '.join(suffixes)} (paths are relative to {Path.cwd()})"
        )
    return found
