"""The two forms of a rule's log: lines for a person, and the same as JSON lines for machines.

A JSON line has ``time`` (UTC), ``level``, ``rule``, ``logger``, ``message``; ``fields`` where the
message has named values (a dictionary as its argument, or ``extra``); ``error`` with ``type`` and
``traceback`` where an exception is logged. Secrets are masked in both forms, and lines for a person
hold nothing that acts on a terminal (JSON escapes it).

https://docs.python.org/3/library/logging.html#logrecord-attributes
"""

import json
import logging
import math
from datetime import UTC, datetime

from sidmill.core.secrets import masked, masker
from sidmill.core.terminal import safe_lines

OWN_NAMES = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class Lines(logging.Formatter):
    """Lines for a person."""

    def __init__(self) -> None:
        """Take the secrets of the environment as they are now."""
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.mask = masker()

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        return safe_lines(self.mask(super().format(record)))


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, rule: str) -> None:
        """Take the name of the rule, and the secrets of the environment as they are now."""
        super().__init__()
        self.rule = rule
        self.mask = masker()

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line without its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "rule": self.rule,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = dict(record.args) if isinstance(record.args, dict) else {}
        fields |= {name: value for name, value in vars(record).items() if name not in OWN_NAMES}
        if fields:
            line["fields"] = _plain(fields)
        if record.exc_info and record.exc_info[0]:
            traceback = self.formatException(record.exc_info)
            line["error"] = {"type": record.exc_info[0].__name__, "traceback": traceback}
        return json.dumps(masked(line, self.mask), allow_nan=False)


def _plain(value: object) -> object:
    """A value as JSON can say it; what it cannot say becomes its text."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)
