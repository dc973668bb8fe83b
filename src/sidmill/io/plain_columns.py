"""Arrow columns of any writer, converted to the few types that the stages read.

    text      string, large_string, string_view, dictionary of them, UTF-8 binary  -> large_string
    integers  of any width and sign, decimals without a fraction                   -> int64
    floats    of any width, decimals with a fraction                               -> double
    lists     list, large_list, fixed_size_list, list views                        -> large_list

pandas 3 writes large_string, categoricals are dictionaries, polars writes string views, Spark may
write text as binary: all of them hold the same values.
"""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_type

from sidmill.core.errors import SidmillError

TEXT = pa.large_string()
WHOLE_FLOATS = 2.0**53  # up to this size floats are exact integers


def plain(column: pa.Array | pa.ChunkedArray, where: str) -> pa.Array | pa.ChunkedArray:
    """Convert a column to its plain type; a column of that type is returned as it is.

    Lists of integers of another width stay as they are: their readers take any width.

    Args:
        column: n values.
        where: name of the column for the message.

    Raises:
        SidmillError: if a value does not fit: an integer beyond 64 bits, bytes that are not UTF-8.
    """
    column = _unwrapped(column)
    kind = column.type
    if _is_plain(kind):
        return column
    if is_list(kind):
        return _plain_lists(column, where)
    target = _scalar(kind)
    try:
        return column.cast(target)
    except pa.ArrowInvalid as error:
        remedy = "write it as UTF-8 text" if target == TEXT else "write it as text"
        reason = str(error).splitlines()[0]
        raise SidmillError(
            f"{where} is {kind}, and a value does not fit ({reason}): {remedy}"
        ) from None


def of_field(columns: pa.RecordBatch, name: str, *, binary_is_text: bool) -> pa.Array | None:
    """The column of a field, text of any kind as strings; None where there is none.

    Args:
        columns: n rows.
        name: of the field.
        binary_is_text: whether binary is text, too; if not, it stays binary.

    Raises:
        pa.ArrowInvalid: if bytes that are text are not UTF-8.
    """
    if name not in columns.schema.names:
        return None
    values = columns.column(name)
    if is_type.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    is_text = is_type.is_large_string(kind) or is_type.is_string_view(kind)
    if binary_is_text:
        is_text = is_text or is_type.is_binary(kind) or is_type.is_large_binary(kind)
    return values.cast(pa.string()) if is_text else values


def kind_of(kind: pa.DataType, where: str) -> pa.DataType:
    """The type that :func:`plain` gives a column of type ``kind``."""
    return plain(pa.nulls(0, kind), where).type


def whole(column: pa.Array | pa.ChunkedArray, where: str) -> pa.Array | pa.ChunkedArray:
    """Ids as int64 or large_string: floats that are whole numbers are integers.

    pandas makes floats of an integer column that lacks a value.

    Raises:
        SidmillError: if a float is not a whole number that floats hold exactly, or the column holds
            neither numbers nor text.
    """
    column = plain(column, where)
    if is_type.is_floating(column.type):
        column = _whole_floats(column, where)
    if not (is_type.is_integer(column.type) or column.type == TEXT or is_type.is_null(column.type)):
        raise SidmillError(f"{where} is {column.type}: write ids as integers or as text")
    return column


def _whole_floats(column: pa.Array | pa.ChunkedArray, where: str) -> pa.Array | pa.ChunkedArray:
    """Floats that are whole numbers as int64; NaN becomes null."""
    is_whole = pc.and_(
        pc.equal(pc.floor(column), column), pc.less_equal(pc.abs(column), WHOLE_FLOATS)
    )
    column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    fits = pc.or_(pc.fill_null(is_whole, True), pc.fill_null(pc.is_null(column), True))
    if not pc.all(fits, min_count=0).as_py():
        fraction = column.filter(pc.invert(fits))[0].as_py()
        raise SidmillError(
            f"{where} holds the float {fraction!r}, which is not a whole number up to 2^53: write "
            f"ids as integers or as text"
        )
    return column.cast(pa.int64())


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of the list types."""
    return bool(
        is_type.is_list(kind)
        or is_type.is_large_list(kind)
        or is_type.is_fixed_size_list(kind)
        or is_type.is_list_view(kind)
        or is_type.is_large_list_view(kind)
    )


def _is_plain(kind: pa.DataType) -> bool:
    """Whether :func:`plain` leaves columns of an unwrapped type as they are."""
    if not is_list(kind):
        return bool(_scalar(kind) == kind)
    values = kind.value_type
    is_wrapped = is_type.is_dictionary(values) or is_type.is_run_end_encoded(values)
    if is_wrapped or isinstance(values, pa.BaseExtensionType):
        return False
    is_integer = is_type.is_integer(values) and values != pa.uint64()
    has_offsets = is_type.is_list(kind) or is_type.is_large_list(kind)
    return bool(has_offsets and (is_integer or _is_plain(values)))


def _scalar(kind: pa.DataType) -> pa.DataType:
    """The plain type of a type that is not a list; types of other kinds (dates, maps) stay."""
    text = (is_type.is_string, is_type.is_string_view, is_type.is_binary, is_type.is_large_binary,
            is_type.is_binary_view, is_type.is_fixed_size_binary)  # fmt: skip
    if any(test(kind) for test in text):
        return TEXT
    if is_type.is_integer(kind):
        return pa.int64()
    if is_type.is_decimal(kind):
        return pa.int64() if kind.scale <= 0 else pa.float64()
    return pa.float64() if is_type.is_floating(kind) else kind


def _unwrapped(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The values that dictionaries, runs and extension types encode."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _unwrapped(_by_chunk(column, kind.storage_type, lambda array: array.storage))
    if is_type.is_dictionary(kind):
        values = _without_views(kind.value_type)  # Arrow does not gather views
        return _by_chunk(column, values, lambda a: a.dictionary.cast(values).take(a.indices))
    if is_type.is_run_end_encoded(kind):
        return _unwrapped(pc.run_end_decode(column))
    return column


def _without_views(kind: pa.DataType) -> pa.DataType:
    if is_type.is_binary_view(kind):
        return pa.large_binary()
    return TEXT if is_type.is_string_view(kind) else kind


def _by_chunk(
    column: pa.Array | pa.ChunkedArray,
    kind: pa.DataType,
    convert: Callable[[pa.Array], pa.Array],
) -> pa.Array | pa.ChunkedArray:
    """Convert each chunk of a column; ``kind`` is the type of the result."""
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([convert(chunk) for chunk in column.chunks], kind)
    return convert(column)


def _plain_lists(column: pa.Array | pa.ChunkedArray, where: str) -> pa.LargeListArray:
    """Lists of any layout as large lists of plain values; a null stays null."""
    if isinstance(column, pa.ChunkedArray):
        chunks = column.chunks or [pa.nulls(0, column.type)]
        column = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
    lengths = pc.fill_null(pc.list_value_length(column), 0).cast(pa.int64())
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths)])
    values = plain(pc.list_flatten(column), where)
    mask = pc.is_null(column) if column.null_count else None
    return pa.LargeListArray.from_arrays(offsets, values, mask=mask)
