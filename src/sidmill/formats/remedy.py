"""What mends a damaged file."""

from pathlib import Path

MANIFEST = "manifest.json"  # lies beside the files of a published version


def remedy(path: str | Path) -> str:
    """Say it: no run makes a file of a published version, or one that the user brought."""
    if Path(path).with_name(MANIFEST).exists():
        return "take another copy of that version"
    return "delete it and run again; one that no run makes here, replace by another copy"
