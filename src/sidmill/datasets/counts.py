"""What became of every input row: the counts of all shards, and the bounds that stop a run."""

from collections import Counter
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.io import json_report

HEAD = ("read", "added", "written", "masks_of_other_length", "marks_of_other_value")


def total(
    paths: list[str], dataset: str, *, max_unknown_share: float, max_left_out_share: float
) -> dict:
    """Add up the counts of all shards of a dataset.

    Args:
        paths: JSON files of the first pass.
        dataset: its name, for the message.
        max_unknown_share: item ids without a SID, as a share of those looked up for one field.
        max_left_out_share: input rows of the split that gave no row, as a share of them; and items
            without a title, where a task wants titles.

    Raises:
        SidmillError: if a share is above its bound, or no row is left.
    """
    head, left_out, fields = Counter(), Counter(), {}
    for path in paths:
        counts = json_report.read(path)["counts"]
        head.update({key: counts[key] for key in HEAD})
        left_out.update(counts["left_out"])
        for name, seen in counts["item_ids"].items():
            fields.setdefault(name, Counter()).update(seen)
    figures = {**head, "left_out": dict(sorted(left_out.items()))}
    figures["item_ids"] = {name: dict(seen) for name, seen in sorted(fields.items())}
    for name, seen in figures["item_ids"].items():
        share = seen["unknown"] / max(seen["seen"], 1)
        if share > max_unknown_share:
            raise SidmillError(
                f"{dataset}: {seen['unknown']} of {seen['seen']} item ids of {name!r} "
                f"({share:.1%}) have no SID: is pid2sid.parquet of this catalogue? Else raise "
                f"datasets.max_unknown_share, now {max_unknown_share}"
            )
        share = seen.get("without_title", 0) / max(seen["seen"], 1)
        if share > max_left_out_share:
            raise SidmillError(
                f"{dataset}: {seen['without_title']} of {seen['seen']} items of {name!r} "
                f"({share:.1%}) have no text: is datasets.captions of this catalogue? Else raise "
                f"datasets.max_left_out_share, now {max_left_out_share}"
            )
    wanted = head["read"] + head["added"] - left_out["other_split"] - left_out["not_sampled"]
    share = 1 - head["written"] / max(wanted, 1)
    if share > max_left_out_share:
        raise SidmillError(
            f"{dataset}: {wanted - head['written']} of {wanted} rows ({share:.1%}) were left out "
            f"({figures['left_out']}): check the input, or raise datasets.max_left_out_share, now "
            f"{max_left_out_share}"
        )
    return figures


def combine(paths: list[str], lint_path: str | Path) -> dict:
    """The counts of all datasets, each with what the linter found in it."""
    found = json_report.read(lint_path)
    datasets = {}
    for path in paths:
        name = Path(path).stem
        datasets[name] = {**json_report.read(path), "lint": found["datasets"].get(name, {})}
    return {"datasets": datasets, "lint": {k: v for k, v in found.items() if k != "datasets"}}
