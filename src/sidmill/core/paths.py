"""A file, a folder or a glob, as a sorted list of files."""

from glob import glob
from pathlib import Path

from sidmill.core.errors import SidmillError

GLOB_CHARACTERS = "*?["
MADE_BY_RULES = "results"


def expand(path: str, suffixes: tuple[str, ...], setting: str) -> list[str]:
    """List the files behind ``path``, in sorted order.

    Args:
        path: one file, which may be missing only under ``results/``, where a rule makes it; a
            folder, whose files with one of ``suffixes`` are taken (hidden ones are not); or a glob,
            ``**`` included.
        suffixes: accepted endings, lower case, with the dot.
        setting: config key that holds ``path``, for the message.

    Raises:
        SidmillError: if there is no such file, or a name holds braces, which Snakemake takes for
            wildcards.
    """
    try:
        found = _find(path, suffixes, setting)
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        raise SidmillError(f"{setting}: no such file: {path!r:.200} ({error!s:.80})") from None
    braced = next((name for name in found if "{" in name or "}" in name), None)
    if braced:
        raise SidmillError(f"{setting}: {braced}: rename it, Snakemake cannot take braces in names")
    return found


def expand_to_one(path: str, suffixes: tuple[str, ...], setting: str) -> str:
    """Name the one file behind ``path``, which is not one that this workflow writes.

    Args:
        path: a file, or a folder or glob that holds one of ``suffixes``.
        suffixes: as of :func:`expand`.
        setting: config key that holds ``path``, for the message.

    Raises:
        SidmillError: if there is no such file, or more than one; or if it lies in ``results/``,
            where a rule would wait for its own result.
    """
    found = expand(path, suffixes, setting)
    if len(found) > 1:
        raise SidmillError(f"{setting}: {path!r} names {len(found)} files: name one of them")
    if Path(found[0]).resolve().is_relative_to(Path(MADE_BY_RULES).resolve()):
        raise SidmillError(
            f"{setting}: {found[0]} lies in {MADE_BY_RULES}/, which this run writes: copy it to "
            f"another folder, and name the copy"
        )
    return found[0]


def _find(path: str, suffixes: tuple[str, ...], setting: str) -> list[str]:
    if Path(path).is_dir():
        candidates = sorted(str(entry) for entry in Path(path).iterdir())
    elif Path(path).exists() or Path(path).parts[:1] == (MADE_BY_RULES,):
        return [path]
    elif not any(character in path for character in GLOB_CHARACTERS):
        raise SidmillError(f"{setting}: no such file: {path} (relative to {Path.cwd()})")
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
