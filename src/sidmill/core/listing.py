"""Lists of names inside a message, at most as many as a person reads."""

from collections.abc import Iterable, Mapping
from typing import Any

MOST_NAMES = 20


def some(names: Iterable[object], most: int = MOST_NAMES) -> str:
    """The names, separated by commas; of a long list the first names and the number of the others.

    Args:
        names: anything; the ``str`` of each is taken.
        most: number of names that are listed.
    """
    texts = [str(name) for name in names]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more:,} more" if more > 0 else "")


def differences(one: Mapping[str, Any], other: Mapping[str, Any], names: tuple[str, str]) -> str:
    """List the entries that differ, as ``dim: 64 in the quantizer, 32 in the vectors``.

    Empty if none differs.

    Args:
        one: a mapping; a missing key counts as None.
        other: the mapping to compare it with.
        names: what the two are, for instance ``in the quantizer`` and ``in the vectors``.
    """
    return "; ".join(
        f"{key}: {one.get(key)!r} {names[0]}, {other.get(key)!r} {names[1]}"
        for key in sorted({*one, *other})
        if one.get(key) != other.get(key)
    )
