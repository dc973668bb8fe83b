"""``sidmill diff``: the differences between two versions of pid2sid.parquet."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sidmill.sids.versions import Comparison

MEANINGS = {
    "unchanged": "same item, same SID",
    "added": "items that only NEW has",
    "removed": "items that only OLD has",
    "moved": "same item, another SID",
    "reused": "SID of other items, none of which has it now",
    "shared": "SID of another item, which has it still",
}


@click.command()
@click.argument("old")
@click.argument("new")
@click.option(
    "--limit", default=5, show_default=True, help="number of items shown of each kind; 0: none"
)
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def diff(old: str, new: str, limit: int, as_json: bool) -> None:
    """Compare two versions of pid2sid.parquet.

    OLD is the published one, NEW shall follow it. Exit code 0: every item of both has the SID that
    it had, and no SID went to other items; 1: an item moved or a SID was reused; 2: the files
    cannot be compared.
    """
    from sidmill.sids import versions

    comparison = versions.compare(old, new)
    counts = versions.summary(comparison)
    shown = examples(comparison, max(limit, 0))
    if as_json:
        facts = {"old": old, "new": new, "keeps_promises": comparison.keeps_promises}
        click.echo(json.dumps(facts | counts | {"examples": shown}, indent=2, ensure_ascii=True))
    else:
        click.echo(table(counts, shown))
    sys.exit(0 if comparison.keeps_promises else 1)


def examples(comparison: "Comparison", limit: int) -> dict[str, list[dict[str, Any]]]:
    """List the first items of each kind of difference: pid, and the SID before and now."""
    pairs: dict[str, list[Any]] = {
        "added": [(None, row) for row in comparison.added[:limit]],
        "removed": [(row, None) for row in comparison.removed[:limit]],
        "moved": list(zip(comparison.moved_from[:limit], comparison.moved[:limit], strict=True)),
        "reused": [(None, row) for row in comparison.reused[:limit]],
        "shared": [(None, row) for row in comparison.shared[:limit]],
    }
    shown = {
        kind: [_example(comparison, before, now) for before, now in rows]
        for kind, rows in pairs.items()
    }
    for item in shown["reused"] + shown["shared"]:
        owners = (comparison.old.codes == item["new_sid"]).all(axis=1).nonzero()[0]
        item["old_owner"] = comparison.old.ids[int(owners[0])].as_py()  # the first of them
    return shown


def _example(comparison: "Comparison", before: int | None, now: int | None) -> dict[str, Any]:
    """One item: its pid, and the SID of each version that has it, by its row there."""
    example: dict[str, Any] = {}
    if before is not None:
        example["pid"] = comparison.old.ids[int(before)].as_py()
        example["old_sid"] = comparison.old.codes[before].tolist()
    if now is not None:
        example["pid"] = comparison.new.ids[int(now)].as_py()
        example["new_sid"] = comparison.new.codes[now].tolist()
    return example


def table(counts: dict[str, int], shown: dict[str, list[dict[str, Any]]]) -> str:
    """Format the counts and examples of a diff as lines for a terminal."""
    from sidmill.core.terminal import safe

    lines = [f"{counts['old_items']:,} items before, {counts['new_items']:,} now", ""]
    lines += [f"{kind:<10} {counts[kind]:>12,}  {MEANINGS[kind]}" for kind in MEANINGS]
    for kind, items in shown.items():
        if not items:
            continue
        more = counts[kind] - len(items)
        lines += ["", f"{kind}{f', the first {len(items)}' if more else ''}"]
        for item in items:
            sids = [_sid_text(item[key]) for key in ("old_sid", "new_sid") if key in item]
            owner = f", of {safe(item['old_owner'], 40)} before" if "old_owner" in item else ""
            lines.append(f"  {safe(item['pid'], 40)}  {' -> '.join(sids)}{owner}")
    broken = counts["moved"] + counts["reused"]
    verdict = "published SIDs keep their meaning"
    if broken:
        verdict = f"{counts['moved']:,} items moved, {counts['reused']:,} took over a SID"
        verdict += ": what was trained on OLD misreads NEW"
    return "\n".join([*lines, "", verdict])


def _sid_text(sid: list[int]) -> str:
    return f"({', '.join(map(str, sid))})"
