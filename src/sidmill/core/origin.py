"""Whose results a folder holds, so that a forgotten overlay does not replace them by the demo."""

from pathlib import Path

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError

NAME = "sidmill.catalogue"  # in Snakemake's folder of state
DEMO = "results/demo/items.jsonl"


def note(state: Path, catalogue: str) -> None:
    """Write down which catalogue the results beside ``state`` are made from."""
    write_text(state / NAME, catalogue)


def refuse_demo(state: Path, catalogue: str) -> None:
    """Stop a run of the demo over the results of another catalogue.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
        catalogue: ``items.path`` of this run.

    Raises:
        SidmillError: if that is the demo's and ``results/`` has items of another one.
    """
    record, made = state / NAME, state.absolute().parent / "results/items/text.parquet"
    if catalogue != DEMO or not record.exists() or not made.exists():
        return
    before = record.read_text(encoding="utf-8")
    if before != DEMO:
        raise SidmillError(
            f"results/ is made from {before}, and the demo would take its place: give the "
            "--configfile of that run again; or make the demo in another folder: --directory NAME"
        )
