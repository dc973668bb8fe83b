"""Times of published files as whole numbers of seconds or milliseconds since 1970 in UTC."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

INT64 = range(-(2**63), 2**63)
PLAIN = re.compile(r"-?\d{1,18}")
AMERICAN = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}) (\d{1,2}):(\d{2}):(\d{2}) ([AP]M)")


def whole(value: object, factor: int = 1) -> int | None:
    """A number of any notation, times ``factor``, rounded down; None where there is none.

    Raises:
        ValueError: if it is no number of 64 bits.
    """
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        return int(value) * factor
    if isinstance(value, int) and not isinstance(value, bool):
        found = value * factor
    else:
        text = str(value).strip() if value is not None else ""
        if not text or text.lower() in ("nan", "none", "null"):
            return None
        if PLAIN.fullmatch(text):
            found = int(text) * factor
        else:
            try:
                found = int((Decimal(text) * factor).__floor__())
            except (InvalidOperation, ValueError, OverflowError):
                raise ValueError(f"time {text!r:.40} is no number") from None
    if found not in INT64:
        raise ValueError(f"time {value!r:.40} does not fit in 64 bits")
    return found


def iso(text: str) -> int:
    """Seconds of ``2018-07-07 22:09:11`` or ``2017-12-17``; without a zone it is taken as UTC.

    Raises:
        ValueError: if it is no such date.
    """
    try:
        if len(text) == 10:
            return (date.fromisoformat(text) - date(1970, 1, 1)).days * 86400
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"date {text!r:.40}: wanted 2018-07-07 22:09:11") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() // 1)


def american(text: str) -> int:
    """Seconds of ``11/15/2019 9:05:58 AM``, taken as UTC.

    Raises:
        ValueError: if it is no such date.
    """
    match = AMERICAN.fullmatch(text)
    if match is None:
        raise ValueError(f"date {text!r:.40}: wanted 11/15/2019 9:05:58 AM")
    month, day, year, hour, minute, second = map(int, match.groups()[:6])
    hour = hour % 12 + (12 if match[7] == "PM" else 0)
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())


def ctime(text: str) -> int:
    """Seconds of ``Thu Aug 17 15:15:28 -0700 2017``.

    Raises:
        ValueError: if it is no such date.
    """
    try:
        return int(datetime.strptime(text, "%a %b %d %H:%M:%S %z %Y").timestamp())
    except ValueError:
        raise ValueError(f"date {text!r:.40}: wanted Thu Aug 17 15:15:28 -0700 2017") from None
