"""Lists of names inside a message, at most as many as a person reads."""

from collections.abc import Iterable

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
