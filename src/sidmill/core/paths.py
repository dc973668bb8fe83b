"""A file, a folder or a glob, as a sorted list of files."""

from collections.abc import Iterable
from glob import glob
from pathlib import Path

from sidmill.core.errors import SidmillError

GLOB_CHARACTERS = "*?["
MADE_BY_RULES = "results"


def expand(path: str, suffixes: tuple[str, ...], setting: str) -> list[str]:
    """List the files behind ``path``, in sorted order.

    Args:
        path: one file, which may be missing only under ``results/``, where a rule makes it; a
            folder, for its files with one of ``suffixes`` that are not hidden; or a glob, also with
            ``**``.
        suffixes: accepted endings, in lower case, with the dot.
        setting: config key that holds ``path``, for the message.

    Raises:
        SidmillError: if there is no such file, or a name has braces, which are wildcards to
            Snakemake.
    """
    try:
        matches = _find(path, suffixes, setting)
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        raise SidmillError(f"{setting}: no such file: {path!r:.200} ({error!s:.80})") from None
    braced = next((name for name in matches if "{" in name or "}" in name), None)
    if braced:
        raise SidmillError(f"{setting}: {braced}: rename it, Snakemake cannot take braces in names")
    return matches


def expand_one(
    path: str, setting: str, suffixes: tuple[str, ...] = ("",), *, foreign: bool = False
) -> str:
    """The one file behind ``path``, under the rules of :func:`expand`.

    Args:
        path: a file, or a folder or glob that holds one file.
        setting: config key that holds ``path``, for the message.
        suffixes: endings of the file, in lower case; the default takes any file, and no folder.
        foreign: refuse a file in ``results/``, where a rule would wait for its own result.

    Raises:
        SidmillError: as :func:`expand`; if there is more than one file, or it lies in ``results/``.
    """
    is_folder = suffixes == ("",) and Path(path).is_dir()
    matches = [] if is_folder else expand(path, suffixes, setting)
    if len(matches) != 1:
        actual = f"{len(matches)} files" if matches else "a folder"
        raise SidmillError(f"{setting}: {path!r} is {actual}: name one file")
    if foreign and Path(matches[0]).resolve().is_relative_to(Path(MADE_BY_RULES).resolve()):
        raise SidmillError(
            f"{setting}: {matches[0]} lies in {MADE_BY_RULES}/, which this run writes: copy it to "
            f"another folder, and name the copy"
        )
    return matches[0]


def files_of(folder: str) -> list[str]:
    """All files below a folder, sorted, without hidden files and folders such as ``.git``.

    A rule that reads a folder declares its files: Snakemake compares the time of the folder alone,
    which does not change when a file inside it does.
    """
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    visible = (
        path
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return sorted(map(str, visible))


def _find(path: str, suffixes: tuple[str, ...], setting: str) -> list[str]:
    """The files behind ``path``, as :func:`expand` describes them."""
    if Path(path).is_dir():
        candidates = sorted(str(entry) for entry in Path(path).iterdir())
    elif Path(path).exists() or Path(path).parts[:1] == (MADE_BY_RULES,):
        return [path]
    elif not any(character in path for character in GLOB_CHARACTERS):
        raise SidmillError(f"{setting}: no such file: {path} (relative to {Path.cwd()})")
    else:
        candidates = sorted(glob(path, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern

    # Hidden files, and those that tools mark as unfinished or private, are no input.
    matches = [
        name
        for name in candidates
        if name.lower().endswith(suffixes)
        and not Path(name).name.startswith((".", "_"))
        and Path(name).is_file()
    ]
    if not matches:
        raise SidmillError(
            f"{setting}: no file matches {path!r}: expected at least one ending in "
            f"{', '.join(suffixes)} (paths are relative to {Path.cwd()})"
        )
    return matches


def refuse_overwrite(
    out: str | Path, sources: Iterable[str | Path | None], option: str = "--out"
) -> None:
    """Refuse an output that is an input, lies inside an input folder, or contains an input.

    Links count as their targets, and a hard link as the file.

    Args:
        out: the file or folder to write.
        sources: files, folders or globs that are read. Names that do not exist, such as the name of
            a model on a hub, and None do not count.
        option: that names ``out``, for the message.

    Raises:
        SidmillError: naming both.
    """
    target = Path(out).resolve()
    for source in (source for source in sources if source):
        # A name that does not exist may be a glob.
        names = [str(source)]
        if not Path(source).exists() and any(one in str(source) for one in GLOB_CHARACTERS):
            names = glob(str(source), recursive=True)  # noqa: PTH207 - as above

        for name in (name for name in names if Path(name).exists()):
            read = Path(name).resolve()
            is_inside = Path(name).is_dir() and target.is_relative_to(read)
            is_around = read.is_relative_to(target)
            is_linked = target.exists() and target.samefile(read)
            if is_inside or is_around or is_linked:
                raise SidmillError(
                    f"{option} is {out}, where {name} is read from: name another file"
                )
