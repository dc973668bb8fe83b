"""What a setting is: its type, range, default, meaning, and whether it can change a result.

Each section of config.yaml is one frozen dataclass, whose fields are made by :func:`science` and
:func:`machine`. From these types follow the JSON Schema that a configuration is checked against,
config.yaml itself, and docs/settings.md (``sidmill.settings.generate``).

A *science* setting can change the bytes of a result. It belongs to the identity of the artefact:
a change of it reruns the rule. A *machine* setting (device, memory, processes, retries) never
changes a result, so a change of it reruns nothing.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import (
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

Section = TypeVar("Section")  # an instance of a class that ``section`` made

KINDS = {bool: "boolean", int: "integer", float: "number", str: "string"}
# Keywords of JSON Schema, by the option of a field.
LIMITS = {
    "minimum": "minimum",
    "above": "exclusiveMinimum",
    "maximum": "maximum",
    "below": "exclusiveMaximum",
    "pattern": "pattern",
    "key_pattern": "propertyNames",
    "most": "maxItems",
    "choices": "enum",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Properties of a field beyond its name, type and default.

    Args:
        meaning: the comment of config.yaml: what the setting does, its unit, how to choose it.
        is_science: whether it can change a result.
        limits: range or pattern, by the keys of ``LIMITS``. In a list or a mapping they hold for
            each entry; with ``int | list[int]`` for the number and for each entry.
        unique: a list holds no entry twice.
        may_be_empty: a list, text or mapping may hold nothing.
    """

    meaning: str
    is_science: bool
    limits: Mapping[str, Any]
    unique: bool = False
    may_be_empty: bool = False


def science(default: Any, meaning: str, **options: Any) -> Any:
    """Make a field that can change a result.

    Args:
        default: the value in config.yaml. A list or a dictionary is copied for each instance.
        meaning: one line: what it does, its unit, how to choose it.
        options: ``minimum``, ``above``, ``maximum``, ``below`` (range), ``pattern``,
            ``choices`` (where a registry names them; else ``Literal`` does), ``key_pattern``
            (names in a mapping), ``most`` (entries of a list), ``unique``, ``may_be_empty``.
    """
    return _field(default, meaning, is_science=True, **options)


def machine(default: Any, meaning: str, **options: Any) -> Any:
    """Make a field that never changes a result. The arguments are those of :func:`science`."""
    return _field(default, meaning, is_science=False, **options)


def nested(cls: type, meaning: str) -> Any:
    """Make a field whose value is a section of its own, such as ``interactions.fields``."""
    metadata = {"setting": Setting(meaning, True, {})}
    return dataclasses.field(default_factory=cls, metadata=metadata)


def _field(
    default: Any,
    meaning: str,
    *,
    is_science: bool,
    unique: bool = False,
    may_be_empty: bool = False,
    **limits: Any,
) -> Any:
    unknown = set(limits) - set(LIMITS)
    if unknown:
        raise TypeError(f"no such option of a setting: {', '.join(sorted(unknown))}")
    metadata = {"setting": Setting(meaning, is_science, limits, unique, may_be_empty)}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(name: str, note: str = "") -> Callable[[type[Section]], type[Section]]:
    """Make a class one section of config.yaml: a frozen dataclass with keyword arguments alone.

    Args:
        name: the key in config.yaml.
        note: the comment of that key: the targets that read the section, and the page to read.
    """

    def decorate(cls: type[Section]) -> type[Section]:
        made: Any = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        made.SECTION, made.NOTE = name, note
        return cast(type[Section], made)

    return decorate


def section_name(cls: Any) -> str:
    """The key of a section in config.yaml."""
    return str(cls.SECTION)


def setting_of(field: dataclasses.Field[Any]) -> Setting:
    """The setting that a field holds; for a field that is a section, an empty one."""
    return field.metadata.get("setting") or Setting("", True, {})


def science_keys(cls: Any) -> list[str]:
    """Names of the fields that can change a result, in the order of their definition."""
    return [field.name for field in dataclasses.fields(cls) if setting_of(field).is_science]


def machine_keys(cls: Any) -> list[str]:
    """Names of the fields that never change a result, in the order of their definition."""
    return [field.name for field in dataclasses.fields(cls) if not setting_of(field).is_science]


def identity(settings: Any) -> dict[str, Any]:
    """Science settings of a section, sorted by name: part of an artefact's identity."""
    return {key: getattr(settings, key) for key in sorted(science_keys(type(settings)))}


def read(cls: type[Section], values: Mapping[str, Any]) -> Section:
    """Make a section from the values of a checked configuration.

    Args:
        cls: the class of the section.
        values: one value per field; the values of nested sections are mappings.

    Raises:
        TypeError: if ``values`` has a key that the section lacks.
    """
    hints = get_type_hints(cls)
    return cls(
        **{
            key: read(hints[key], value) if dataclasses.is_dataclass(hints.get(key)) else value
            for key, value in values.items()
        }
    )


def defaults(cls: Any) -> dict[str, Any]:
    """The section as config.yaml has it."""
    return dataclasses.asdict(cls())


def schema(cls: Any) -> dict[str, Any]:
    """JSON Schema of a section: each key is required, no other key is known."""
    hints = get_type_hints(cls)
    properties = {
        field.name: schema(hints[field.name])
        if dataclasses.is_dataclass(hints[field.name])
        else field_schema(hints[field.name], setting_of(field))
        for field in dataclasses.fields(cls)
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def field_schema(hint: Any, setting: Setting) -> dict[str, Any]:
    """JSON Schema of one field that holds a plain value, a list or a mapping."""
    # A union such as ``int | list[int] | None`` is one schema of several types.
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    known: dict[str, Any] = {"type": []}
    for part in parts:
        _add_part(known, part, setting)

    # A choice names its values; any other field its types.
    if "enum" in known:
        known["enum"] += [None] if "null" in known["type"] else []
        del known["type"]
    elif len(known["type"]) == 1:
        known["type"] = known["type"][0]
    return known | {"description": setting.meaning}


def _add_part(known: dict[str, Any], part: Any, setting: Setting) -> None:
    """Add one member of a union to the schema of a field."""
    # Limits of a list or mapping itself are taken out; the others hold for each entry.
    limits = {LIMITS[name]: value for name, value in setting.limits.items()}
    names, most = limits.pop("propertyNames", None), limits.pop("maxItems", None)
    origin, arguments = get_origin(part), get_args(part)

    if part is type(None):
        known["type"].append("null")
    elif origin is Literal:
        known["enum"] = list(arguments)
    elif origin is list:
        known["type"].append("array")
        known["items"] = _entry(arguments[0], limits)
        known |= {} if setting.may_be_empty else {"minItems": 1}
        known |= {"maxItems": most} if most else {}
        known |= {"uniqueItems": True} if setting.unique else {}
    elif origin is dict:
        known["type"].append("object")
        known["additionalProperties"] = _entry(arguments[1], limits)
        known |= {} if setting.may_be_empty else {"minProperties": 1}
        known |= {"propertyNames": {"pattern": names}} if names else {}
    else:
        entry = _entry(part, limits, may_be_empty=setting.may_be_empty)
        known["type"].append(entry.pop("type", KINDS[part]))
        known |= entry


def _entry(part: Any, limits: Mapping[str, Any], *, may_be_empty: bool = False) -> dict[str, Any]:
    """JSON Schema of a plain value: an entry of a list or mapping, or the field itself."""
    if get_origin(part) is list:  # an entry that is a list: limits hold for each of its values
        return {"type": "array", "items": _entry(get_args(part)[0], limits), "minItems": 1}
    if get_origin(part) is Literal:
        return {"enum": list(get_args(part))}
    if "enum" in limits:
        return {"enum": list(limits["enum"])}
    least = {"minLength": 1} if part is str and not may_be_empty else {}
    return {"type": KINDS[part], **least, **limits}
