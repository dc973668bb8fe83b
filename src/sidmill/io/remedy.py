"""What a user can do about a damaged file."""

from pathlib import Path

MANIFEST = "manifest.json"  # lies beside the files of a published version
MADE_BY_RULES = "results"


def remedy(path: str | Path) -> str:
    """Say how to replace a damaged file, which depends on whether a run of SIDMill makes it.

    Nobody is told to delete what lies outside of ``results/``.
    """
    if Path(path).with_name(MANIFEST).exists():
        return "take another copy of that version"
    if MADE_BY_RULES not in Path(path).resolve().parts:
        return "replace it by another copy"
    return "delete it and run again; one that no run makes here, replace by another copy"
