"""sequences.parquet -> the files in which other recommenders want histories, streamed.

    X.inter.json, X.item.json  LC-Rec: user to all items, oldest first; item to title, description
    X.{split}.inter            UniSRec, MISSRec, MiniOneRec: a row per target, with what went before
    X.feat1CLS                 MISSRec: float32 (N + 1, D) without a header, row 0 zeros
    {split}/part-00000.jsonl   user_sequence, the latest item last, padded with 0 on the left
    metadata.parquet           OneRec: uid, split (0, 1), hist_video_pid, target_video_pid

Letters: N items of the catalogue, D dimensions. Memory: 8,192 users, and the catalogue's ids.

Sources: https://github.com/zhengbw0324/LC-Rec, https://github.com/RUCAIBox/UniSRec,
https://github.com/gimpong/MM23-MISSRec, https://github.com/AkaliKong/MiniOneRec,
https://github.com/Kuaishou-OneRec/OpenOneRec
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.formats import (
    item_index,
    item_text,
    sequence_table,
    vector_store,
)
from sidmill.formats.sequence_table import (
    SPLITS,
    TEST,
    TRAIN,
    VALID,
)
from sidmill.interactions import item_numbers
from sidmill.interactions.item_numbers import ItemNumbers
from sidmill.io import parquet
from sidmill.numeric.row_blocks import MAX_BLOCK_ROWS, read_blocks

logger = logging.getLogger(__name__)

INTER_HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
INTER_HISTORY = 50  # latest items before a target
SEQUENCE_LENGTH = 50  # items of a padded user_sequence
ONEREC_TARGETS = 10  # latest train items that a train row has as targets, at most
HELD_OUT = 2  # LC-Rec's last items of each user: validation, test
BLANK = re.compile(r"\s")
METADATA_LISTS = ("hist_video_pid", "target_video_pid")


class User(NamedTuple):
    """One user: ``items`` as the file names them, ``splits`` one per item, oldest first."""

    name: str
    items: list[Any]
    splits: list[int]


def write_lcrec(
    sequences_path: str | Path, text_path: str | Path, inter_path: str | Path, item_path: str | Path
) -> dict[str, int]:
    """Write LC-Rec's histories and items; its splits are the last two items of each user.

    Users with fewer than three interactions are left out: LC-Rec holds out two and learns from the
    rest. The first line of an item's text becomes its title, the others its description.

    Returns:
        ``users``, ``left_out``, and ``other_splits``: users whose splits are not those of LC-Rec.
    """
    # Histories: one JSON object, written user by user.
    counts = {"users": 0, "left_out": 0, "other_splits": 0}
    with replacing(inter_path) as temporary, _text(temporary) as out:
        separator = "{\n"
        for user in _users(sequences_path):
            if len(user.items) <= HELD_OUT:
                counts["left_out"] += 1
                continue
            out.write(f"{separator}{_json(user.name)}: {_json(user.items)}")
            separator = ",\n"
            counts["users"] += 1
            expected = [TRAIN] * (len(user.items) - HELD_OUT) + [VALID, TEST]
            counts["other_splits"] += user.splits != expected
        out.write("\n}\n" if counts["users"] else "{}\n")

    # Items, likewise.
    with replacing(item_path) as temporary, _text(temporary) as out:
        separator = "{\n"
        for table in item_text.read(text_path):
            for pid, item in zip(table["pid"].to_pylist(), table["text"].to_pylist(), strict=True):
                title, _, description = item.partition("\n")
                fields = {"title": title, "description": description.replace("\n", " ")}
                out.write(f"{separator}{_json(str(pid))}: {_json(fields)}")
                separator = ",\n"
        out.write("\n}\n" if separator == ",\n" else "{}\n")

    if counts["left_out"] or counts["other_splits"]:
        logger.warning(
            "%s: %d users with fewer than %d interactions are left out; of %d users the last two "
            "items, which LC-Rec holds out, are not the valid and test ones of %s",
            inter_path,
            counts["left_out"],
            HELD_OUT + 1,
            counts["other_splits"],
            sequences_path,
        )
    return counts


def write_inter(sequences_path: str | Path, paths: list[str]) -> dict[str, int]:
    """Write a row per target, items named as in the catalogue: what MiniOneRec converts.

    Args:
        sequences_path: sequences.parquet.
        paths: of the files for train, valid and test.

    Returns:
        Rows by split, and ``without_history``: first items of users, which are no targets.

    Raises:
        SidmillError: if a user or item holds a blank, which parts items here.
    """
    return _write_inter(_users(sequences_path), paths, sequences_path)


def write_missrec(
    sequences_path: str | Path,
    vectors_path: str | Path,
    ids_path: str | Path,
    paths: list[str],
    feature_path: str | Path,
    index_path: str | Path,
) -> dict[str, int]:
    """Write rows as :func:`write_inter`, and the vectors that MISSRec looks up by item.

    An item's token is its row in the vectors, counted from 1; row 0 of the features is padding.

    Args:
        sequences_path: sequences.parquet.
        vectors_path: vectors.npy.
        ids_path: ids.parquet.
        paths: of the files for train, valid and test.
        feature_path: X.feat1CLS.
        index_path: item_index.parquet, which says the token of each item.

    Returns:
        As :func:`write_inter`.

    Raises:
        SidmillError: if an item of the histories has no vector.
    """
    store = vector_store.open_store(vectors_path, ids_path)
    ids = store.ids.combine_chunks()
    numbers = np.arange(1, len(ids) + 1)
    items = item_numbers.make(ids, numbers)
    counts = _write_inter(_users(sequences_path, items), paths, sequences_path)
    with replacing(feature_path) as temporary, temporary.open("wb") as out:
        out.write(np.zeros(store.vectors.shape[1], dtype="<f4").data)
        for _, block in read_blocks(store.vectors, MAX_BLOCK_ROWS):
            out.write(np.ascontiguousarray(block, dtype="<f4").data)
    item_index.write(index_path, store.ids, numbers)
    return counts


def write_user_sequences(
    sequences_path: str | Path, text_path: str | Path, paths: list[str]
) -> dict[str, int]:
    """Write padded user_sequence rows, 50 items each, for train, valid and test.

    A train row shows training items; a longer history gives several, each beginning with the last
    item of the one before it, so every item but a user's first has one before it. Each held-out
    item has a row that ends with it. Items are integers, as in item_index.parquet of the memory
    maps.

    Args:
        sequences_path: sequences.parquet.
        text_path: text.parquet, for the numbers of string ids.
        paths: of the files for train, valid and test.

    Returns:
        Rows by split.
    """
    counts = dict.fromkeys(SPLITS, 0)
    with ExitStack() as stack:
        files = [_text(stack.enter_context(replacing(path))) for path in paths]
        for out in files:
            stack.callback(out.close)
        numbers = item_numbers.as_indexed(text_path, sequences_path)
        for user in _users(sequences_path, numbers):
            for split, items in _padded(user):
                row = {"user_id": user.name, "user_sequence": items}
                files[split].write(_json(row) + "\n")
                counts[SPLITS[split]] += 1
        for out in files:
            out.flush()
    return counts


def write_onerec(sequences_path: str | Path, metadata_path: str | Path) -> dict[str, int]:
    """Write OneRec's metadata: a train and a test row per user.

    The train row has the latest training items as targets, half of them and ten at most, and those
    before as history. The test row has all test items as targets, and as history what stands before
    the first, validation items too. Users and items are integers where all of them are.

    Returns:
        ``train`` and ``test``: rows; ``left_out``: users with neither.
    """
    # Types of the columns.
    items = sequence_table.pid_type(sequences_path)
    users = pa.int64() if _all_integers(sequences_path) else pa.string()
    lists = pa.list_(items)
    schema = pa.schema(
        [("uid", users), ("split", pa.int64()), *((name, lists) for name in METADATA_LISTS)]
    )
    counts = {"train": 0, "test": 0, "left_out": 0}

    def tables() -> Iterator[pa.Table]:
        for group in sequence_table.read(sequences_path):
            rows = []
            for user in _of_table(group):
                name = int(user.name) if users == pa.int64() else user.name
                own = [(name, *row) for row in _metadata(user)]
                counts["left_out"] += not own
                for row in own:
                    counts["test" if row[1] else "train"] += 1
                rows += own

            # From rows to columns.
            columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 4
            arrays = [
                pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)
            ]
            yield pa.table(arrays, schema=schema)

    parquet.write(metadata_path, schema, tables())
    return counts


def _metadata(user: User) -> Iterator[tuple[int, list[Any], list[Any]]]:
    """Split 0 or 1, history and targets of a user's rows."""
    train = [item for item, split in zip(user.items, user.splits, strict=True) if split == TRAIN]
    n_targets = min(len(train) // 2, ONEREC_TARGETS)
    if n_targets:
        yield 0, train[:-n_targets], train[-n_targets:]
    if TEST in user.splits:
        first = user.splits.index(TEST)
        before = [
            item
            for item, split in zip(user.items[:first], user.splits[:first], strict=True)
            if split != TEST
        ]
        targets = [
            item for item, split in zip(user.items, user.splits, strict=True) if split == TEST
        ]
        yield 1, before, targets


def _padded(user: User) -> Iterator[tuple[int, list[int]]]:
    """Split and 50 items of each of a user's rows."""
    train = [item for item, split in zip(user.items, user.splits, strict=True) if split == TRAIN]
    ends = list(range(len(train), 1, 1 - SEQUENCE_LENGTH)) or ([1] if train else [])
    for end in reversed(ends):
        yield TRAIN, _left_padded(train[max(end - SEQUENCE_LENGTH, 0) : end])
    for index, split in enumerate(user.splits):
        if split != TRAIN:
            begin = max(index + 1 - SEQUENCE_LENGTH, 0)
            yield split, _left_padded(user.items[begin : index + 1])


def _left_padded(items: list[int]) -> list[int]:
    return [0] * (SEQUENCE_LENGTH - len(items)) + items


def _write_inter(
    users: Iterator[User], paths: list[str], sequences_path: str | Path
) -> dict[str, int]:
    counts = dict.fromkeys((*SPLITS, "without_history"), 0)
    with ExitStack() as stack:
        files = [_text(stack.enter_context(replacing(path))) for path in paths]
        for out in files:
            stack.callback(out.close)
            out.write(INTER_HEADER)
        for user in users:
            # A blank in an id would part it in two.
            tokens = [str(item) for item in user.items]
            odd = next((token for token in (user.name, *tokens) if BLANK.search(token)), None)
            if odd is not None:
                raise SidmillError(
                    f"{sequences_path}: {odd!r} holds a blank, which parts items in .inter files: "
                    f"give users and items ids without blanks"
                )

            # A row per item but the first: the items before it, and the item.
            counts["without_history"] += 1
            for index in range(1, len(tokens)):
                before = " ".join(tokens[max(index - INTER_HISTORY, 0) : index])
                split = user.splits[index]
                files[split].write(f"{user.name}\t{before}\t{tokens[index]}\n")
                counts[SPLITS[split]] += 1
        for out in files:
            out.flush()
    return counts


def _users(sequences_path: str | Path, numbers: ItemNumbers | None = None) -> Iterator[User]:
    """All users; items as in the catalogue, or by their numbers."""
    for table in sequence_table.read(sequences_path):
        if numbers is not None:
            lists = table["item_ids"].combine_chunks()
            items = pa.array(item_numbers.find(numbers, lists.flatten(), sequences_path))
            offsets = np.concatenate([[0], np.cumsum(lists.value_lengths())]).astype(np.int32)
            named = pa.ListArray.from_arrays(pa.array(offsets), items)
            table = table.set_column(1, "item_ids", named)
        yield from _of_table(table)


def _of_table(table: pa.Table) -> Iterator[User]:
    columns = (table[name].to_pylist() for name in ("user_id", "item_ids", "splits"))
    yield from (User(*row) for row in zip(*columns, strict=True))


def _all_integers(sequences_path: str | Path) -> bool:
    """Whether every user id is an integer written plainly, of 18 digits at most."""
    plain = r"^(0|-?[1-9][0-9]{0,17})$"
    return all(
        pc.all(pc.match_substring_regex(table["user_id"], plain)).as_py()
        for table in sequence_table.read(sequences_path)
    )


def _text(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
