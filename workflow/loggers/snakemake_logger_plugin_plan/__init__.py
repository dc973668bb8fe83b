"""What a dry run of Snakemake decides, as JSON lines: every job, and for those to run the reason.

``sidmill status`` puts this folder on the Python path and runs ``snakemake --dry-run --debug-dag
--logger plan --logger-plan-path FILE``. Interface:
https://github.com/snakemake/snakemake-interface-logger-plugins
"""

import json
import logging
from dataclasses import dataclass, field

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Settings of the plugin."""

    path: str = field(default="plan.jsonl", metadata={"help": "file to write"})


class LogHandler(LogHandlerBase):
    """Writes one line per job that is part of the plan, and one per job that would run."""

    def __post_init__(self) -> None:
        """Open the file."""
        super().__post_init__()
        self.setLevel(logging.DEBUG)
        self.out = open(self.settings.path, "w", encoding="utf-8")  # noqa: PTH123, SIM115

    @property
    def writes_to_stream(self) -> bool:
        """No."""
        return False

    @property
    def writes_to_file(self) -> bool:
        """Yes, but none that Snakemake should name."""
        return False

    @property
    def has_filter(self) -> bool:
        """Yes: the default one lets no such events through."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Yes: JSON."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """No."""
        return False

    def emit(self, record: logging.LogRecord) -> None:
        """Write what a record says of a job, or that the folder is locked."""
        event = getattr(record, "event", None)
        if event == LogEvent.DEBUG_DAG and getattr(record, "status", "") == "selected":
            job = record.job
            self.say("job", job.rule.name, job.wildcards_dict, job.output, job.log)
        elif event == LogEvent.JOB_INFO:
            self.say(
                "to_run", record.rule_name, record.wildcards, record.output, record.log,
                reason=record.reason,
            )  # fmt: skip
        elif "cannot be locked" in str(record.msg):
            self.out.write(json.dumps({"what": "locked"}) + "\n")

    def say(self, what: str, rule: str, wildcards: dict, output: list, log: list, **more) -> None:
        """Write a line."""
        paths = {"output": list(map(str, output)), "log": list(map(str, log))}
        line = {"what": what, "rule": rule, "wildcards": dict(wildcards or {})}
        self.out.write(json.dumps(line | paths | more) + "\n")
        self.out.flush()
