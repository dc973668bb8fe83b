"""Check a configuration against its JSON Schema and list every problem at once."""

import math
import reprlib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from sidmill.core.errors import SidmillError
from sidmill.core.listing import some
from sidmill.settings import base, cross_checks
from sidmill.settings.config import Config

INT64 = range(-(2**63), 2**63)
# What a value must be, by the keyword of JSON Schema that it breaks.
EXPECTED = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "a text of length {} or more",
    "minItems": "a list of {} or more",
    "maxItems": "a list of at most {}",
    "uniqueItems": "no entry twice",
    "minProperties": "{} or more keys",
    "pattern": "a text that matches {}",
    "const": "{!r}",
}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that of libyaml is seven times as fast


def _is_integer(_: object, value: object) -> bool:
    """JSON Schema takes 3.0 for an integer, Python's range does not."""
    return isinstance(value, int) and not isinstance(value, bool) and value in INT64


def _is_number(_: object, value: object) -> bool:
    return _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))


Validator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    ),
)


def check(config: dict[str, Any]) -> None:
    """Stop with one message that lists every problem of ``config``.

    Args:
        config: the merged configuration.

    Raises:
        SidmillError: one line per problem: the key, what was found, what is wanted.
    """
    # Problems of single settings, in the order of their keys.
    schema = _schema()
    errors = sorted(
        Validator(schema).iter_errors(config), key=lambda error: list(map(str, error.path))
    )
    problems = [line for error in errors for line in _describe(error)]

    # Contradictions between settings, in sections that are sound by themselves.
    broken = {str(error.path[0]) for error in errors if error.path}
    broken |= set(schema["properties"]) - set(config)
    problems += cross_checks.find(config, broken)

    # JSON Schema reports each missing key by itself, so that a line may occur several times.
    problems = list(dict.fromkeys(problems))
    if problems:
        raise SidmillError(
            f"{len(problems)} problem(s) in the configuration:\n  " + "\n  ".join(problems)
        )


def refuse_repeats(paths: Iterable[str | Path]) -> None:
    """Stop where a configuration file has a key twice: YAML takes the last and drops the others.

    Args:
        paths: YAML or JSON files that can be parsed.

    Raises:
        SidmillError: one line per key: the file, the key, and its last two lines.
    """
    problems = []
    for path in paths:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=LOADER)
        for key, lines in _repeats(root, ""):
            numbers = " and ".join(map(str, lines[-2:]))
            problems.append(
                f"{path}: {key} stands on lines {numbers}, and the first of them would be dropped: "
                f"keep one of them, with all that belongs to it"
            )
    if problems:
        raise SidmillError("\n".join(problems))


def _repeats(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, list[int]]]:
    """Keys that stand more than once in one mapping, with their lines, counted from 1."""
    if isinstance(node, yaml.SequenceNode):
        for number, entry in enumerate(node.value):
            yield from _repeats(entry, f"{prefix}{number}.")
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, list[int]] = {}
    for key, value in node.value:
        lines.setdefault(str(key.value), []).append(key.start_mark.line + 1)
        yield from _repeats(value, f"{prefix}{key.value}.")
    for key, found in lines.items():
        if len(found) > 1 and key != "<<":  # a merge of YAML may stand more than once
            yield prefix + key, found


def read_command_line(config: dict[str, Any], given: dict[str, Any]) -> None:
    """Give settings of ``--config 'section={key: 1}'`` the types that YAML gives them, in place.

    Snakemake leaves every value inside braces a string. A string is replaced by the value that YAML
    reads from it if the schema accepts that value; any other stays, and :func:`check` reports it.

    Args:
        config: the merged configuration.
        given: settings of the command line, as Snakemake parsed them.
    """
    root = _schema()
    for section, values in given.items():
        known = root["properties"].get(section, {}).get("properties", {})
        merged = config.get(section)
        if not isinstance(values, dict) or not isinstance(merged, dict):
            continue
        for key in set(values) & set(known) & set(merged):
            value = _typed(merged[key], values[key])
            if Validator(root).evolve(schema=known[key]).is_valid(value):
                merged[key] = value


def _typed(merged: object, given: object) -> object:
    """The merged value, with the given strings replaced by what YAML reads from them."""
    if isinstance(given, dict) and isinstance(merged, dict):
        return merged | {key: _typed(merged.get(key), entry) for key, entry in given.items()}
    if isinstance(given, list):
        return [_typed(entry, entry) for entry in given]
    if not isinstance(given, str):
        return merged
    try:
        return yaml.safe_load(given)
    except yaml.YAMLError:
        return given


def check_arguments(function: str, arguments: dict[str, Any], properties: dict[str, Any]) -> None:
    """Stop with one message that lists every problem of the arguments of a function.

    Args:
        function: its name, for the message.
        arguments: values by name.
        properties: JSON Schema of each, as a section of the configuration has them.

    Raises:
        SidmillError: one line per problem: the argument, what was found, what is wanted.
    """
    schema = {"properties": properties, "additionalProperties": False}
    errors = Validator(schema).iter_errors(arguments)
    problems = [line for error in errors for line in _describe(error)]
    if problems:
        raise SidmillError(
            f"{len(problems)} problem(s) in the arguments of {function}:\n  "
            + "\n  ".join(sorted(problems))
        )


@cache
def _schema() -> dict[str, Any]:
    return base.schema(Config)


def _describe(error: ValidationError) -> Iterator[str]:
    """Lines about one problem: the key, what was found, what is expected."""
    key_path = ".".join(str(part) for part in error.absolute_path) or "top level"
    wanted = error.schema.get("description", "")
    hint = f" ({wanted})" if wanted else ""
    found = _shown(error.instance)

    # Each keyword of JSON Schema has its own form of message.
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        for key in sorted(set(error.instance) - set(known), key=str):
            guess = _nearest(key, known) or f"known: {some(known)}"
            yield f"{key_path}: unknown key {key!r}: {guess}"
    elif error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        lines = "the line" if len(missing) == 1 else "these lines"
        yield f"{key_path}: missing {some(missing)}: copy {lines} from config.yaml"
    elif error.validator == "type":
        kinds = error.validator_value
        names = kinds if isinstance(kinds, str) else " or ".join(kinds)
        yield f"{key_path}: found {found}{_kind(error.instance)}, wanted {names}{hint}"
    elif error.validator == "enum":
        known = error.validator_value
        guess = _nearest(error.instance, [name for name in known if isinstance(name, str)])
        names = some("null" if name is None else name for name in known)
        yield f"{key_path}: found {found}, wanted one of {names}{hint}{guess and f': {guess}'}"
    else:
        form = EXPECTED.get(str(error.validator))
        wanted = form.format(error.validator_value) if form else error.message
        yield f"{key_path}: found {found}, wanted {wanted}{hint}"


def _nearest(key: object, known: list[str]) -> str:
    near = get_close_matches(str(key), known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _shown(value: object) -> str:
    return reprlib.repr(value) if value is not None else "null"


def _kind(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and value not in INT64:
        return ", which does not fit in 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return ", which is not finite"
    return f", a {type(value).__name__}"
