"""The description of a file of any format: facts, figures, checks and a few rows."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

LOOKED_ROWS = 1_000_000  # rows that figures and checks are of, unless all are asked for
LOOKED_BYTES = 256 << 20  # the same for vectors
BLOCK_BYTES = 16 << 20
# The remedy for a damaged file: of the user, or of a run.
ANOTHER = "take another copy of it; if a run here made it, delete it and give that run again"


class Budget(NamedTuple):
    """How much to look at: ``rows`` to show, and whether to read all of a large file."""

    rows: int
    whole: bool

    def rows_of(self, total: int, row_bytes: int = 1) -> int:
        """How many of ``total`` rows to look at."""
        most = min(LOOKED_ROWS, max(LOOKED_BYTES // max(row_bytes, 1), 1))
        return total if self.whole else min(total, most)


class Check(NamedTuple):
    """One check: passed (``ok``), failed, or not made (None)."""

    what: str
    ok: bool | None
    says: str = ""


@dataclass
class Description:
    """What a file is.

    Attributes:
        path: as it was given.
        kind: in words, as docs/formats.md has it.
        bytes: size on disk, of all files of a folder.
        facts: shape, dtype, columns, entries of the metadata; in the order to show them.
        figures: what was counted or measured.
        sample: its first rows.
        checks: whether the content is as the format demands.
    """

    path: str
    kind: str
    bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    sample: list[Any] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def check(self, what: str, ok: bool | None, says: str = "") -> None:
        """Add a check."""
        self.checks.append(Check(what, None if ok is None else bool(ok), says))

    @property
    def sound(self) -> bool:
        """Whether no check failed."""
        return all(check.ok is not False for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        checks = [check._asdict() for check in self.checks]
        return {**asdict(self), "checks": checks, "sound": self.sound}


def looked_at(looked: int, total: int) -> str:
    """Say on how much a figure rests."""
    return "" if looked >= total else f"{looked:,} of {total:,} rows; --all looks at all"
