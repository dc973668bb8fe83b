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

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import log_rows, sequence_table
from sidmill.formats.log_rows import Dialect
from sidmill.interactions import (
    catalogue_ids,
    files,
    histories,
    partition_by_user,
    rows,
    splits,
    statistics,
    times,
    validate,
)
from sidmill.interactions.histories import Histories, Refused
from sidmill.interactions.times import Clock
from sidmill.io import buckets

logger = logging.getLogger(__name__)

LEFT_OUT = ("leave_last_out", "leave_two_out")
SHARE_OF_MEMORY = 16  # a block is held about so many times over while it is sorted and counted
TIMES_PER_BLOCK = 1 << 16  # 512 KiB


def read(
    text_path: str | Path,
    sequences_path: str | Path,
    rejects_path: str | Path,
    *,
    path: str | None,
    format: str,
    fields: dict[str, str | None],
    columns: list[str] | None,
    delimiter: str | None,
    encoding: str,
    list_separator: str | None,
    time_format: str | None,
    time_unit: str,
    time_fractions: str,
    split: str,
    history_only: str,
    valid_share: float,
    test_share: float,
    max_history: int,
    on_unknown_items: str,
    on_bad_rows: str,
    memory_mb: int,
) -> dict:
    """Write one history per user, oldest interaction first.

    Args:
        text_path: text.parquet: the items that are known.
        sequences_path: sequences.parquet to write.
        rejects_path: rejects.parquet to write.
        path: file, folder or glob of the log.
        format: missrec, sequences, events, onerec, inter, or auto: told by the fields.
        fields: names of the fields ``user``, ``item``, ``time``, ``split``, ``history`` and
            ``target`` where they are not the usual ones.
        columns: names of the columns of delimited text without a header line; None: it has one.
        delimiter: what parts the columns of delimited text; None: by the file's ending.
        encoding: of delimited text.
        list_separator: what parts the entries of a list in delimited text; None: told by each.
        time_format: how times are written, as of strptime; None: numbers, or ISO 8601.
        time_unit: s, ms, us or ns: of what dates become; numbers stay as they are.
        time_fractions: error, floor or millionths: what becomes of numbers that are not whole.
        split: ``given``, ``leave_last_out``, ``leave_two_out`` or ``time``.
        history_only: with ``given``, what becomes of interactions that valid and test rows show and
            no row has as a target: ``hold_out`` gives them the split of that row, ``train`` that of
            the interaction before.
        valid_share: with ``time``, the share of all interactions that are kept, for validation.
        test_share: with ``time``, the share of the latest of these, for test.
        max_history: a user with more interactions is refused as a bad row.
        on_unknown_items: ``error`` or ``reject``: what an item does that the catalogue lacks.
        on_bad_rows: ``error`` or ``reject``: what any other fault does; the row goes as a whole.
        memory_mb: MiB for the rows that are sorted; the log waits on disk beside the output.

    Returns:
        The report: see docs/interactions.md.

    Raises:
        SidmillError: for what is refused under ``error``; if nothing is left; if a file cannot be
            read to its end.
    """
    found = files.find(path)
    if not found:
        raise SidmillError(
            "interactions.path is null: name your interaction log, a file, a folder or a glob"
        )
    names = tuple(columns) if columns else None
    delimiter = "\t" if delimiter == r"\t" else delimiter  # as YAML has it without quotes
    dialect = Dialect(names, delimiter, encoding, list_separator, frozenset())
    clock = Clock(time_format, time_unit, time_fractions)
    log, clock = _describe(path, found, format, fields, dialect, clock)
    form = log.form
    if form in histories.MERGED and split == "time":
        raise SidmillError(f"interactions.split: time needs timestamps, which {form} has not")
    items = catalogue_ids.load(text_path)
    rules = validate.Rules(
        max_history=max_history,
        needs_splits=split == "given",
        needs_times=split == "time",
        sorted_times=form == "sequences",
        on_unknown_items=on_unknown_items,
        on_bad_rows=on_bad_rows,
        clock=clock,
    )
    counts: Counter[str] = Counter()
    tally = statistics.begin(len(items.ids), max_history)
    block_mb = max(memory_mb // SHARE_OF_MEMORY, 1)
    runs_folder = Path(sequences_path).with_name(f".{Path(sequences_path).name}.runs")
    first_refused: list[sequence_table.Reject] = []
    with sequence_table.rejects_writer(rejects_path) as write, buckets.folder(runs_folder) as place:
        reject = _noting(write, first_refused)
        pieces = validate.pieces(log, items, rules, reject, counts)
        runs = partition_by_user.write(pieces, validate.PIECES, place, block_mb)
        grouped = partial(_blocks, runs, block_mb, form, split == "given", max_history)
        decide = _decider(split, history_only, grouped, place, valid_share, test_share)
        blocks = grouped(partial(_refuse, found, rules, reject, counts), counts)
        tables = _tables(blocks, decide, items, tally, form == "events" and split in LEFT_OUT)
        tables = _not_empty(tables, found, counts, first_refused)
        sequence_table.write(sequences_path, items.ids.type, tables)
    return _report(form, split, history_only, found, counts, tally, first_refused)


def _describe(
    path: str,
    found: list[str],
    format: str,
    fields: dict[str, str | None],
    dialect: Dialect,
    clock: Clock,
) -> tuple[validate.Log, Clock]:
    """Settle on form, splits of files and kind of times before the first row is taken."""
    log_rows.check(dialect)
    times.check(clock)
    if dialect.columns and not any(map(log_rows.is_table, found)):
        raise SidmillError(
            f"interactions.columns names the columns of delimited text, and {found[0]} is none: "
            f"set it to null, and give the fields other names in interactions.fields"
        )
    form = files.form_of(found, fields, dialect) if format == "auto" else format
    dialect = dialect._replace(lists=rows.list_names(form, fields))
    said = [files.split_of(file, path) for file in found]
    log = validate.Log(found, said, form, fields, dialect, files.known_names(fields))
    return log, validate.settle_clock(log, clock)


def _noting(
    reject: Callable[[sequence_table.Reject], None], first: list[sequence_table.Reject]
) -> Callable[[sequence_table.Reject], None]:
    """Note the first line that goes to rejects.parquet."""

    def add(line: sequence_table.Reject) -> None:
        if not first:
            first.append(line)
        reject(line)

    return add


def _decider(
    split: str,
    history_only: str,
    grouped: Callable[[Callable[[Refused], None], Counter], Iterator[Histories]],
    place: Path,
    valid_share: float,
    test_share: float,
) -> Callable[[Histories], np.ndarray]:
    """The function that gives the split of every interaction of a block."""
    if split == "given" and history_only == "hold_out":
        return lambda block: histories.held_out(block.offsets, block.splits, block.shown)
    if split == "given":
        return lambda block: histories.carried(block.offsets, block.splits)
    if split == "time":
        with (place / "times").open("wb") as out:  # of what is kept: shares are shares of that
            for block in grouped(lambda refused: None, Counter()):
                block.times.tofile(out)
        cuts = splits.find_cuts(partial(_times, place / "times"), valid_share, test_share)
        logger.info("validation from timestamp %d, test from %d", cuts.valid, cuts.test)
        return lambda block: splits.by_time(block.times, cuts)
    return lambda block: splits.leave_out(block.offsets, split == "leave_two_out")


def _times(path: Path) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        while len(block := np.fromfile(file, np.int64, TIMES_PER_BLOCK)):
            yield block


def _blocks(
    runs: partition_by_user.Runs,
    block_mb: int,
    form: str,
    by_split: bool,
    max_history: int,
    refuse: Callable[[Refused], None],
    counts: Counter,
) -> Iterator[Histories]:
    """Yield the histories of all users, those that are too long taken out."""
    for table in partition_by_user.read(runs, block_mb):
        block = histories.group(table, form, refuse, by_split)
        counts["restated"] += block.restated
        counts["leaked"] += block.leaked
        lengths = np.diff(block.offsets)
        long = lengths > max_history
        for user in np.flatnonzero(long):
            name = block.users[user].as_py()
            place = table.filter(pa.compute.equal(table["user"], name))
            refuse(
                Refused(
                    name,
                    place["file"][0].as_py(),
                    place["row"][0].as_py(),
                    int(lengths[user]),
                    f"{lengths[user]} interactions in {place.num_rows} rows, more than "
                    f"interactions.max_history ({max_history})",
                    place.num_rows,
                )
            )
        yield histories.keep(block, ~long) if long.any() else block


def _tables(
    blocks: Iterator[Histories],
    decide: Callable[[Histories], np.ndarray],
    items: catalogue_ids.KnownItems,
    tally: statistics.Tally,
    ties_choose: bool,
) -> Iterator[pa.Table]:
    schema = sequence_table.schema(items.ids.type)
    for block in blocks:
        said = decide(block)
        statistics.add(tally, block, said, ties_choose)
        offsets = pa.array(block.offsets.astype(np.int32))
        ids = items.ids.take(pa.array(block.items))
        columns = [
            block.users,
            pa.ListArray.from_arrays(offsets, ids),
            pa.ListArray.from_arrays(offsets, pa.array(said)),
            pa.ListArray.from_arrays(offsets, pa.array(block.times), mask=pa.array(~block.timed)),
        ]
        yield pa.table(columns, schema=schema)


def _not_empty(
    tables: Iterator[pa.Table],
    found: list[str],
    counts: Counter,
    first_refused: list[sequence_table.Reject],
) -> Iterator[pa.Table]:
    users = 0
    for table in tables:
        users += table.num_rows
        yield table
    if not users:
        first = first_refused[0] if first_refused else None
        why = f": first {first.file}, row {first.row}: {first.reason}" if first else ""
        raise SidmillError(
            f"interactions.path: {found[0]}: none of {counts['interactions']} interactions in "
            f"{counts['rows']} rows is usable{why}: with interactions.on_bad_rows: error and "
            f"on_unknown_items: error the message says what to do"
        )


def _refuse(
    found: list[str],
    rules: validate.Rules,
    reject: Callable[[sequence_table.Reject], None],
    counts: Counter,
    refused: Refused,
) -> None:
    """Stop at rows that fit no history, or list them."""
    file = found[refused.file]
    if rules.on_bad_rows == "error":
        raise SidmillError(
            f"{file}, row {refused.row}: user {refused.user!r}: {refused.reason}: mend the row, "
            f"or set interactions.on_bad_rows: reject to list such rows in "
            f"results/interactions/rejects.parquet"
        )
    counts["rows_rejected"] += refused.rows
    counts["interactions_rejected"] += refused.interactions
    reject(
        sequence_table.Reject(
            file, refused.row, None, refused.user, None, refused.interactions, refused.reason
        )
    )


def _report(
    form: str,
    split: str,
    history_only: str,
    found: list[str],
    counts: Counter,
    tally: statistics.Tally,
    first_refused: list[sequence_table.Reject],
) -> dict:
    summary = statistics.summary(tally)
    written = summary["interactions"]
    accounted = written + counts["interactions_rejected"] + counts["restated"]
    if accounted != counts["interactions"]:
        raise AssertionError(
            f"{counts['interactions']} interactions read, {accounted} accounted for"
        )
    report = {
        "format": form,
        "split": split,
        "files": len(found),
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
    }
    report["leakage"] = {"held_out_also_train_target": counts["leaked"], **summary["leakage"]}
    _warn_of(report["leakage"])
    _warn_of_ties(report["ties"])
    if first_refused:
        first = first_refused[0]
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
    if split == "given" and report["history_only"]["interactions"]:
        logger.warning(
            "%d interactions of %d users stand in valid and test rows, and are no row's target: "
            "interactions.history_only: %s %s",
            report["history_only"]["interactions"],
            report["history_only"]["users"],
            history_only,
            "holds them out" if history_only == "hold_out" else "lets training have them",
        )
    if split != "given" and counts["rows_with_splits"]:
        logger.warning(
            "%d rows or names of their files say splits, which interactions.split: %s sets aside; "
            "given keeps them",
            counts["rows_with_splits"],
            split,
        )
    logger.info(
        "%d rows of %s: %d users, %d interactions (%d rejected, %d restated)",
        counts["rows"],
        form,
        summary["users"],
        written,
        counts["interactions_rejected"],
        counts["restated"],
    )
    return report


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
