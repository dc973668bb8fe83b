"""What one dataset is made of: a task, declared in YAML, and its prompts.

A task says which rows it reads, which fields it makes of their columns, and how a prompts file puts
them into words. docs/datasets.md explains every key with an example.
"""

import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from sidmill.core.errors import SidmillError

NAME = {"type": "string", "minLength": 1}
LIMIT = {"type": ["string", "integer"], "minimum": 1}
# The one key that says what a field is, and the keys that may stand beside it.
KINDS = {
    "sids": ("where", "first", "last", "domain"),  # a list of item ids, as SIDs end to end
    "sid": ("domain",),  # one item id, as a SID
    "titles": ("where", "first", "last", "join"),  # a list of item ids, as titles
    "title": (),  # one item id, as its title
    "text": (),  # a text column as it is
    "first_line": (),  # the first line of a text column
    "value": ("among",),  # a column of numbers or short texts; with among, these values alone
    "choose": ("of", "where"),  # a label, drawn among those whose mask marks an item
    "lines": (),  # other fields, one line each, empty ones left out
    "phrase": (),  # wording that the prompts have for the value of another field
    "count": (),  # how many items another field holds
}
TITLES = ("titles", "title")
# Kinds that are made of other fields, and the kinds that those can have; (): any.
OF_FIELDS = {
    "lines": (),
    "phrase": ("choose", "value", "text", "first_line"),
    "count": ("sids", "titles"),
}
VALUES = {"type": "array", "items": {"type": ["integer", "string"]}, "minItems": 1}
BESIDE = {"where": NAME, "first": LIMIT, "last": LIMIT, "domain": {"enum": ["items", "product"]},
          "join": {"type": "string"}, "of": NAME, "among": VALUES}  # fmt: skip
LISTS = {"type": "array", "items": NAME, "minItems": 1}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["source", "reads", "form", "prompts", "fields", "needs", "metadata"],
    "properties": {
        "source": NAME,
        "reads": {"enum": ["users", "items"]},
        "form": {"enum": ["segments", "messages"]},
        "prompts": NAME,
        "sample": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "limits": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 1}},
        "rows": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"each": NAME, "with": LISTS, "first": LIMIT, "entries": NAME},
            "oneOf": [{"required": ["each"]}, {"required": ["entries"]}],
        },
        "fields": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "oneOf": [
                    {
                        "type": "object",
                        "required": [kind],
                        "additionalProperties": False,
                        "properties": {
                            kind: LISTS if kind in ("choose", "lines") else NAME,
                            **{key: BESIDE[key] for key in beside},
                        },
                    }
                    for kind, beside in KINDS.items()
                ]
            },
        },
        "needs": LISTS,
        "metadata": LISTS,
    },
}
BRACES = "write {name} for a field, and {{ or }} for a brace"
ROLES = {"segments": ("text",), "messages": ("system", "user", "assistant")}
WORDINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
PROMPTS_SCHEMA = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            **dict.fromkeys(("text", "system", "user", "assistant"), WORDINGS),
            **{
                group: {"type": "object", "additionalProperties": WORDINGS}
                for group in ("lines", "phrases")
            },
        },
    },
}


@dataclass(frozen=True)
class Task:
    """One task, as its file declares it; ``docs/datasets.md`` says what the keys mean."""

    source: str
    reads: str
    form: str
    prompts: str
    fields: dict[str, dict]
    needs: list[str]
    metadata: list[str]
    sample: float = 1.0
    limits: dict[str, int] = field(default_factory=dict)
    rows: dict | None = None

    def kind(self, name: str) -> str:
        """Kind of a field."""
        return next(key for key in self.fields[name] if key in KINDS)

    def values(self, name: str) -> list[str]:
        """The values that a field can have, as texts, where the task says them."""
        declared = self.fields[name]
        return [str(value) for value in declared.get("choose", declared.get("among", ()))]

    def limit(self, value: str | int, history_max: int | None, target_max: int | None) -> int:
        """The number behind a limit, capped by the setting for target, or that for the others."""
        cap = target_max if value == "target" else history_max
        most = value if isinstance(value, int) else self.limits[value]
        return min(most, cap or most)


@dataclass(frozen=True)
class Prompts:
    """Wordings in one language: per role, per line of a ``lines`` field, per phrase."""

    roles: dict[str, list[str]]
    lines: dict[str, list[str]]
    phrases: dict[str, list[str]]


def load(path: str | Path, *, checked: bool = False) -> Task:
    """Read a task.

    Args:
        path: its YAML.
        checked: whether its keys were checked already, as the workflow does before a job starts:
            loading what checks them takes as long as writing a thousand rows.

    Raises:
        SidmillError: listing what is wrong with the file.
    """
    declared = _load(path, None if checked else SCHEMA)
    task = Task(**declared)
    problems = list(_loose_ends(task))
    if problems:
        raise SidmillError(f"{path}: " + "; ".join(problems))
    return task


def read_prompts(path: str | Path) -> dict[str, dict]:
    """Read all languages of a prompts file.

    Raises:
        SidmillError: listing what is wrong with the file.
    """
    return _load(path, PROMPTS_SCHEMA)


def load_prompts(path: str | Path, language: str, task: Task, *, checked: bool = False) -> Prompts:
    """Read the wordings of one language, and check that they and the task fit each other.

    ``checked`` is as in :func:`load`.

    Raises:
        SidmillError: if the language is missing, a role has no wording, or one names no field.
    """
    languages = _load(path, None if checked else PROMPTS_SCHEMA)
    if language not in languages:
        raise SidmillError(
            f"{path}: no wordings in {language!r}, only in {', '.join(languages)}: add them, or "
            f"change datasets.language"
        )
    words = languages[language]
    roles = {role: words[role] for role in ROLES[task.form] if role in words}
    wanted = [role for role in ROLES[task.form] if role != "system"]
    problems = [f"no wording for {role!r}" for role in wanted if role not in roles]
    lines = words.get("lines", {})
    phrases = {str(value): texts for value, texts in words.get("phrases", {}).items()}
    for name, declared in task.fields.items():
        if task.kind(name) == "lines":
            problems += [f"no line for {part!r}" for part in declared["lines"] if part not in lines]
        if task.kind(name) == "phrase":
            values = task.values(declared["phrase"])
            problems += [f"no phrase for {value!r}" for value in values if value not in phrases]
    groups = (*roles.values(), *lines.values(), *phrases.values())
    for template in (text for texts in groups for text in texts):
        problems += _template_problems(template, task)
    if problems:
        raise SidmillError(f"{path}, {language}: " + "; ".join(problems))
    return Prompts(roles, lines, phrases)


def _template_problems(template: str, task: Task) -> list[str]:
    """What is wrong with the braces of a wording."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        return [f"wording {template!r}: {error}: {BRACES}"]
    problems = []
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name or spec or conversion:
            problems.append(f"wording {template!r}: braces hold no name of a field: {BRACES}")
        elif name not in task.fields:
            problems.append(f"{{{name}}} is no field of the task: {template!r}")
    return problems


def pieces(template: str) -> list[tuple[str, str | None]]:
    """Cut a template into literals, each with the field that follows it, or None.

    Raises:
        SidmillError: if a brace is left open; ``{{`` stands for a brace.
    """
    try:
        return [(literal, name) for literal, name, _, _ in string.Formatter().parse(template)]
    except ValueError as error:
        raise SidmillError(f"wording {template!r}: {error}: {BRACES}") from None


def columns(task: Task) -> set[str]:
    """The columns of the input that a task reads, ``split`` left out."""
    names = {name for name in task.metadata if name not in task.fields}
    rows = task.rows or {}
    names |= {rows[key] for key in ("each", "entries") if key in rows} | set(rows.get("with", ()))
    for name, declared in task.fields.items():
        kind = task.kind(name)
        if kind not in ("lines", "phrase", "choose", "count"):
            names.add(declared[kind])
        if "of" in declared:
            names.add(declared["of"])
        names |= set(masks(task, name).values())
    return names - ({"keyword", "keyword_items"} if "entries" in rows else set())


def names_titles(task: Task) -> bool:
    """Whether a task calls items by their titles, which stand in another file."""
    return any(task.kind(name) in TITLES for name in task.fields)


def masks(task: Task, name: str) -> dict[str, str]:
    """The mask columns of a field, by the label they belong to; ``where`` may hold ``{label}``."""
    declared = task.fields[name]
    pattern = declared.get("where")
    if pattern is None:
        return {}
    chooser = next((part for _, part in pieces(pattern) if part), None)
    if chooser is None:
        return {"": pattern}
    labels = task.fields[chooser]["choose"] if chooser in task.fields else []
    return {label: pattern.format(**{chooser: label}) for label in labels}


def _load(path: str | Path, schema: dict | None) -> dict:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file: check datasets.tasks, or write it") from None
    except yaml.YAMLError as error:
        raise SidmillError(f"{path}: not YAML ({error})") from None
    if schema is None:
        return content
    from jsonschema import Draft202012Validator

    problems = [
        f"{'.'.join(map(str, error.absolute_path)) or 'top level'}: {error.message[:300]}"
        for error in Draft202012Validator(schema).iter_errors(content)
    ]
    if problems:
        raise SidmillError(f"{path}: " + "; ".join(problems))
    return content


def _loose_ends(task: Task) -> Iterator[str]:
    """Names that point at nothing."""
    made = {"uid", "pid", "keyword"}
    for name in (*task.needs, *(name for name in task.metadata if name not in made)):
        if name not in task.fields:
            yield f"{name!r} is no field"
    limits = [declared.get(key) for declared in (*task.fields.values(), task.rows or {})
              for key in ("first", "last")]  # fmt: skip
    for value in limits:
        if isinstance(value, str) and value not in task.limits:
            yield f"{value!r} is not in limits"
    for name, declared in task.fields.items():
        kind = task.kind(name)
        others = declared[kind] if kind == "lines" else [declared[kind]]
        wanted = OF_FIELDS.get(kind, ())
        for other in others if kind in OF_FIELDS else ():
            if other not in task.fields:
                yield f"{name}: {other!r} is no field"
            elif wanted and task.kind(other) not in wanted:
                yield f"{name}: {other!r} is of kind {task.kind(other)}: name one of {wanted}"
        if kind == "choose" and not ("of" in declared and "where" in declared):
            yield f"{name}: choose wants of and where"
        chooser = next((part for _, part in pieces(declared.get("where", "")) if part), None)
        drawn = chooser in task.fields and task.kind(chooser) == "choose"
        if chooser is not None and kind != "choose" and not drawn:
            yield f"{name}: where names {{{chooser}}}, which is no field of kind choose"
