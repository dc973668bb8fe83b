"""The overlay of an imported data set: what its files need, and nothing else."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from sidmill.core import atomic
from sidmill.imports.content import Content
from sidmill.settings import base
from sidmill.settings.imported import Imported
from sidmill.settings.interactions import Interactions

FEW_ITEMS = 1000  # LSA needs fewer dimensions than words, and codebooks fewer codes than items
MANY_ITEMS = 100_000
MOST_ITEMS = 1_000_000


def settings_of(
    content: Content, settings: Imported, paths: dict[str, str], report: dict[str, Any]
) -> dict[str, Any]:
    """The sections of the overlay.

    Args:
        content: the data set.
        settings: how it was imported.
        paths: of items.parquet and interactions.parquet, as ``items`` and ``interactions``.
        report: what import.json contains: the items, by which codebook sizes are chosen, and the
            longest history, which the interactions stage has to allow.
    """
    split = settings.split
    if split == "auto":
        split = "given" if content.has_splits else "leave_two_out"
    sections: dict[str, Any] = {
        "items": {
            "path": paths["items"],
            "id_type": "string",
            "fields": list(content.fields),
            "on_bad_rows": "reject",
        },
        "interactions": {
            "path": paths["interactions"],
            "format": "sequences",
            "split": split,
            "on_unknown_items": "reject",
            "on_bad_rows": "reject",
        },
    }

    # What depends on the size of the data set.
    longest = report["log"]["longest_history"]
    if longest > Interactions().max_history:
        sections["interactions"]["max_history"] = longest
    return _sizes(report["items"]["written"], content) | sections


def how_it_was_made(settings: Imported) -> dict[str, Any]:
    """The section of the import itself, so that the rule is not taken for changed."""
    machine = base.machine_keys(Imported)
    values = {key: value for key, value in asdict(settings).items() if key not in machine}
    return {base.section_name(Imported): values}


def write(path: str | Path, sections: dict[str, Any], comments: list[str]) -> None:
    """Write an overlay, atomically.

    Args:
        path: the file.
        sections: of the configuration.
        comments: lines at its beginning.
    """
    lines = [f"# {line}".rstrip() for comment in comments for line in comment.splitlines()]
    text = yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=100)
    atomic.write_text(path, "\n".join([*lines, "", text]))


def _sizes(n_items: int, content: Content) -> dict[str, Any]:
    """Settings that follow from the number of items, merged with those of the data set."""
    sections: dict[str, Any] = {}
    if n_items < FEW_ITEMS:
        sections["embedding"] = {"dim": 16, "shards": 1}
        sections["rqkmeans"] = {"codebook_size": 2 ** max(1, int(math.log2(max(n_items, 4) / 4)))}
    elif n_items > MANY_ITEMS:
        sections["rqkmeans"] = {"codebook_size": 8192 if n_items > MOST_ITEMS else 2048}
    for name, values in (content.overlay or {}).items():
        sections[name] = sections.get(name, {}) | values
    return sections
