"""The files of an interaction log, and which of the four forms they are in."""

from itertools import islice
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import catalogue
from sidmill.formats.interactions import TEST, TRAIN, VALID

SETTING = "interactions.path"
SPLIT_NAMES = {
    "train": TRAIN,
    "valid": VALID,
    "val": VALID,
    "validation": VALID,
    "dev": VALID,
    "test": TEST,
}
PROBED_ROWS = 100  # rows looked at to tell the form


def find(path: str | None) -> list[str]:
    """List the files behind ``interactions.path``; none for null.

    A folder may hold the files, or the folders train, valid and test that do.

    Raises:
        SidmillError: if there is no such file.
    """
    if path is None:
        return []
    if Path(path).is_dir():
        folders = [entry for entry in sorted(Path(path).iterdir()) if entry.name in SPLIT_NAMES]
        inner = [str(entry) for entry in folders if entry.is_dir()]
        if inner:
            return [file for entry in inner for file in expand(entry, catalogue.SUFFIXES, SETTING)]
    return expand(path, catalogue.SUFFIXES, SETTING)


def split_of(file: str) -> int | None:
    """The split that a file's folder, or the start of its name, says: train/x.jsonl, test.jsonl."""
    stem = Path(file).name.lower().split(".")[0]
    words = (Path(file).parent.name.lower(), stem, stem.split("-")[0], stem.split("_")[0])
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def form_of(files: list[str], fields: dict[str, str | None]) -> str:
    """Tell the form by the field names of the first readable row.

    Args:
        files: the files.
        fields: ``interactions.fields``, names that the user gave.

    Raises:
        SidmillError: if they fit no form.
    """
    rows = list(islice((row for file in files for row in catalogue.read(file)), PROBED_ROWS))
    found = next((set(row.fields) for row in rows if row.fields), set())
    if not found and rows:
        raise SidmillError(f"{files[0]}, row {rows[0].number}: {rows[0].problem}: mend the row")
    history, target, item = (fields[name] for name in ("history", "target", "item"))
    if "user_sequence" in found:
        return "missrec"
    if (history or "hist_video_pid") in found or (target or "target_video_pid") in found:
        return "onerec"
    if "item_ids" in found:
        return "sequences"
    if (item or "item_id") in found:
        return "events"
    raise SidmillError(
        f"{SETTING}: {files[0]} has the fields {', '.join(sorted(map(str, found))) or 'none'}, "
        f"which tell none of the forms missrec (user_sequence), sequences (item_ids), events "
        f"(item_id) and onerec (hist_video_pid): set interactions.format and interactions.fields"
    )
