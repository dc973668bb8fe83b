"""JSON of figures: ``quality.json`` and the small reports that rules leave."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.io.remedy import remedy


def write(path: str | Path, figures: Mapping[str, Any]) -> None:
    """Write figures as indented JSON, keys in the order given.

    Raises:
        ValueError: if a figure is NaN or infinite, which JSON cannot say.
    """
    write_text(path, json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read(path: str | Path) -> dict[str, Any]:
    """Read a JSON file of figures.

    Raises:
        SidmillError: if the file is missing or no JSON object.
    """
    try:
        figures = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise SidmillError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise SidmillError(f"{path}: not JSON ({error}): {remedy(path)}") from None
    if not isinstance(figures, dict):
        raise SidmillError(
            f"{path}: a JSON {type(figures).__name__}, wanted an object: {remedy(path)}"
        )
    return figures
