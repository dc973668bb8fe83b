"""Run docs/tour.ipynb and store its outputs in it.

PYTHONPATH=.recipes python docs/tour.py

nbclient and a kernel are among the packages of ``make recipes``. Times and the like are left out,
so that the file changes only where a cell or its result does.
"""

import sys
from pathlib import Path

import nbformat

PATH = Path(__file__).resolve().parent / "tour.ipynb"


def run(notebook: nbformat.NotebookNode) -> None:
    """Run all cells in a new kernel of this Python, and put the outputs into the notebook."""
    from nbclient import NotebookClient

    client = NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False)
    client.execute(cwd=PATH.parent)
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of this machine
    nbformat.validate(notebook)


def main() -> None:
    """Write the outputs into the notebook."""
    notebook = nbformat.read(PATH, as_version=4)
    run(notebook)
    nbformat.write(notebook, PATH)
    print(f"{PATH}: {PATH.stat().st_size / 1024:.0f} KiB", file=sys.stderr)


if __name__ == "__main__":
    main()
