"""Hold a folder of results against the documented formats, file by file and file against file."""

from pathlib import Path
from typing import NamedTuple

from sidmill.core.errors import SidmillError
from sidmill.formats import schemas
from sidmill.report.check import files, promises

DATA = {".parquet", ".npy", ".safetensors", ".h5", ".json", ".faiss"}


class Fault(NamedTuple):
    """What is wrong with a file, in words. ``path`` is relative to the folder."""

    path: str
    says: str


class Report(NamedTuple):
    """What was checked, and what is wrong.

    Attributes:
        files: paths that were held against their form.
        unknown: number of other files of data: they have no form here and were not checked.
        promises: between files, in words, that were checked.
        faults: in the order they were found; a faulty file is not compared with others.
    """

    files: list[str]
    unknown: int
    promises: list[str]
    faults: list[Fault]


def check(folder: str | Path, *, whole: bool = True) -> Report:
    """Check every file of a folder that has a form, then what files promise of each other.

    Memory: the ids of the items and 12 L bytes per SID; tables and vectors are read by blocks.

    Args:
        folder: of results, of a published version, or of files that were made elsewhere under the
            names of docs/formats.md.
        whole: read all rows; else of large files a part.

    Raises:
        SidmillError: if there is no such folder, or no file in it has a form.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SidmillError(f"{folder}: no such folder")

    # Each file against its form.
    known = {
        path: form
        for form in schemas.FORMS.values()
        for pattern in form.paths
        for path in sorted(folder.glob(pattern))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if not known:
        raise SidmillError(
            f"{folder}: no file of a known name: name a folder of results, or give your files the "
            f"names of docs/formats.md, such as pid2sid.parquet"
        )
    faults = []
    for path, form in known.items():
        says = files.fault(path, form, whole=whole)
        if says:
            faults.append(Fault(str(path.relative_to(folder)), says))

    # File against file, without those that are faulty themselves.
    broken = {folder / fault.path for fault in faults}
    sound = {str(path.relative_to(folder)): path for path in known if path not in broken}
    kept = []
    for promise in promises.find(sound):
        kept.append(promise.says)
        try:
            says = promise.fault()
        except SidmillError as error:
            says = _without_path(str(error), promise.path, folder)
        if says:
            faults.append(Fault(promise.path, says))
    names = [str(path.relative_to(folder)) for path in known]
    return Report(names, _count_unknown(folder, set(known)), kept, faults)


def _without_path(message: str, path: str, folder: Path) -> str:
    return message.removeprefix(f"{folder / path}: ")


def _count_unknown(folder: Path, known: set[Path]) -> int:
    """Files of data that were not checked; parts of a known folder were."""
    others = (path for path in folder.rglob("*") if path.is_file() and path.suffix in DATA)
    return sum(not known & {path, *path.parents} for path in others)
