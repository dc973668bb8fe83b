"""What became of every input row: the counts of all shards, and the limits that stop a run."""

from collections import Counter
from pathlib import Path
from typing import Any

from sidmill.core.errors import SidmillError
from sidmill.io import json_report
from sidmill.settings.datasets import Datasets

HEAD = ("read", "added", "written", "masks_of_other_length", "marks_of_other_value")


def total(paths: list[str], dataset: str, settings: Datasets) -> dict[str, Any]:
    """Add up the counts of all shards of a dataset.

    Args:
        paths: JSON files of the first pass.
        dataset: its name, for the message.
        settings: ``max_unknown_share`` limits item ids without a SID, as a share of those looked
            up for one field; ``max_left_out_share`` limits input rows of the split that gave no
            row, as a share of them, and items without a title, where a task names titles.

    Raises:
        SidmillError: if a share is above its limit.
    """
    # The sum over shards, also per reason and per field.
    head: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    fields: dict[str, Counter[str]] = {}
    for path in paths:
        counts = json_report.read(path)["counts"]
        head.update({key: counts[key] for key in HEAD})
        left_out.update(counts["left_out"])
        for name, of_field in counts["item_ids"].items():
            fields.setdefault(name, Counter()).update(of_field)

    # The limits: per field, then of whole rows.
    for name, of_field in sorted(fields.items()):
        _check_field(dataset, name, of_field, settings)
    n_rows = head["read"] + head["added"] - left_out["other_split"] - left_out["not_sampled"]
    share = 1 - head["written"] / max(n_rows, 1)
    reasons = dict(sorted(left_out.items()))
    if share > settings.max_left_out_share:
        raise SidmillError(
            f"{dataset}: {n_rows - head['written']} of {n_rows} rows ({share:.1%}) were left out "
            f"({reasons}): check the input, or raise datasets.max_left_out_share, now "
            f"{settings.max_left_out_share}"
        )

    item_ids = {name: dict(of_field) for name, of_field in sorted(fields.items())}
    return {**head, "left_out": reasons, "item_ids": item_ids}


def _check_field(dataset: str, name: str, counts: Counter[str], settings: Datasets) -> None:
    """Hold the item ids of one field against the limits."""
    seen, unknown, untitled = (counts[key] for key in ("seen", "unknown", "without_title"))
    share = unknown / max(seen, 1)
    if share > settings.max_unknown_share:
        raise SidmillError(
            f"{dataset}: {unknown} of {seen} item ids of {name!r} ({share:.1%}) have no SID: is "
            f"pid2sid.parquet of this catalogue? Else raise datasets.max_unknown_share, now "
            f"{settings.max_unknown_share}"
        )
    share = untitled / max(seen, 1)
    if share > settings.max_left_out_share:
        raise SidmillError(
            f"{dataset}: {untitled} of {seen} items of {name!r} ({share:.1%}) have no text: is "
            f"datasets.captions of this catalogue? Else raise datasets.max_left_out_share, now "
            f"{settings.max_left_out_share}"
        )


def combine(paths: list[str], lint_path: str | Path) -> dict[str, Any]:
    """The counts of all datasets, each with what the linter found in it."""
    found = json_report.read(lint_path)
    datasets = {}
    for path in paths:
        name = Path(path).stem
        datasets[name] = {**json_report.read(path), "lint": found["datasets"].get(name, {})}
    return {"datasets": datasets, "lint": {k: v for k, v in found.items() if k != "datasets"}}
