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
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sidmill.core.secrets import masked, masker
from sidmill.core.terminal import safe_lines

KEPT_ATTEMPTS = 5  # the latest that failed or were killed
REQUIRED = {"time", "level", "logger", "message"}
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
    """One JSON object per line."""

    def __init__(self, rule: str) -> None:
        """Take the name of the rule, and the secrets of the environment as they are now."""
        super().__init__()
        self.rule = rule
        self.mask = masker()

    def format(self, record: logging.LogRecord) -> str:
        """One record as a line without its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "rule": self.rule,
            "logger": record.name,
            "message": record.getMessage(),
        }

        # Named values: a dictionary as the argument of the message, and ``extra``.
        fields = dict(record.args) if isinstance(record.args, dict) else {}
        fields |= {name: value for name, value in vars(record).items() if name not in OWN_NAMES}
        if fields:
            line["fields"] = _plain(fields)
        if record.exc_info and record.exc_info[0]:
            traceback = self.formatException(record.exc_info)
            line["error"] = {"type": record.exc_info[0].__name__, "traceback": traceback}
        return json.dumps(masked(line, self.mask), allow_nan=False)


def keep_attempt(log: str | Path) -> None:
    """Keep both logs of a job's last attempt, if it failed or was killed.

    ``NAME.jsonl`` is copied to ``NAME.jsonl.1``, and its lines for a person are written to
    ``NAME.log.1``: Snakemake removes ``NAME.log`` before a job begins. Earlier attempts move on to
    ``.2`` and so on, ``KEPT_ATTEMPTS`` at most. ``NAME.jsonl`` keeps its inode, which a lock may
    hold.

    Args:
        log: the job's log, ``NAME.log``.
    """
    log = Path(log)
    json_path = log.with_suffix(".jsonl")
    records = list(_records(json_path)) if json_path.is_file() else []
    if not records or records[-1]["message"] == "finished":
        return
    for number in range(KEPT_ATTEMPTS - 1, 0, -1):
        for path in (log, json_path):
            older = path.with_name(f"{path.name}.{number}")
            if older.is_file():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
    shutil.copyfile(json_path, json_path.with_name(f"{json_path.name}.1"))
    lines = "".join(map(_line, records))
    log.with_name(f"{log.name}.1").write_text(lines, encoding="utf-8")


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a log, without one that a kill cut."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and set(record) >= REQUIRED:
                    yield record


def _line(record: dict[str, Any]) -> str:
    """A record in the form of :class:`Lines`."""
    time = datetime.fromisoformat(record["time"]).astimezone()
    timestamp = f"{time:%Y-%m-%d %H:%M:%S},{time.microsecond // 1000:03d}"
    traceback = record.get("error", {}).get("traceback", "")
    line = f"{timestamp} {record['level']} {record['logger']}: {record['message']}\n"
    return line + (f"{traceback}\n" if traceback else "")


def _plain(value: object) -> object:
    """A value that JSON can hold; any other value becomes its text."""
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
