"""A published data set -> catalogue, interaction log, rejects, counts and overlay.

items.parquet          item_id and the fields of the data set
interactions.parquet   user_id, item_ids, splits (if published), timestamps
rejects.parquet        file, row, interactions (0: an item), reason
import.json            counts: read = written + rejected + left out; users, items, density
overlay.yaml           settings that read these files
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.core.paths import refuse_overwrite
from sidmill.imports import catalogue, core_filter, files, log, overlay, rejects_file
from sidmill.imports.content import Content
from sidmill.imports.rejects_file import Rejects
from sidmill.io import buckets, json_report
from sidmill.settings import base
from sidmill.settings.imported import Imported
from sidmill.settings.registry import SOURCES, load_function

logger = logging.getLogger(__name__)

NAMES = ("items.parquet", "interactions.parquet", "rejects.parquet", "import.json", "overlay.yaml")
COMMAND = "snakemake --cores 8 --configfile {overlay}"


def run(
    name: str, source: str, folder: str | Path, settings: Imported, *, for_workflow: bool = False
) -> dict[str, Any]:
    """Import a published data set.

    Memory: ``settings.memory_mb``; besides it about 30 bytes and the id per item, and 9 bytes per
    user.

    Args:
        name: of the source, a key of ``SOURCES``.
        source: its folder or archive.
        folder: where the five files are written.
        settings: which interactions and items count.
        for_workflow: whether the overlay also says how the files are made.

    Returns:
        What import.json contains.

    Raises:
        SidmillError: if a file is missing or cannot be read to its end, if one fault takes too many
            rows, or if no interaction remains.
    """
    if name not in SOURCES or SOURCES[name].is_collection:
        names = ", ".join(key for key, entry in SOURCES.items() if not entry.is_collection)
        raise SidmillError(f"{name!r}: no such source of interactions: take one of {names}")
    refuse_overwrite(folder, [source], "OUT")
    entry = SOURCES[name]
    listed = files.open_files(source, f"fetch {entry.reads} from {entry.published}")
    content: Content = load_function(f"{entry.module}:open_source")(listed)
    paths = {Path(one).stem: str(Path(folder) / one) for one in NAMES}

    # Items and interactions by way of a folder for files that are larger than memory.
    with (
        buckets.folder(Path(folder) / ".import") as work,
        rejects_file.opened(paths["rejects"]) as rejects,
    ):
        items = catalogue.collect(content, work, rejects.add_item)
        ordered, counts = log.order(content, items, settings, work, rejects.add_event)
        _check(rejects, settings, items, counts)
        ids = catalogue.ids_of(items)
        whole = core_filter.find(ordered.pairs, ordered.n_users, len(ids), 1, 1)
        core = core_filter.find(
            ordered.pairs, ordered.n_users, len(ids), settings.min_user, settings.min_item
        )
        if not core.users.any():
            raise SidmillError(
                f"{source}: no interaction remains with min_user {settings.min_user} and min_item "
                f"{settings.min_item}: lower them"
            )
        used = core.items if settings.catalogue == "interacted" else None
        n_items = catalogue.write(paths["items"], items, used)
        figures = log.write(
            paths["interactions"], ordered, core, ids, has_splits=content.has_splits
        )

    # What papers print, and where every row went.
    report = _report(rejects, counts, whole, core) | figures
    report["items"]["written"] = n_items
    report["items"]["left_out"] = int(items.kept.sum()) - n_items
    report = {"source": name, "settings": _chosen(settings)} | report | {"notes": content.notes}
    json_report.write(paths["import"], report)
    _write_overlay(name, source, paths, (content, settings, report, for_workflow))
    _log(report, rejects)
    return report


def _check(
    rejects: Rejects, settings: Imported, items: catalogue.Catalogue, counts: log.Counts
) -> None:
    """Stop where a file as a whole is not what was expected."""
    rejects.items.rows = int(items.kept.sum()) + sum(rejects.items.causes.values())
    rejects.events.rows = counts.read
    for tally in (rejects.items, rejects.events):
        tally.check(settings.max_reject_share, "imported", unbounded=(log.NO_METADATA,))
    for what, is_empty, tally in (
        ("item", not items.kept.any(), rejects.items),
        ("interaction", sum(rejects.interactions.values()) >= counts.read, rejects.events),
    ):
        if is_empty:
            first = next(iter(tally.first.values()), ("the files", 0, "no row"))
            raise SidmillError(
                f"no {what} in the data set; first: {first[0]}, row {first[1]}: {first[2]}"
            )


def _report(
    rejects: Rejects, counts: log.Counts, whole: core_filter.Core, core: core_filter.Core
) -> dict[str, Any]:
    """Counts of items and interactions: read = written + rejected + left out."""
    # What was read has gone somewhere.
    n_core = int(core.user_counts.sum())
    n_rejected = sum(rejects.interactions.values())
    left_out = dict(counts.left_out) | {"k_core": int(whole.user_counts.sum()) - n_core}
    if counts.read != n_core + n_rejected + sum(left_out.values()):
        raise RuntimeError(
            f"{counts.read} interactions read, {n_core} written, {n_rejected}, {left_out}"
        )

    # Rows of the catalogue, and interactions.
    return {
        "items": {
            "read": rejects.items.rows,
            "rejected": sum(rejects.items.causes.values()),
            "reasons": dict(rejects.items.causes),
        },
        "interactions": {
            "read": counts.read,
            "rejected": n_rejected,
            "reasons": {cause: n for cause, n in rejects.interactions.items() if n},
            "left_out": left_out,
            "written": n_core,
        },
        "before_k_core": _statistics(whole),
        "log": _statistics(core),
        "k_core_rounds": core.rounds,
    }


def _statistics(core: core_filter.Core) -> dict[str, Any]:
    """Users, items, interactions and density, as papers print them."""
    n_users, n_items = int(core.users.sum()), int(core.items.sum())
    interactions = int(core.user_counts.sum())
    cells = n_users * n_items
    sizes = core.user_counts[core.users]
    return {
        "users": n_users,
        "items": n_items,
        "interactions": interactions,
        "density": interactions / cells if cells else None,
        "interactions_per_user": interactions / n_users if n_users else None,
        "interactions_per_item": interactions / n_items if n_items else None,
        "longest_history": int(np.max(sizes, initial=0)),
    }


def _chosen(settings: Imported) -> dict[str, Any]:
    """The science settings but the path, which is a matter of the machine."""
    return {key: value for key, value in base.identity(settings).items() if key != "path"}


def _write_overlay(
    name: str,
    source: str,
    paths: dict[str, str],
    made: tuple[Content, Imported, dict[str, Any], bool],
) -> None:
    content, settings, report, for_workflow = made
    notes = list(content.notes)
    if content.overlay and (report["items"]["rejected"] or report["items"]["left_out"]):
        content = content._replace(overlay=None)
        notes.append("embeddings that come with it are not named: items.parquet lacks some rows")
    sections = overlay.settings_of(content, settings, paths, report)
    if for_workflow:
        sections = overlay.how_it_was_made(settings) | sections

    # Figures first, then what a user should know.
    log_figures = report["log"]
    comments = [
        f"{name}, imported from {source}: {log_figures['users']:,} users, "
        f"{log_figures['items']:,} items, {log_figures['interactions']:,} interactions.",
        f"Licence of the data: {SOURCES[name].licence}.",
        COMMAND.format(overlay=paths["overlay"]),
        *notes,
    ]
    overlay.write(paths["overlay"], sections, comments)


def _log(report: dict[str, Any], rejects: Rejects) -> None:
    for line in [*rejects.items.lines(), *rejects.events.lines()]:
        logger.warning(line)
    for note in report["notes"]:
        logger.info(note)
    counts = report["log"]
    logger.info(
        "%d users, %d items, %d interactions, density %.3g",
        counts["users"],
        counts["items"],
        counts["interactions"],
        counts["density"],
    )
