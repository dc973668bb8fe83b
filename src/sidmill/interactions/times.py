"""Timestamps as logs have them -> whole numbers of 64 bits.

    a number      stays as it is, in the unit of the log: 978300760, "978300760.0", 1.5778368e18
    a date        becomes ``time_unit`` since 1970 in UTC: ISO 8601 with or without a time and a
                  zone (without one it is UTC), a date or time of parquet, Thu Mar 30 17:20:04 -0700
                  2017, or what ``time_format`` describes

A log has one of the two kinds: numbers and dates cannot be compared. Each value is read by itself,
exactly, without floating point.
"""

import re
import reprlib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from sidmill.core.errors import SidmillError
from sidmill.formats.log_rows import NS, Moment

NUMBER, DATE = "numbers", "dates"
MILLION = 1_000_000
LARGEST_EXPONENT = 40  # of a decimal number that is worth computing; 64 bits end at 19
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
ISO = re.compile(
    r"(\d{4})[-/]?(\d\d)[-/]?(\d\d)"
    r"(?:[T ]\s*(\d\d:?\d\d(?::?\d\d)?)(?:[.,](\d+))?\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII | re.IGNORECASE,
)
WORDY = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) +(\d+) (\d\d:\d\d:\d\d) ([+-]\d{4}) (\d{4})")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Clock(NamedTuple):
    """How timestamps are read: see the settings ``time_*`` of interactions.

    Attributes:
        format: of text, as of strptime; None for the forms above.
        unit: s, ms, us or ns: of what dates become.
        fractions: error, floor or millionths: what becomes of a number that is not whole.
        kind: ``NUMBER`` or ``DATE``: what the log's timestamps are.
    """

    format: str | None
    unit: str
    fractions: str
    kind: str = NUMBER

    @property
    def plain(self) -> bool:
        """Whether integers stay as they are."""
        return self.kind == NUMBER and self.fractions != "millionths"


def check(clock: Clock) -> None:
    """Refuse a ``time_format`` that strptime does not know.

    Raises:
        SidmillError: naming the setting.
    """
    try:
        datetime.strptime("", clock.format or "")
    except ValueError as error:
        if "directive" in str(error) or "stray" in str(error):
            raise SidmillError(
                f"interactions.time_format: {clock.format!r}: {error}: write it as for Python's "
                f"strptime, such as '%m/%d/%Y %I:%M:%S %p'"
            ) from None


def settle(clock: Clock, values: Iterable[object]) -> Clock:
    """Settle on the kind of timestamp that most values have; unreadable values do not count."""
    kinds: Counter[str] = Counter()
    for value in values:
        try:
            kinds[NUMBER if isinstance(_either(value, clock), Decimal) else DATE] += 1
        except ValueError:
            continue
    return clock._replace(kind=kinds.most_common(1)[0][0] if kinds else clock.kind)


def read(value: object, clock: Clock) -> int:
    """Read one timestamp.

    Raises:
        ValueError: if it is none of 64 bits, or of the other kind; the message says why.
    """
    if type(value) is int and clock.plain:
        return _fits(value, value)
    time = _either(value, clock)
    kind = NUMBER if isinstance(time, Decimal) else DATE
    if kind != clock.kind:
        raise ValueError(
            f"timestamp {reprlib.repr(value)} is one of {kind}, those of the log are {clock.kind}"
        )
    if not isinstance(time, Decimal):
        return _fits(time // NS[clock.unit], value)

    # A number stays in the unit of the log, but for its fraction.
    if clock.fractions == "millionths":
        time *= MILLION
        return _fits(int(time.to_integral_value("ROUND_FLOOR")), value)
    whole = int(time.to_integral_value("ROUND_FLOOR"))
    if whole != time and clock.fractions == "error":
        raise ValueError(f"timestamp {reprlib.repr(value)} is not a whole number of 64 bits")
    return _fits(whole, value)


def remedy(value: object, clock: Clock) -> str:
    """Say what to set, so that a whole column of timestamps like this one is read."""
    try:
        found = _either(value, clock)
    except ValueError:
        return (
            "set interactions.time_format to how it is written, as '%m/%d/%Y %I:%M:%S %p' "
            "(Python's strptime)"
        )
    if isinstance(found, Decimal) and found != found.to_integral_value():
        return (
            "set interactions.time_fractions: millionths, which makes seconds microseconds, or "
            "floor, which cuts the fraction off"
        )
    kind = NUMBER if isinstance(found, Decimal) else DATE
    if kind == clock.kind:
        return "correct the row"
    return "write the timestamps of all files as numbers, or all as dates"


def _either(value: object, clock: Clock) -> Decimal | int:
    """A number as it is, or a date as nanoseconds since 1970.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(value, Moment):
        return value.nanoseconds
    if isinstance(value, str):
        return _of_text(value.strip(), value, clock)
    if clock.format is not None and type(value) is int:
        return _of_text(str(value), value, clock)
    if isinstance(value, float):  # a fraction is what its shortest decimal form says
        return _decimal(int(value) if value.is_integer() else repr(value), value)
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return _decimal(value, value)
    if isinstance(value, datetime):
        return _nanoseconds(value)
    if isinstance(value, date):
        return _nanoseconds(datetime(value.year, value.month, value.day))
    raise ValueError(_unreadable(value))


def _of_text(text: str, value: object, clock: Clock) -> Decimal | int:
    # As the user says that times are written.
    if clock.format is not None:
        try:
            return _nanoseconds(datetime.strptime(text, clock.format))
        except (ValueError, OverflowError):
            raise ValueError(
                f"timestamp {reprlib.repr(value)} is not written as interactions.time_format "
                f"({clock.format}) says"
            ) from None

    # A number, ISO 8601, or the words of C's asctime with a zone.
    if DECIMAL.fullmatch(text):
        return _decimal(text, value)
    try:
        if found := ISO.fullmatch(text):
            year, month, day, clock_time, fraction, zone = found.groups()
            moment = _moment(f"{year}-{month}-{day}", clock_time, zone)
            return moment + int(f"{fraction or '':0<9.9}")
        if found := WORDY.fullmatch(text):
            month, day, clock_time, zone, year = found.groups()
            number = MONTHS.index(month) + 1
            return _moment(f"{year}-{number:02d}-{int(day):02d}", clock_time, zone)
    except (ValueError, OverflowError):
        pass  # the 31st of February: neither
    raise ValueError(_unreadable(value))


def _moment(day: str, clock_time: str | None, zone: str | None) -> int:
    zone = "" if zone is None or zone.upper() in ("Z", "UTC", "GMT") else zone
    return _nanoseconds(datetime.fromisoformat(f"{day}T{clock_time or '00:00'}{zone}"))


def _nanoseconds(moment: datetime) -> int:
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (zoned - EPOCH) // timedelta(microseconds=1) * NS["us"]


def _decimal(text: str | int | Decimal, value: object) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(_unreadable(value)) from None
    if not number.is_finite() or number.adjusted() > LARGEST_EXPONENT:
        raise ValueError(_unreadable(value))
    return number


def _fits(number: int, value: object) -> int:
    if not -(2**63) <= number < 2**63:
        raise ValueError(
            f"timestamp {reprlib.repr(value)} is too large, and not a whole number of 64 bits"
        )
    return number


def _unreadable(value: object) -> str:
    return f"timestamp {reprlib.repr(value)} is not a whole number of 64 bits, and no date"
