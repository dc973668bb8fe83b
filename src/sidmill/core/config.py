"""Check a configuration against its JSON Schema and list every problem at once."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, ValidationError

from sidmill.core.errors import SidmillError


def check(config: dict, schema_path: str | Path) -> None:
    """Stop with one message that lists all that is wrong with ``config``.

    Args:
        config: the merged configuration.
        schema_path: JSON Schema in YAML; every section says ``additionalProperties: false``.

    Raises:
        SidmillError: one line per problem: the key, what was found, what is wanted.
    """
    schema = yaml.safe_load(Path(schema_path).read_text(encoding="utf-8"))
    errors = sorted(
        Draft202012Validator(schema).iter_errors(config), key=lambda error: list(error.path)
    )
    problems = [line for error in errors for line in _describe(error)]
    problems += [] if problems else _contradictions(config)
    if problems:
        raise SidmillError(
            f"{len(problems)} problem(s) in the configuration:\n  " + "\n  ".join(problems)
        )


def _contradictions(config: dict) -> list[str]:
    """What no schema can say: settings that do not fit each other."""
    problems = []
    size, levels = config["rqkmeans"]["codebook_size"], config["rqkmeans"]["n_levels"]
    if isinstance(size, list) and len(size) != levels:
        problems.append(
            f"rqkmeans.codebook_size: {len(size)} sizes for {levels} levels: give one size per "
            f"level, or one number for all"
        )
    backend, prompt = config["embedding"]["backend"], config["retrieval"]["query_prompt"]
    if prompt and backend != "sentence_transformers":
        problems.append(
            f"retrieval.query_prompt: found {prompt!r}, but backend {backend} takes no prompt: set "
            f'it to ""'
        )
    return problems


def _describe(error: ValidationError) -> Iterator[str]:
    place = ".".join(str(part) for part in error.absolute_path) or "top level"
    wanted = error.schema.get("description", "")
    hint = f" ({wanted})" if wanted else ""
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        for key in sorted(set(error.instance) - set(known), key=str):
            near = get_close_matches(str(key), known, n=1)
            guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            yield f"{place}: unknown key {key!r}: {guess}"
    elif error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        yield f"{place}: missing {', '.join(missing)}: copy the line from config.yaml"
    elif error.validator == "type":
        yield (
            f"{place}: found {error.instance!r}, a {type(error.instance).__name__}, "
            f"wanted {error.validator_value}{hint}"
        )
    else:
        yield f"{place}: found {error.instance!r}: {error.message}{hint}"
