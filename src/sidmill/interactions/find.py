"""The files of an interaction log; imports nothing large, because rule files list them."""

import os
from pathlib import Path

from sidmill.core.paths import expand
from sidmill.formats.file_names import LOGS

SETTING = "interactions.path"


def find(path: str | None) -> list[str]:
    """List the files behind ``interactions.path``; none for null.

    Of a folder all files are taken, those in folders inside it too; hidden ones, and those whose
    name begins with an underscore, are not.

    Raises:
        SidmillError: if there is no such file.
    """
    if path is None:
        return []
    if not Path(path).is_dir():
        return expand(path, LOGS, SETTING)
    found, seen = [], set()
    for folder, inner, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        inner[:] = sorted(name for name in inner if not name.startswith((".", "_")))
        if real in seen:  # a link to a folder above
            inner.clear()
            continue
        seen.add(real)
        if any(_is_log(name) for name in names):
            found += expand(folder, LOGS, SETTING)
    return found or expand(path, LOGS, SETTING)  # which says what is missing


def _is_log(name: str) -> bool:
    return name.lower().endswith(LOGS) and not name.startswith((".", "_"))
