"""Write docs/schemas: the schema of each file format as JSON, from sidmill.formats.schemas.

python docs/schemas.py
"""

import json
from pathlib import Path

from sidmill.formats.schemas import FORMS, as_json

FOLDER = Path(__file__).resolve().parent / "schemas"


def main() -> None:
    """Write a file for each form, and remove those of forms that are gone."""
    FOLDER.mkdir(exist_ok=True)
    written = texts()
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for path in FOLDER.glob("*.json"):
        if path.name not in written:
            path.unlink()


def texts() -> dict[str, str]:
    """Name and content of each file."""
    return {
        f"{name}.json": json.dumps(as_json(name), indent=2, ensure_ascii=False) + "\n"
        for name in FORMS
    }


if __name__ == "__main__":
    main()
