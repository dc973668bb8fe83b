"""Which of the forms the files of an interaction log are in, and the splits they name."""

import dataclasses
import re
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.formats import log_rows
from sidmill.formats.log_rows import Dialect
from sidmill.formats.sequence_table import TEST, TRAIN, VALID
from sidmill.interactions.find import SETTING
from sidmill.settings.interactions import InteractionsFields

SPLIT_NAMES = {
    "train": TRAIN,
    "valid": VALID,
    "val": VALID,
    "validation": VALID,
    "dev": VALID,
    "test": TEST,
}
PROBED_ROWS = 100  # rows that decide what a column holds
NAME_SEPARATORS = re.compile(r"[._\-\s]+")
# The usual names of the fields that say what a row is; a row has one of them.
TELLING = {
    "missrec": ("user_sequence",),
    "onerec": ("hist_video_pid", "target_video_pid"),
    "sequences": ("item_ids",),
    "inter": ("item_id_list",),
    "events": ("item_id",),
}


def split_of(file: str, root: str | None = None) -> int | None:
    """The split that a file's folder says, or its name: train/x.jsonl, test.jsonl, X.train.csv.

    Args:
        file: the file.
        root: ``interactions.path``; of a folder, those between it and the file count too, the
            nearest first. Otherwise only the file's own folder counts.
    """
    folders = [Path(file).parent.name]
    if root is not None and Path(file).is_relative_to(root) and Path(root).is_dir():
        inner = Path(file).relative_to(root).parent.parts
        folders = [*reversed(inner), Path(root).resolve().name]
    for folder in folders:
        if folder.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[folder.lower()]
    parts = NAME_SEPARATORS.split(Path(file).name.lower())
    splits = {SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else None


def form_of(files: list[str], fields: InteractionsFields, dialect: Dialect) -> str:
    """Tell the form of an interaction log by the field names of each file's first readable row.

    Args:
        files: the files.
        fields: ``interactions.fields``, names that the user gave.
        dialect: how delimited text is written.

    Raises:
        SidmillError: if they fit no form, or files are of different forms.
    """
    forms: dict[str, str] = {}  # form to the first file of it
    problem = None
    for file in files:
        for row in log_rows.read(file, dialect, known_names(fields)):
            if row.fields:
                forms.setdefault(_form_of_row(file, list(row.fields), fields), file)
                break
            problem = problem or f"{file}, row {row.number}: {row.problem}: correct the row"
    if len(forms) > 1:
        (first, one), (second, other) = list(forms.items())[:2]
        raise SidmillError(
            f"{SETTING}: {one} holds {first}, {other} holds {second}: read files of one form at a "
            f"time, or set interactions.format"
        )
    if not forms and problem:
        raise SidmillError(problem)
    return next(iter(forms)) if forms else _form_of_row(files[0], [], fields)


def known_names(fields: InteractionsFields) -> set[str]:
    """Names that fields of a row have, the usual ones and those of the user."""
    usual = {"user_id", "uid", "timestamp", "timestamps", "split", "splits"}
    own = (name for name in dataclasses.astuple(fields) if name)
    return usual.union(*TELLING.values(), own)


def _form_of_row(file: str, found: list[str], fields: InteractionsFields) -> str:
    # The field that tells the form, the surest first.
    history, target, item = fields.history, fields.target, fields.item
    if "user_sequence" in found:
        return "missrec"
    if (history or "hist_video_pid") in found or (target or "target_video_pid") in found:
        return "onerec"
    if "item_ids" in found:
        return "sequences"
    if "item_id_list" in found:
        return "inter"
    if (item or "item_id") in found:
        return "events"

    # None of them: a file without a header line is the most frequent cause.
    hint = "set interactions.format and interactions.fields"
    if log_rows.is_table(file) and log_rows.looks_like_data(found):
        hint = (
            f"the first line looks like data; if the file has no header line, set "
            f"interactions.columns to the names of its {len(found)} columns"
        )
    raise SidmillError(
        f"{SETTING}: {file} has the fields {log_rows.shown(sorted(map(str, found))) or 'none'}, "
        f"which tell none of the forms missrec (user_sequence), sequences (item_ids), events "
        f"(item_id), inter (item_id_list) and onerec (hist_video_pid): {hint}"
    )
