"""Many events of a log at once, from the columns of a block of its rows.

They are those that ``rows.py`` and ``validate.py`` read row by row. A value that does not show at
once what it is leaves its row to them.

Letters: n rows of a block.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_type

from sidmill.formats.log_rows import NS
from sidmill.interactions import times as timestamps
from sidmill.interactions.rows import (
    EXACT,
    SPLIT_VALUES,
    BadRowError,
    is_missing,
    split_number,
)
from sidmill.interactions.times import DATE, MILLION, NUMBER, Clock
from sidmill.io import plain_columns

MOST_BY_ROW = 0.25  # share of rows to read by themselves from which all of them are
MOST_SPLITS = 100  # ways to write the splits
SURE_FLOAT = 2.0**62  # below it a whole float is an integer of 64 bits
LARGEST = 2**63 - 1
DAY = 86400 * NS["s"]  # nanoseconds
VISIBLE = r"[!-~]|\p{L}|\p{N}"  # text with such a character is not blank
WHOLE_FLOAT = r"^(-?[0-9]+)\.0+$"  # rows.WHOLE_FLOAT
ITEM = r"^[1-9][0-9]{0,17}(\.0+)?$"  # an id above 0 that 64 bits hold
INTEGER = r"^(0|-?[1-9][0-9]{0,17})(\.0+)?$"
DATE_AND_TIME = (
    r"^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z?$"
)
SECONDS_END = 19  # of such a text
EVENTS = ("user", "row", "item", "time", "split")


class Events(NamedTuple):
    """The rows of a block as events.

    Attributes:
        table: (n,): user string, row int64, item of the catalogue's type, time int64, split int8
            or null.
        by_row: positions of the rows that have to be read by themselves, ascending; what the table
            has there means nothing.
        n_float_users: how many other rows write their user as a float.
    """

    table: pa.Table
    by_row: list[int]
    n_float_users: int


class Meaning(NamedTuple):
    """What the columns of a log mean.

    Attributes:
        names: of the fields, by ``user``, ``item``, ``time`` and ``split``.
        id_type: of the catalogue's ids, int64 or string.
        clock: how timestamps are read.
        needs_splits: whether each row has to say its split.
    """

    names: dict[str, str]
    id_type: pa.DataType
    clock: Clock
    needs_splits: bool


def read(
    columns: pa.RecordBatch, numbers: np.ndarray, meaning: Meaning, file_split: int | None
) -> Events | None:
    """Read the columns of a block; None where all rows have to be read by themselves.

    Args:
        columns: of the fields that the block has, (n,).
        numbers: int64 (n,), of the rows in their file.
        meaning: what they mean.
        file_split: the split that the name of the file says, or None.
    """
    # Each field by itself, null where its row needs a closer look.
    user, item, time, said = (
        plain_columns.of_field(columns, meaning.names[role], binary_is_text=True)
        for role in ("user", "item", "time", "split")
    )
    if user is None or item is None or time is None:
        return None
    users, is_float = _users(user)
    items = _items(item, meaning.id_type)
    times = _times(time, meaning.clock)
    splits, is_split = _splits(said, len(numbers), file_split)
    if users is None or items is None or times is None or splits is None:
        return None

    # The rows that are left to others.
    is_sure = np.asarray(is_split)
    for values in (users, items, times, *([splits] if meaning.needs_splits else [])):
        if values.null_count:
            is_sure = is_sure & values.is_valid().to_numpy(zero_copy_only=False)
    by_row = np.flatnonzero(~is_sure)
    if len(by_row) > MOST_BY_ROW * len(is_sure):
        return None
    table = pa.table([users, pa.array(numbers), items, times, splits], names=EVENTS)
    return Events(table, by_row.tolist(), int(np.count_nonzero(is_float & is_sure)))


def _is_float(kind: pa.DataType) -> bool:
    return bool(is_type.is_float32(kind) or is_type.is_float64(kind))


def _users(values: pa.Array) -> tuple[pa.Array | None, np.ndarray]:
    """User ids as text, string (n,), and which of them are written as floats, bool (n,)."""
    nowhere = np.zeros(len(values), dtype=bool)
    if is_type.is_integer(values.type):
        return values.cast(pa.string()), nowhere
    if _is_float(values.type):
        return _whole(values, EXACT).cast(pa.string()), ~nowhere
    if not is_type.is_string(values.type):
        return None, nowhere

    # Text; 7.0 is 7.
    users = _where(pc.match_substring_regex(values, VISIBLE), values)
    is_float = _mask(pc.match_substring_regex(users, WHOLE_FLOAT))
    if is_float.any():
        users = pc.replace_substring_regex(users, WHOLE_FLOAT, r"\1")
    return users, is_float


def _items(values: pa.Array, id_type: pa.DataType) -> pa.Array | None:
    """Item ids (n,) as ``catalogue_ids.as_id`` makes them."""
    # Ids as text.
    if id_type != pa.int64():
        if is_type.is_integer(values.type):
            return values.cast(id_type)
        is_text = is_type.is_string(values.type)
        return _where(pc.match_substring_regex(values, VISIBLE), values) if is_text else None

    # Ids as integers above 0; a uint64 that 64 bits with a sign do not hold becomes negative.
    if is_type.is_string(values.type):
        return _integers(values, ITEM)
    if is_type.is_integer(values.type):
        whole = values.cast(pa.int64(), safe=False)
    elif _is_float(values.type):
        whole = _whole(values, EXACT)
    else:
        return None
    return _where(pc.greater(whole, 0), whole)


def _times(values: pa.Array, clock: Clock) -> pa.Array | None:
    """Timestamps int64 (n,) as ``times.read`` makes them."""
    kind = values.type
    if is_type.is_timestamp(kind) or is_type.is_date(kind):
        return _moments(values, clock) if clock.kind == DATE else None
    if is_type.is_integer(kind) and kind != pa.uint64():
        if clock.kind == NUMBER and (clock.plain or clock.format is None):
            return _in_unit(values.cast(pa.int64()), clock)
    elif _is_float(kind) and clock.kind == NUMBER:
        floats = pc.floor(values) if clock.fractions == "floor" else values
        return _with_others(_in_unit(_whole(floats, SURE_FLOAT), clock), values, clock)
    elif is_type.is_string(kind) and clock.format is None:
        read_all = _in_unit(_integers(values, INTEGER), clock) if clock.kind == NUMBER else None
        read_all = _dates(values, clock) if clock.kind == DATE else read_all
        return _with_others(read_all, values, clock)
    elif not is_type.is_string(kind):
        return None
    return _with_others(pa.nulls(len(values), pa.int64()), values, clock)


def _with_others(read_times: pa.Array, values: pa.Array, clock: Clock) -> pa.Array:
    """Times (n,), where those that are null are read one by one, each value once."""
    is_open = _mask(pc.and_(read_times.is_null(), values.is_valid()))
    if not is_open.any():
        return read_times
    others = values.filter(pa.array(is_open)).dictionary_encode()
    single = pa.array([_time(value, clock) for value in others.dictionary.to_pylist()], pa.int64())
    return pc.replace_with_mask(read_times, pa.array(is_open), single.take(others.indices))


def _time(value: object, clock: Clock) -> int | None:
    try:
        return timestamps.read(value, clock)
    except ValueError:
        return None


def _in_unit(whole: pa.Array, clock: Clock) -> pa.Array:
    """Numbers int64 (n,) as ``time_fractions`` has them; null where they do not fit."""
    return _multiplied(whole, 1 if clock.fractions != "millionths" else MILLION)


def _moments(values: pa.Array, clock: Clock) -> pa.Array:
    """Dates and times of Arrow as int64 (n,) in the unit of the clock, rounded down."""
    kind = values.type
    if is_type.is_date32(kind):
        factor, values = DAY, values.cast(pa.int32())
    else:
        factor = NS[kind.unit] if is_type.is_timestamp(kind) else NS["ms"]
    counts, unit = values.cast(pa.int64()), NS[clock.unit]
    if factor >= unit:
        return _multiplied(counts, factor // unit)
    filled = counts.fill_null(0).to_numpy() // (unit // factor)
    return _where(counts.is_valid(), pa.array(filled))


def _dates(values: pa.Array, clock: Clock) -> pa.Array:
    """Texts such as 2023-05-01T10:00:00.25Z as int64 (n,) in the unit of the clock."""
    usual = _where(pc.match_substring_regex(values, DATE_AND_TIME), values)
    try:
        seconds = pc.utf8_slice_codeunits(usual, 0, SECONDS_END).cast(pa.timestamp("s"))
    except pa.ArrowInvalid:  # the 31st of February
        return pa.nulls(len(values), pa.int64())
    times = pc.multiply(seconds.cast(pa.int64()), NS["s"] // NS[clock.unit])

    # Behind the seconds: nothing, a fraction, Z.
    digits = pc.utf8_trim(pc.utf8_slice_codeunits(usual, SECONDS_END), ".Z")
    if not pc.any(pc.not_equal(digits, "")).as_py():
        return times
    nanoseconds = pc.utf8_rpad(digits, 9, "0").cast(pa.int64())
    return pc.add(times, pc.divide(nanoseconds, NS[clock.unit]))


def _splits(
    values: pa.Array | None, n_rows: int, file_split: int | None
) -> tuple[pa.Array | None, np.ndarray]:
    """The splits that rows say, int8 (n,), null for none, and which of them are splits, bool."""
    everywhere = np.ones(n_rows, dtype=bool)
    if values is None or is_type.is_null(values.type):
        same = pa.nulls(n_rows, pa.int8())
        return same if file_split is None else same.fill_null(file_split), everywhere
    kind = values.type
    if not (is_type.is_string(kind) or is_type.is_integer(kind) or _is_float(kind)):
        return None, everywhere

    # Few values, each read once; a null says what the name of the file says.
    encoded = values.dictionary_encode()
    if len(encoded.dictionary) > MOST_SPLITS:
        return None, everywhere
    numbers: list[int | None] = []
    is_split: list[bool] = []
    for value in [*encoded.dictionary.to_pylist(), None]:
        try:
            number = file_split if is_missing(value) else split_number(value, SPLIT_VALUES)
        except BadRowError:
            number = -1
        numbers.append(number)
        is_split.append(number != -1)
    codes = encoded.indices.fill_null(len(numbers) - 1)
    return pa.array(numbers, pa.int8()).take(codes), np.array(is_split)[codes.to_numpy()]


def _whole(values: pa.Array, limit: float) -> pa.Array:
    """Floats (n,) that are whole and smaller than a limit as int64; null for others."""
    floats = values.cast(pa.float64()).fill_null(np.nan).to_numpy()
    is_whole = (np.floor(floats) == floats) & (np.abs(floats) < limit)
    return pa.array(np.where(is_whole, floats, 0).astype(np.int64), mask=~is_whole)


def _integers(values: pa.Array, pattern: str) -> pa.Array:
    """Texts (n,) of a pattern of integers, which may end in .0, as int64; null for others."""
    usual = _where(pc.match_substring_regex(values, pattern), values)
    if pc.any(pc.match_substring(usual, ".")).as_py():
        usual = pc.replace_substring_regex(usual, WHOLE_FLOAT, r"\1")
    return usual.cast(pa.int64())


def _multiplied(numbers: pa.Array, factor: int) -> pa.Array:
    """Integers int64 (n,) times a factor; null where 64 bits do not hold the product."""
    if factor == 1:
        return numbers
    limit = LARGEST // factor
    fits = pc.and_(pc.less_equal(numbers, limit), pc.greater_equal(numbers, -limit))
    return pc.multiply(_where(fits, numbers), factor)


def _where(is_usual: pa.Array, values: pa.Array) -> pa.Array:
    """The same values (n,), null where they are not usual."""
    return pc.if_else(is_usual, values, pa.scalar(None, values.type))


def _mask(is_true: pa.Array) -> np.ndarray:
    """Bool (n,) for NumPy, where null is false."""
    return np.asarray(is_true.fill_null(False).to_numpy(zero_copy_only=False))
