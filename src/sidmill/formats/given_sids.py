"""Existing SIDs from other software: read, and refused if they are not valid SIDs.

    pid2sid.parquet  pid, sid list of integers
    codes.parquet    pid, codes list of integers
    index.json       {"0": ["<a_1>", "<b_2>", "<c_3>"]}, as of LC-Rec and MiniOneRec

Shapes: N items, L levels, K_l codes at level l.
"""

import re
import reprlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.formats.code_files import SIZES_KEY, Codes
from sidmill.formats.sid_text import MAX_LEVELS
from sidmill.io import parquet

SHOWN = 20  # names in a message
MAX_CODES = 1 << 20  # of a level, as everywhere here
COLUMNS = ("sid", "codes")
INTEGERS = (
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
)
TOKEN = re.compile(r"<([a-z])_(0|[1-9][0-9]{0,9})>")
PLAIN_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
ADVICE = "correct the file"


def read(path: str | Path, id_offset: int = 0, integer: bool | None = None) -> Codes:
    """Read the SIDs of a file. Memory: about 100 bytes per item, and the ids.

    Args:
        path: .parquet with ``pid`` and one of ``sid`` and ``codes``, or .json.
        id_offset: added to every id: 1 where the file counts from 0 and the catalogue from 1.
        integer: whether ids are int64, as in the catalogue, or strings; None: integers where all
            are written as such.

    Returns:
        ids, codes int32 (N, L) and sizes: those that the metadata of a parquet file says, else the
        largest code of each level + 1.

    Raises:
        SidmillError: if the file is neither; if a SID is broken, of another length than the first,
            or negative; if an id is listed twice, or is no integer where integers are wanted.
    """
    # Ids and SIDs as the file has them, (N, L).
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".parquet"):
        raise SidmillError(
            f"{path}: SIDs are read from .parquet (pid, sid or codes) and .json "
            f'({{"0": ["<a_1>", "<b_2>"]}}): name a file of these'
        )
    ids, codes, stored = _read_index(path) if suffix == ".json" else _read_parquet(path)
    if not codes.size:
        raise SidmillError(f"{path}: holds no SID: name a file that does")
    if codes.shape[1] > MAX_LEVELS:
        raise SidmillError(
            f"{path}: SIDs of {codes.shape[1]} tokens, at most {MAX_LEVELS} have letters: {ADVICE}"
        )

    # Ids of the type of the catalogue, and codes that fit in their codebooks.
    ids = _as_catalogue(path, ids, id_offset, integer)
    _check_ids(path, ids)
    _check_range(path, ids, codes)
    sizes = codes.max(axis=0) + 1
    if stored and (len(stored) != len(sizes) or (sizes > np.asarray(stored)).any()):
        raise SidmillError(
            f"{path}: its metadata says codebooks of {stored}, its codes need {sizes.tolist()}: "
            f"write it again, or without {SIZES_KEY!r} in its metadata"
        )
    return Codes(ids, codes.astype(np.int32), [int(size) for size in stored or sizes])


def named(values: list[Any]) -> str:
    """The first of some names, and how many more there are."""
    shown = ", ".join(
        repr(value) if isinstance(value, str) else str(value) for value in values[:SHOWN]
    )
    return shown + (f" and {len(values) - SHOWN} more" if len(values) > SHOWN else "")


def _read_parquet(path: str | Path) -> tuple[pa.ChunkedArray, np.ndarray, list[Any]]:
    names = parquet.open_file(path, {"pid": _is_id}).schema_arrow.names
    columns = [name for name in COLUMNS if name in names]
    if len(columns) != 1:
        raise SidmillError(
            f"{path}: wanted a column sid or a column codes beside pid, found "
            f"{' and '.join(columns) or ', '.join(names)}: keep one of them"
        )
    file = parquet.open_file(path, {columns[0]: parquet.is_list_of(*INTEGERS)})
    table = file.read(columns=["pid", columns[0]])
    if table["pid"].null_count:
        raise SidmillError(f"{path}: {table['pid'].null_count} rows without a pid: {ADVICE}")
    codes = parquet.matrix(path, table[columns[0]], columns[0], ADVICE)
    stored = parquet.metadata_json(file, SIZES_KEY)
    if stored and not (isinstance(stored, list) and all(isinstance(one, int) for one in stored)):
        raise SidmillError(
            f"{path}: its metadata says codebooks of {stored!r:.80}: write it again, or without "
            f"{SIZES_KEY!r} in its metadata"
        )
    return table["pid"], codes, list(stored)


def _is_id(kind: pa.DataType) -> bool:
    return parquet.is_pid(kind) or kind in INTEGERS


def _read_index(path: str | Path) -> tuple[pa.ChunkedArray, np.ndarray, list[Any]]:
    """Read index.json item by item; broken SIDs are gathered, and named at the end."""
    # Codes of all items in one flat array: 8 bytes per code.
    names: list[str] = []
    flat, n_levels = array("q"), 0
    broken: list[str] = []
    for name, tokens in _entries(path):
        n_levels = n_levels or len(tokens)
        problem = _problem(tokens, n_levels)
        if problem:
            broken.append(f"{reprlib.repr(name)}: {problem}")
            continue
        names.append(name)
        # "<b_12>" is code 12: the form was checked.
        flat.extend(int(token.partition("_")[2][:-1]) for token in tokens)

    if broken:
        raise SidmillError(
            f"{path}: {len(broken)} of {len(names) + len(broken)} items have no SID of the form "
            f"<a_1> <b_2> ...: {'; '.join(broken[:SHOWN])}"
            f"{f' and {len(broken) - SHOWN} more' if len(broken) > SHOWN else ''}: {ADVICE}"
        )
    codes = np.frombuffer(flat, dtype=np.int64) if names else np.empty(0, dtype=np.int64)
    return pa.chunked_array([pa.array(names, pa.string())]), codes.reshape(len(names), n_levels), []


def _entries(path: str | Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield key and list of each entry; a repeated key is yielded again, values may be of any type.

    Raises:
        SidmillError: if the file is no JSON object of lists.
    """
    expected = f'{path}: wanted {{"0": ["<a_1>", "<b_2>"], ...}}, found'
    name: str | None = None  # of the entry that is being read
    tokens: list[Any] | None = None  # its list, once the list has begun
    n_entries = 0

    # One pass over the events of the parser: a key, its list, the values in it.
    try:
        with Path(path).open("rb") as file:
            for event, value in ijson.basic_parse(file):
                if event == "map_key" and tokens is None:
                    name = value
                elif event == "start_array" and name is not None and tokens is None:
                    tokens = []
                elif event == "end_array" and name is not None and tokens is not None:
                    yield name, tokens
                    name, tokens, n_entries = None, None, n_entries + 1
                elif tokens is not None and event in ("string", "number", "boolean", "null"):
                    tokens.append(value)
                elif not (event in ("start_map", "end_map") and name is None and tokens is None):
                    shown = f"a {event.replace('_', ' ')}" if value is None else reprlib.repr(value)
                    where = (
                        f"under {name!r:.80}" if name is not None else f"after {n_entries} items"
                    )
                    raise SidmillError(f"{expected} {shown} {where}: {ADVICE}")
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file") from None
    except (ijson.JSONError, UnicodeDecodeError, OSError) as error:
        raise SidmillError(
            f"{path}: not JSON after {n_entries} items ({str(error).splitlines()[0]}): {ADVICE}"
        ) from None


def _problem(tokens: list[Any], n_levels: int) -> str:
    """What is wrong with the tokens of one item; empty where nothing is."""
    if len(tokens) != n_levels or not tokens:
        return f"{len(tokens)} tokens, the first item has {n_levels}" if n_levels else "no tokens"
    for level, token in enumerate(tokens[:MAX_LEVELS]):
        match = TOKEN.fullmatch(token) if isinstance(token, str) else None
        if match is None:
            return f"{reprlib.repr(token)} is no token"
        if match[1] != chr(ord("a") + level):
            return f"{token} stands at level {level + 1}, wanted <{chr(ord('a') + level)}_...>"
    return ""


def _as_catalogue(
    path: str | Path, ids: pa.ChunkedArray, id_offset: int, integer: bool | None
) -> pa.ChunkedArray:
    """Ids of the type that the catalogue has, moved by the offset."""
    if not pa.types.is_integer(ids.type):
        # Strings become integers where all are, or where the catalogue has integers.
        ids = parquet.pids(ids)
        plain = pc.match_substring_regex(ids, PLAIN_INTEGER)
        strays = ids.filter(pc.invert(plain))
        if integer is None:
            integer = not len(strays)
        if not integer and not id_offset:
            return ids
        if len(strays):
            names = named(strays.slice(0, SHOWN).to_pylist())
            if integer:
                raise SidmillError(
                    f"{path}: {len(strays)} ids are no integers, as those of the catalogue are: "
                    f"{names}: correct the file, or set items.id_type: string"
                )
            raise SidmillError(
                f"given.id_offset: found {id_offset}, but {len(strays)} ids of {path} are no "
                f"integers: {names}: set it to 0"
            )

    numbers = _moved(path, ids, id_offset)
    return numbers.cast(pa.string()) if integer is False else numbers


def _moved(path: str | Path, ids: pa.ChunkedArray, id_offset: int) -> pa.ChunkedArray:
    try:
        return pc.add_checked(ids.cast(pa.int64()), pa.scalar(id_offset, pa.int64()))
    except pa.ArrowInvalid as error:
        raise SidmillError(
            f"{path}: ids moved by given.id_offset ({id_offset}) do not fit in 64 bits "
            f"({str(error).splitlines()[0]}): correct the ids or the offset, or set items.id_type: "
            f"string and given.id_offset: 0"
        ) from None


def _check_ids(path: str | Path, ids: pa.ChunkedArray) -> None:
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = ids.value_counts()
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist()
    raise SidmillError(
        f"{path}: {len(twice)} items are listed twice or more: {named(twice)}: keep one SID of each"
    )


def _check_range(path: str | Path, ids: pa.ChunkedArray, codes: np.ndarray) -> None:
    """Refuse codes below 0, and such as no codebook has."""
    for bad, what in (
        ((codes < 0).any(axis=1), "a code below 0"),
        ((codes >= MAX_CODES).any(axis=1), f"a code of {MAX_CODES} or more"),
    ):
        if bad.any():
            rows = np.flatnonzero(bad)
            names = named(ids.take(pa.array(rows)).to_pylist())
            raise SidmillError(f"{path}: {len(rows)} items have {what}: {names}: {ADVICE}")
