"""Names inside a message: never more of them than a person reads."""

from collections.abc import Iterable

MOST_NAMES = 20


def some(names: Iterable[object], most: int = MOST_NAMES) -> str:
    """The names with commas between them; of a long list the first ones and how many more.

    Args:
        names: anything; the ``str`` of each is taken.
        most: names that are listed.
    """
    texts = [str(name) for name in names]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more:,} more" if more > 0 else "")
