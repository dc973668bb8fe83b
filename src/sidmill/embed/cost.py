"""The figures of all shards of a collection in one, and what more items would cost."""

from collections.abc import Sequence
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.embed import throughput
from sidmill.io import json_report

SUMS = (*throughput.COUNTS, "seconds")


def reckon(paths: Sequence[str | Path], *, items: int | None, price_per_hour: float | None) -> dict:
    """Add up shards.

    Seconds are those of the shards one after another, so rates are those of one machine. Loading
    the model is not in them. ``for_items`` is plain arithmetic: seconds per text, times ``items``.

    Args:
        paths: JSON that each shard left.
        items: how many items to reckon with, null for the rows of the shards, with a published
            version those that it has no vector of.
        price_per_hour: of one machine, in any currency.

    Raises:
        SidmillError: if a file is not what a shard leaves.
    """
    shards = [_read(path) for path in paths]
    whole = {key: sum(shard[key] for shard in shards) for key in SUMS}
    known = [shard for shard in shards if shard["operations"] is not None]
    seconds = max(whole["seconds"], 1e-9)
    rated = sum(shard["matmul_rate"] * shard["seconds"] for shard in known)
    done = sum(shard["operations"] for shard in known)
    items = items or whole["rows"]
    hours = items * seconds / whole["texts"] / 3600 if whole["texts"] else None
    price = None if hours is None or price_per_hour is None else hours * price_per_hour
    return {
        "shards": len(shards),
        **whole,
        **throughput.rates(whole, seconds),
        "operations": done if known else None,
        "matmul_share": done / rated if rated else None,
        "devices": sorted({shard["device"] for shard in known}),
        "for_items": {
            "items": items,
            "machine_hours": hours,
            "price_per_hour": price_per_hour,
            "price": price,
        },
    }


def _read(path: str | Path) -> dict:
    shard = json_report.read(path)
    missing = [key for key in (*SUMS, "operations", "matmul_rate", "device") if key not in shard]
    if missing:
        raise SidmillError(f"{path}: lacks {', '.join(missing)}: delete it and run again")
    return shard
