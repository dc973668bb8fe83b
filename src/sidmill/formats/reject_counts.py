"""Bad rows by cause: a cause that takes many rows is a fault of the file, not of single rows."""

import re
from collections import Counter
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.core.terminal import MOST_NAMES
from sidmill.formats import catalogue
from sidmill.io import encodings

NOT_UTF8 = "not UTF-8"
# What differs between reasons of one cause: quoted values, numbers, and all that explains it.
DETAILS = re.compile(
    r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|(?<![\w-])\d+(?:\.\d+)?|(?: \(|: |; ).*", re.DOTALL
)


class Tally:
    """Counts rows, and those that gave nothing by cause.

    Memory: an entry per cause.
    """

    def __init__(self) -> None:
        """Begin at nothing."""
        self.rows = 0
        self.causes: Counter[str] = Counter()
        self.first: dict[str, tuple[str, int, str]] = {}  # file, row and reason of each cause

    def add(self, file: str | Path, row: int, reason: str) -> None:
        """Count a row that gave nothing; ``rows`` is counted by the caller."""
        cause = cause_of(reason)
        self.causes[cause] += 1
        self.first.setdefault(cause, (str(file), row, reason))

    def check(
        self,
        max_share: float,
        section: str,
        encoding_setting: str | None = None,
        unbounded: tuple[str, ...] = (),
    ) -> None:
        """Stop where one cause took too many rows; a single row is never too many.

        Files with rows that are not UTF-8 and no letter beyond ASCII that is, are in another
        encoding: their rows with such letters would be lost, however few they are.

        Args:
            max_share: largest share of the rows that one cause may take.
            section: section of the config that holds it as ``max_reject_share``.
            encoding_setting: config key of the files' encoding; None where there is none.
            unbounded: causes that may take any share, since the user asked for these rejects.

        Raises:
            SidmillError: with the cause, its rows and their share.
        """
        for cause, count in self.causes.most_common():
            file, row, reason = self.first[cause]
            if count < 2:
                continue
            if cause == NOT_UTF8 and not catalogue.holds_utf8(file):  # in UTF-8 or in UTF-16
                raise SidmillError(
                    f"{self.share_of(cause)}, first {file}, row {row}, and no letter of the file "
                    f"beyond ASCII is: {encodings.remedy(file, encoding_setting)}"
                )
            if cause not in unbounded and count > max_share * self.rows:
                raise SidmillError(
                    f"{self.share_of(cause)}, first {file}, row {row}: {reason}: correct what they "
                    f"have in common, or raise {section}.max_reject_share (now {max_share}) to "
                    f"{_share_above(count / self.rows)}"
                )

    def lines(self) -> list[str]:
        """The causes with most rows, and their shares, for the log."""
        return [self.share_of(cause) for cause, _ in self.causes.most_common(MOST_NAMES)]

    def share_of(self, cause: str) -> str:
        """How many rows a cause took, and their share."""
        count = self.causes[cause]
        return f"{count:,} of {self.rows:,} rows ({count / self.rows:.1%}) have one fault: {cause}"


def cause_of(reason: str) -> str:
    """The part of a reason that rows with the same fault share."""
    return DETAILS.sub(lambda detail: "" if detail[0][0] in " :;" else "...", reason).strip()


def _share_above(share: float) -> float:
    """The least share of two digits that lets this many rows pass."""
    return min(1.0, int(share * 100 + 1) / 100)
