"""Write what follows from the types of the settings: config.yaml, JSON Schema, docs/settings.md.

``make settings`` runs it. A test fails where one of the three files is not what it would write.
"""

import dataclasses
import textwrap
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from sidmill.settings import base
from sidmill.settings.base import Setting, setting_of
from sidmill.settings.config import SECTIONS, Config

COMMENT_COLUMN = 27  # where comments begin in config.yaml, as far as values leave room
WIDTH = 120  # columns of a line of config.yaml and docs/settings.md, at most; tables are wider
BOUNDS = (("minimum", "≥"), ("above", ">"), ("maximum", "≤"), ("below", "<"))
NOT_BY_HAND = "Written by `make settings` from src/sidmill/settings"
CONFIG_HEADER = f"""\
# Every setting of SIDMill, once. As it stands it makes the demo catalogue and its SIDs.
# Change settings in an overlay that holds only what differs (see configs/own-catalogue.yaml):
#   snakemake --cores 8 --configfile configs/own-catalogue.yaml
# Types and ranges: docs/settings.md. {NOT_BY_HAND}.
"""
PAGE_HEADER = f"""\
# Settings

{NOT_BY_HAND}.

An overlay holds only what differs from `config.yaml`. A *science* setting can change a result: a
change of it reruns the rules that read it. A *machine* setting never changes a result, so a change
of it reruns nothing.
"""


def write(root: str | Path) -> list[str]:
    """Write config.yaml, its schema and docs/settings.md from the settings; return what changed."""
    changed = []
    for name, text in texts().items():
        path = Path(root, name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed


def texts() -> dict[str, str]:
    """The content of each generated file, by its name in a checkout."""
    return {
        "config.yaml": _config_text(),
        "workflow/schemas/config.schema.yaml": _schema_text(),
        "docs/settings.md": _page_text(),
    }


def _schema_text() -> str:
    header = f"# JSON Schema of config.yaml. {NOT_BY_HAND}.\n"
    body = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | base.schema(Config)
    text: str = yaml.dump(body, sort_keys=False, allow_unicode=True, width=WIDTH, Dumper=_NoAliases)
    return header + text


class _NoAliases(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
    """Writes a value that occurs twice in full."""

    def ignore_aliases(self, data: Any) -> bool:
        """Say of every value that it has no alias."""
        return True


def _config_text() -> str:
    parts = [CONFIG_HEADER]
    for field in dataclasses.fields(Config):
        cls = SECTIONS.get(field.name)
        if cls is None:
            parts.append(_commented(f"{field.name}: {field.default}", setting_of(field).meaning))
        else:
            parts.append(_section_text(cls))
    return "\n".join(parts)


def _section_text(cls: Any) -> str:
    """One section of config.yaml."""
    values = base.defaults(cls)
    lines = [_commented(f"{cls.SECTION}:", cls.NOTE)]
    for field in dataclasses.fields(cls):
        line = f"  {field.name}: {_yaml(values[field.name])}"
        lines.append(_commented(line, setting_of(field).meaning))
    return "".join(lines)


def _commented(line: str, comment: str) -> str:
    """A line of config.yaml with its comment, which goes on below where it is long."""
    if not comment:
        return f"{line}\n"
    start = max(COMMENT_COLUMN, len(line) + 2)
    first, *more = textwrap.wrap(comment, max(WIDTH - start - 2, 40), break_long_words=False)
    indent = " " * start
    return "".join([f"{line:<{start}}# {first}\n", *(f"{indent}# {rest}\n" for rest in more)])


def _yaml(value: Any) -> str:
    """A value in one line of YAML; small numbers without an exponent, which YAML 1.1 misreads."""
    if isinstance(value, float) and 0 < value < 0.001:
        return format(Decimal(repr(value)), "f")
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True
    )
    return text.removesuffix("\n...\n").strip()


def _page_text() -> str:
    parts = [PAGE_HEADER]
    for cls in SECTIONS.values():
        parts.append("\n".join(_section_rows(cls)) + "\n")
    return "\n".join(parts)


def _section_rows(cls: Any) -> Iterator[str]:
    """The part of docs/settings.md about one section."""
    yield f"## {cls.SECTION}\n"
    text = f"{cls.__doc__} {cls.NOTE and f'({cls.NOTE})'}".strip()
    yield textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"
    yield "| setting | values | default | kind | meaning |\n|---|---|---|---|---|"
    values = base.defaults(cls)
    for field in dataclasses.fields(cls):
        setting, hint = setting_of(field), get_type_hints(cls)[field.name]
        kind = "science" if setting.is_science else "machine"
        cells = [f"`{field.name}`", _values(hint, setting), f"`{_yaml(values[field.name])}`", kind]
        yield "| " + " | ".join(_cell(cell) for cell in [*cells, setting.meaning]) + " |"


def _values(hint: Any, setting: Setting) -> str:
    """What a setting may be: its types or choices, and its range."""
    if dataclasses.is_dataclass(hint):
        return "keys: " + ", ".join(field.name for field in dataclasses.fields(hint))
    known = base.field_schema(hint, setting)
    entry = known.get("items", known)
    if "enum" in entry:
        names = ", ".join("null" if name is None else str(name) for name in entry["enum"])
        return f"list of {names}" if "items" in known else names
    kinds = known["type"] if isinstance(known["type"], list) else [known["type"]]
    text = " or ".join(kinds)
    bounds = [f"{sign} {setting.limits[name]}" for name, sign in BOUNDS if name in setting.limits]
    return ", ".join([text, *bounds])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
