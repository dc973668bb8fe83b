"""Check a configuration against its JSON Schema and list every problem at once."""

import math
import reprlib
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from sidmill.core import contradictions
from sidmill.core.errors import SidmillError

INT64 = range(-(2**63), 2**63)
# What is wanted, by the keyword of JSON Schema that says so.
WANTED = {
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


def check(config: dict, schema_path: str | Path) -> None:
    """Stop with one message that lists all that is wrong with ``config``.

    Args:
        config: the merged configuration.
        schema_path: JSON Schema in YAML; every section says ``additionalProperties: false``.

    Raises:
        SidmillError: one line per problem: the key, what was found, what is wanted.
    """
    schema = _schema(schema_path)
    errors = sorted(
        Validator(schema).iter_errors(config), key=lambda error: list(map(str, error.path))
    )
    problems = [line for error in errors for line in _describe(error)]
    broken = {str(error.path[0]) for error in errors if error.path}
    broken |= set(schema["properties"]) - set(config)
    problems += contradictions.find(config, broken)
    if problems:
        raise SidmillError(
            f"{len(problems)} problem(s) in the configuration:\n  " + "\n  ".join(problems)
        )


def check_arguments(function: str, arguments: dict, properties: dict) -> None:
    """Stop with one message that lists all that is wrong with the arguments of a function.

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
def _schema(path: str | Path) -> dict:
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def _describe(error: ValidationError) -> Iterator[str]:
    place = ".".join(str(part) for part in error.absolute_path) or "top level"
    wanted = error.schema.get("description", "")
    hint = f" ({wanted})" if wanted else ""
    found = _shown(error.instance)
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        for key in sorted(set(error.instance) - set(known), key=str):
            guess = _nearest(key, known) or f"known: {', '.join(known)}"
            yield f"{place}: unknown key {key!r}: {guess}"
    elif error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        yield f"{place}: missing {', '.join(missing)}: copy the line from config.yaml"
    elif error.validator == "type":
        kinds = error.validator_value
        names = kinds if isinstance(kinds, str) else " or ".join(kinds)
        yield f"{place}: found {found}{_kind(error.instance)}, wanted {names}{hint}"
    elif error.validator == "enum":
        known = error.validator_value
        guess = _nearest(error.instance, [name for name in known if isinstance(name, str)])
        names = ", ".join("null" if name is None else str(name) for name in known)
        yield f"{place}: found {found}, wanted one of {names}{hint}{guess and f': {guess}'}"
    else:
        form = WANTED.get(str(error.validator))
        wanted = form.format(error.validator_value) if form else error.message
        yield f"{place}: found {found}, wanted {wanted}{hint}"


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
