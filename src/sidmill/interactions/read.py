"""An interaction log -> sequences.parquet and rejects.parquet, every interaction accounted for.

    interactions read = interactions in sequences.parquet + in rejects.parquet + restated

``restated`` are those that overlapping rows of missrec and onerec say again. Rows of the output
come in order of a hash of the user id, so they do not depend on files and shards, and any stretch
of them is a random sample of users.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.formats import log_rows, sequence_table
from sidmill.formats.log_rows import Dialect
from sidmill.interactions import (
    catalogue_ids,
    files,
    histories,
    rows,
    splits,
    statistics,
    times,
    validate,
)
from sidmill.interactions.find import find
from sidmill.interactions.histories import Histories, Refused
from sidmill.interactions.times import Clock
from sidmill.interactions.validate import Ledger, Log, Rules
from sidmill.io import buckets, partition_by_user
from sidmill.settings.interactions import Interactions

logger = logging.getLogger(__name__)

LEFT_OUT = ("leave_last_out", "leave_two_out")
SHARE_OF_MEMORY = 16  # copies of a block while it is sorted and counted, at most
TIMES_PER_BLOCK = 1 << 16  # 512 KiB


class _Rejects(NamedTuple):
    """rejects.parquet, open; ``first`` holds the first line that went there, once there is one."""

    write: Callable[[sequence_table.Reject], None]
    first: list[sequence_table.Reject]

    def add(self, line: sequence_table.Reject) -> None:
        """Add a line."""
        if not self.first:
            self.first.append(line)
        self.write(line)


class _Partition(NamedTuple):
    """The pieces of the log on disk, grouped by user, and how histories are made of them.

    Attributes:
        runs: the pieces.
        folder: of the runs.
        block_mb: MiB of pieces that are read at a time.
        rules: the settings, and the form of the log.
    """

    runs: partition_by_user.Runs
    folder: Path
    block_mb: int
    rules: Rules


def read(
    text_path: str | Path,
    sequences_path: str | Path,
    rejects_path: str | Path,
    settings: Interactions,
) -> dict[str, Any]:
    """Write one history per user of an interaction log, oldest interaction first.

    Args:
        text_path: text.parquet: the items of the catalogue.
        sequences_path: sequences.parquet to write.
        rejects_path: rejects.parquet to write.
        settings: how the log is written, how it is split, and what a fault does. ``memory_mb``
            bounds the rows that are sorted at a time and changes no byte of the result; the log
            waits on disk in the folder of the output.

    Returns:
        The report: see docs/interactions.md.

    Raises:
        SidmillError: for what is refused under ``error``; if nothing is left; if a file cannot be
            read to its end.
    """
    # What the rows are checked against.
    log, rules = _describe(settings)
    items = catalogue_ids.load(text_path)
    counts: Counter[str] = Counter()
    tally = statistics.begin(len(items.ids), settings.max_history)

    # Pieces go to disk by user; histories come back from there in blocks.
    block_mb = max(settings.memory_mb // SHARE_OF_MEMORY, 1)
    runs_folder = Path(sequences_path).with_name(f".{Path(sequences_path).name}.runs")
    with (
        sequence_table.rejects_writer(rejects_path) as write,
        buckets.folder(runs_folder) as folder,
    ):
        rejects = _Rejects(write, [])
        ledger = Ledger(rejects.add, counts)
        pieces = validate.pieces(log, items, rules, ledger)
        runs = partition_by_user.write(pieces, validate.PIECES, folder, block_mb)
        partition = _Partition(runs, folder, block_mb, rules)
        split_of = _splitter(partition)
        blocks = _blocks(partition, partial(_refuse, log.files, rules, ledger), counts)
        tables = _tables(blocks, split_of, items, tally, rules)
        tables = _not_empty(tables, log.files, counts, rejects.first)
        sequence_table.write(sequences_path, items.ids.type, tables)

    report = _report(rules, len(log.files), counts, tally)
    _log_findings(report, counts, rejects.first, settings)
    return report


def _describe(settings: Interactions) -> tuple[Log, Rules]:
    """Settle on form, splits of files and kind of times before the first row is taken.

    Raises:
        SidmillError: if there is no log, or a setting fits no file.
    """
    paths = find(settings.path)
    if not paths:
        raise SidmillError(
            "interactions.path is null: name your interaction log, a file, a folder or a glob"
        )

    # How text is written; YAML without quotes has a backslash and a t for a tab.
    columns = tuple(settings.columns) if settings.columns else None
    delimiter = "\t" if settings.delimiter == r"\t" else settings.delimiter
    encoding, separator = settings.encoding, settings.list_separator
    dialect = Dialect(columns, delimiter, encoding, separator, frozenset())
    log_rows.check(dialect)
    clock = Clock(settings.time_format, settings.time_unit, settings.time_fractions)
    times.check(clock)
    if columns and not any(map(log_rows.is_table, paths)):
        raise SidmillError(
            f"interactions.columns names the columns of delimited text, and {paths[0]} is none: "
            f"set it to null, and give the fields other names in interactions.fields"
        )

    # What the rows are.
    fields, form = settings.fields, str(settings.format)
    if form == "auto":
        form = files.form_of(paths, fields, dialect)
    dialect = dialect._replace(lists=rows.list_names(form, fields))
    said = [files.split_of(path, settings.path) for path in paths]
    log = Log(paths, said, form, fields, dialect, files.known_names(fields))
    clock = validate.settle_clock(log, clock)
    if form in histories.MERGED and settings.split == "time":
        raise SidmillError(f"interactions.split: time needs timestamps, which {form} has not")
    return log, Rules(settings, form, clock)


def _splitter(partition: _Partition) -> Callable[[Histories], np.ndarray]:
    """The function that gives the split of every interaction of a block, int8 (n,)."""
    settings = partition.rules.settings
    if settings.split == "given" and settings.history_only == "hold_out":
        return lambda block: histories.held_out(block.offsets, block.splits, block.shown)
    if settings.split == "given":
        return lambda block: histories.carried(block.offsets, block.splits)
    if settings.split == "time":
        cuts = _find_cuts(partition)
        return lambda block: splits.by_time(block.times, cuts)
    return lambda block: splits.leave_out(block.offsets, settings.split == "leave_two_out")


def _find_cuts(partition: _Partition) -> splits.Cuts:
    """Find the timestamps where validation and test begin, in a pass of its own over the log.

    Only timestamps of histories that are kept count: shares are shares of these.
    """
    settings, path = partition.rules.settings, partition.folder / "times"
    with path.open("wb") as out:
        for block in _blocks(partition, lambda refused: None, Counter()):
            block.times.tofile(out)
    cuts = splits.find_cuts(partial(_times, path), settings.valid_share, settings.test_share)
    logger.info("validation from timestamp %d, test from %d", cuts.valid, cuts.test)
    return cuts


def _times(path: Path) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        while len(block := np.fromfile(file, np.int64, TIMES_PER_BLOCK)):
            yield block


def _blocks(
    partition: _Partition, refuse: Callable[[Refused], None], counts: Counter[str]
) -> Iterator[Histories]:
    """Yield the histories of all users, those that are too long taken out."""
    rules = partition.rules
    max_history = rules.settings.max_history
    for table in partition_by_user.read(partition.runs, partition.block_mb):
        refused: list[Refused] = []
        block = histories.group(table, rules.form, refused.append, rules.needs_splits)
        counts["restated"] += block.restated
        counts["leaked"] += block.leaked

        # A user with too many interactions is refused as a whole.
        lengths = np.diff(block.offsets)
        long = lengths > max_history
        refused += [
            _too_long(block, user, table, max_history) for user in np.flatnonzero(long).tolist()
        ]

        # By user, as histories come: so the order of rejects.parquet does not depend on the size
        # of a block.
        for one in sorted(refused, key=lambda one: partition_by_user.order_of(one.user)):
            refuse(one)
        yield histories.keep(block, ~long) if long.any() else block


def _too_long(block: Histories, user: int, table: pa.Table, max_history: int) -> Refused:
    """Refuse all rows of one user of a block."""
    name = block.users[user].as_py()
    own = table.filter(pc.equal(table["user"], name))
    size = int(block.offsets[user + 1] - block.offsets[user])
    reason = (
        f"{size} interactions in {own.num_rows} rows, more than interactions.max_history "
        f"({max_history})"
    )
    first = (own["file"][0].as_py(), own["row"][0].as_py())
    return Refused(name, *first, size, reason, own.num_rows)


def _tables(
    blocks: Iterator[Histories],
    split_of: Callable[[Histories], np.ndarray],
    items: catalogue_ids.CatalogueIds,
    tally: statistics.Tally,
    rules: Rules,
) -> Iterator[pa.Table]:
    """Yield blocks of histories as tables of sequences.parquet, and count them."""
    schema = sequence_table.schema(items.ids.type)
    ties_choose = rules.form == "events" and rules.settings.split in LEFT_OUT
    for block in blocks:
        chosen = split_of(block)
        statistics.add(tally, block, chosen, ties_choose)
        offsets = pa.array(block.offsets.astype(np.int32))
        ids = items.ids.take(pa.array(block.items))
        columns = [
            block.users,
            pa.ListArray.from_arrays(offsets, ids),
            pa.ListArray.from_arrays(offsets, pa.array(chosen)),
            pa.ListArray.from_arrays(offsets, pa.array(block.times), mask=pa.array(~block.timed)),
        ]
        yield pa.table(columns, schema=schema)


def _not_empty(
    tables: Iterator[pa.Table],
    paths: list[str],
    counts: Counter[str],
    first_rejects: list[sequence_table.Reject],
) -> Iterator[pa.Table]:
    """Pass tables on; stop before a file appears if they hold no user."""
    users = 0
    for table in tables:
        users += table.num_rows
        yield table
    if not users:
        first = first_rejects[0] if first_rejects else None
        why = f": first {first.file}, row {first.row}: {first.reason}" if first else ""
        raise SidmillError(
            f"interactions.path: {paths[0]}: none of {counts['interactions']} interactions in "
            f"{counts['rows']} rows is usable{why}: with interactions.on_bad_rows: error and "
            f"on_unknown_items: error the message says what to do"
        )


def _refuse(paths: list[str], rules: Rules, ledger: Ledger, refused: Refused) -> None:
    """Stop at rows that fit no history, or list them."""
    file = paths[refused.file]
    if rules.settings.on_bad_rows == "error":
        raise SidmillError(
            f"{file}, row {refused.row}: user {refused.user!r}: {refused.reason}: correct the row, "
            f"or set interactions.on_bad_rows: reject to list such rows in "
            f"results/interactions/rejects.parquet"
        )
    ledger.counts["rows_rejected"] += refused.rows
    ledger.counts["interactions_rejected"] += refused.interactions
    ledger.reject(
        sequence_table.Reject(
            file, refused.row, None, refused.user, None, refused.interactions, refused.reason
        )
    )


def _report(
    rules: Rules, n_files: int, counts: Counter[str], tally: statistics.Tally
) -> dict[str, Any]:
    """The report as JSON: see docs/interactions.md.

    Raises:
        AssertionError: if an interaction is unaccounted for.
    """
    # Every interaction is written, rejected or restated.
    summary = statistics.summary(tally)
    written = summary["interactions"]
    accounted = written + counts["interactions_rejected"] + counts["restated"]
    if accounted != counts["interactions"]:
        raise AssertionError(
            f"{counts['interactions']} interactions read, {accounted} accounted for"
        )

    # What was read, then the statistics of what was written.
    leakage = {"held_out_also_train_target": counts["leaked"], **summary["leakage"]}
    return {
        "format": rules.form,
        "split": rules.settings.split,
        "files": n_files,
        "rows": {
            "read": counts["rows"],
            "rejected": counts["rows_rejected"],
            "with_splits": counts["rows_with_splits"],
            "users_as_floats": counts["users_as_floats"],
        },
        "interactions_accounted_for": {
            "read": counts["interactions"],
            "written": written,
            "rejected": counts["interactions_rejected"],
            "rejected_as_unknown_items": counts["unknown_items"],
            "restated": counts["restated"],
        },
        **summary,
        "leakage": leakage,
    }


def _log_findings(
    report: dict[str, Any],
    counts: Counter[str],
    first_rejects: list[sequence_table.Reject],
    settings: Interactions,
) -> None:
    """Log what of the report needs the user's attention, and its sums."""
    _warn_of(report["leakage"])
    _warn_of_ties(report["ties"])
    if first_rejects:
        first = first_rejects[0]
        logger.warning(
            "%d of %d rows and %d of %d interactions rejected, first %s, row %d: %s; all in "
            "rejects.parquet",
            counts["rows_rejected"],
            counts["rows"],
            counts["interactions_rejected"],
            counts["interactions"],
            first.file,
            first.row,
            first.reason,
        )
    if counts["users_as_floats"]:
        logger.warning(
            "%d rows write their user as a float, such as 7.0, which is taken for 7: pandas makes "
            "floats of integers where a value is missing",
            counts["users_as_floats"],
        )
    _warn_of_splits(report, counts, settings)

    # The sums, whatever was found.
    logger.info(
        "%d rows of %s: %d users, %d interactions (%d rejected, %d restated)",
        counts["rows"],
        report["format"],
        report["users"],
        report["interactions"],
        counts["interactions_rejected"],
        counts["restated"],
    )


def _warn_of_splits(report: dict[str, Any], counts: Counter[str], settings: Interactions) -> None:
    """Warn where given splits leave interactions open, or are not used."""
    if settings.split == "given" and report["history_only"]["interactions"]:
        logger.warning(
            "%d interactions of %d users are in valid and test rows, and are no row's target: "
            "interactions.history_only: %s %s",
            report["history_only"]["interactions"],
            report["history_only"]["users"],
            settings.history_only,
            "holds them out" if settings.history_only == "hold_out" else "lets training have them",
        )
    if settings.split != "given" and counts["rows_with_splits"]:
        logger.warning(
            "%d rows or names of their files say splits, which interactions.split: %s sets aside; "
            "given keeps them",
            counts["rows_with_splits"],
            settings.split,
        )


def _warn_of_ties(ties: dict[str, int]) -> None:
    """Warn in the log where what is held out depends on the order of the log's rows."""
    if ties["held_out_by_order"]:
        logger.warning(
            "%d interactions of %d users have the timestamp of another one of the user; they stand "
            "as in the log, and that order chose %d held-out interactions",
            ties["interactions"],
            ties["users"],
            ties["held_out_by_order"],
        )


def _warn_of(leakage: dict[str, int]) -> None:
    """Warn in the log where a user's held-out interactions are known to training."""
    if leakage["held_out_before_train"] or leakage["held_out_also_train_target"]:
        logger.warning(
            "leakage: %d held-out interactions of %d users stand before later training ones, %d "
            "are training targets as well",
            leakage["held_out_before_train"],
            leakage["users_with_held_out_before_train"],
            leakage["held_out_also_train_target"],
        )
