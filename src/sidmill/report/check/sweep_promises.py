"""What the files of a sweep promise of each other: metrics, tokenizers, the winner."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sidmill.formats import user_metrics
from sidmill.io import json_report
from sidmill.report.check.promise import Paths, Promise

SWEEP = "sweep/sweep.json"
TOLERANCE = 1e-6  # relative: the mean of sums against the mean of a seed's means
NO_FUSION = "none"


def fusion_of(folder: str) -> str | None:
    """Of ``sweep/quantizer.shape.fusion`` the fusion; None for folders of a run."""
    top, _, name = folder.partition("/")
    parts = name.split(".", 2)
    return parts[2] if top == "sweep" and len(parts) == 3 else None


def unused(paths: Paths) -> set[str]:
    """Files of tokenizers, and of fusions, that sweep.json does not list."""
    if SWEEP not in paths:
        return set()
    names = [entry["name"] for entry in json_report.read(paths[SWEEP])["tokenizers"]]
    listed = {*names, *(fusion_of(f"sweep/{name}") for name in names)}
    folders = {name: name.split("/")[1] for name in paths if name.count("/") > 1}
    return {
        name
        for name, folder in folders.items()
        if name.startswith("sweep/") and folder not in listed
    }


def find(paths: Paths) -> Iterator[Promise]:
    """List the promises between the files of a sweep."""
    for name in paths:
        users = str(Path(name).with_suffix(".parquet"))
        if name.startswith("sweep/") and name.endswith(".json") and users in paths:
            yield Promise(
                f"{name} has the means of {users}",
                name,
                partial(_means, paths[name], paths[users]),
            )
    if SWEEP in paths:
        yield Promise(
            f"{SWEEP} has the metrics of each tokenizer's valid.json, and the best one as winner",
            SWEEP,
            partial(_winner, paths[SWEEP], paths),
        )


def _means(metrics: Path, users: Path) -> str | None:
    told, columns = json_report.read(metrics), user_metrics.read(users)
    targets = int(columns["queries"].sum())
    if told["targets"] != targets:
        return f"targets is {told['targets']:,}, {users.name} has {targets:,}"
    for name in ("HR@10", "NDCG@10"):
        value, mean = told[name]["value"], float(columns[name].sum()) / max(targets, 1)
        if not math.isclose(value, mean, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return f"{name} is {value}, the mean of {users.name} is {mean}"
    return None


def _winner(sweep: Path, paths: Paths) -> str | None:
    # The figures are those of the files that they were gathered from.
    found = json_report.read(sweep)
    for entry in found["tokenizers"]:
        name = f"sweep/{entry['name']}/valid.json"
        value = entry["valid"][found["metric"]]["value"]
        if name in paths:
            own = json_report.read(paths[name])[found["metric"]]["value"]
            if value != own:
                return f"{entry['name']} has {found['metric']} {value}, {name} has {own}"

    # Anchors, which are for comparison, cannot win.
    trained = [entry for entry in found["tokenizers"] if not entry["is_anchor"]]
    best = max(entry["valid"][found["metric"]]["value"] for entry in trained)
    winner = found["winner"]
    own = {entry["name"]: entry["valid"][found["metric"]]["value"] for entry in trained}
    if own.get(winner["name"]) != best or winner["value"] != best:
        return f"winner {winner['name']} has {winner['value']}, the best tokenizer has {best}"
    return None
