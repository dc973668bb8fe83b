"""What one dataset is made of: a task, declared in YAML, and its prompts.

A task names the rows it reads, the fields it makes of their columns, and the prompts file that has
the wordings around the fields. docs/datasets.md explains every key with an example.
"""

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sidmill.core.errors import SidmillError

NAME = {"type": "string", "minLength": 1}
LIMIT = {"type": ["string", "integer"], "minimum": 1}
# The one key that says what a field is, and the keys that are allowed with it.
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
SID_KINDS = ("sids", "sid")
TITLE_KINDS = ("titles", "title")
LIST_KINDS = ("choose", "lines")  # their key has a list: of labels, of fields
# Kinds that are made of other fields, and the kinds that those can have; (): any.
KINDS_OF_FIELDS = {
    "lines": (),
    "phrase": ("choose", "value", "text", "first_line"),
    "count": ("sids", "titles"),
}
OWN_METADATA = ("uid", "pid", "keyword")  # metadata that is a column and needs no field
VALUES = {"type": "array", "items": {"type": ["integer", "string"]}, "minItems": 1}
OPTIONS = {"where": NAME, "first": LIMIT, "last": LIMIT, "domain": {"enum": ["items", "product"]},
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
                            kind: LISTS if kind in LIST_KINDS else NAME,
                            **{key: OPTIONS[key] for key in options},
                        },
                    }
                    for kind, options in KINDS.items()
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


class Dataset(NamedTuple):
    """One dataset of the configuration: a task of one split, such as ``sft_video_rec.test``.

    Attributes:
        task: name of the task's file.
        split: train, valid or test.
        resources: folder with ``tasks`` and ``prompts``.
    """

    task: str
    split: str
    resources: Path

    @property
    def task_path(self) -> Path:
        """The YAML of the task."""
        return self.resources / f"tasks/{self.task}.yaml"

    def prompts_path(self, task: "Task") -> Path:
        """The YAML of the task's prompts."""
        return self.resources / f"prompts/{task.prompts}.yaml"


def parse_dataset(name: str, resources: str | Path) -> Dataset:
    """Split the name of a dataset; one without a split is of the training split."""
    task, _, split = name.partition(".")
    return Dataset(task, split or "train", Path(resources))


@dataclass(frozen=True)
class Field:
    """One field of a task.

    Attributes:
        kind: a key of ``KINDS``.
        source: the column, or for ``KINDS_OF_FIELDS`` the field, that it is made of; empty for
            ``LIST_KINDS``.
        names: the fields of ``lines``, the labels of ``choose``.
        where: column of a mask; ``{label}`` in it is replaced by the value of that field.
        first: items kept at the start of a list: a number, or a key of the task's limits.
        last: items kept at the end of a list.
        domain: whose items: ``items``, or ``product`` for the second domain.
        join: text between titles.
        of: list column whose items the masks of a drawn label mark.
        among: the values to keep, of a ``value``.
    """

    kind: str
    source: str = ""
    names: tuple[str, ...] = ()
    where: str | None = None
    first: str | int | None = None
    last: str | int | None = None
    domain: str = "items"
    join: str = "; "
    of: str | None = None
    among: tuple[int | str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The other fields that this one is made of."""
        if self.kind not in KINDS_OF_FIELDS:
            return ()
        return self.names if self.kind == "lines" else (self.source,)


@dataclass(frozen=True)
class Rows:
    """How one input row becomes several: one for each item of a list, or each entry of a mapping.

    Attributes:
        each: list column.
        along: list columns whose values stay with the items of ``each``.
        first: items of ``each``, at most: a number, or a key of the task's limits.
        entries: column of mappings of keywords to item ids.
    """

    each: str = ""
    along: tuple[str, ...] = ()
    first: str | int | None = None
    entries: str = ""


@dataclass(frozen=True)
class Task:
    """One task, as its file declares it; ``docs/datasets.md`` says what the keys mean."""

    source: str
    reads: str
    form: str
    prompts: str
    fields: dict[str, Field]
    needs: list[str]
    metadata: list[str]
    sample: float = 1.0
    limits: dict[str, int] = field(default_factory=dict)
    rows: Rows | None = None

    def values(self, name: str) -> list[str]:
        """The values that a field can have, as texts, where the task lists them."""
        spec = self.fields[name]
        return [str(value) for value in (spec.names if spec.kind == "choose" else spec.among)]

    def limit(self, value: str | int, history_max: int | None, target_max: int | None) -> int:
        """The number that a limit stands for, capped by a setting.

        Args:
            value: a number, or a key of ``limits``.
            history_max: caps every limit but ``target``; None caps nothing.
            target_max: caps ``target``.
        """
        cap = target_max if value == "target" else history_max
        limit = value if isinstance(value, int) else self.limits[value]
        return min(limit, cap or limit)


@dataclass(frozen=True)
class Prompts:
    """Wordings in one language: per role, per line of a ``lines`` field, per phrase."""

    roles: dict[str, list[str]]
    lines: dict[str, list[str]]
    phrases: dict[str, list[str]]


def load(path: str | Path, *, checked: bool = False) -> Task:
    """Read the YAML file of a dataset task.

    Args:
        path: its YAML.
        checked: whether its keys were checked already, as the workflow does before a job starts:
            loading the checker takes as long as writing a thousand rows.

    Raises:
        SidmillError: listing what is wrong with the file.
    """
    declared = _load(path, None if checked else SCHEMA)
    fields = {name: _field(keys) for name, keys in declared["fields"].items()}
    rows = _rows(declared["rows"]) if "rows" in declared else None
    task = Task(**{**declared, "fields": fields, "rows": rows})
    problems = list(_dangling_names(task))
    if problems:
        raise SidmillError(f"{path}: " + "; ".join(problems))
    return task


def _field(declared: Mapping[str, Any]) -> Field:
    """Make a field of its keys in the YAML."""
    kind = next(key for key in declared if key in KINDS)
    value, options = declared[kind], {key: declared[key] for key in declared if key in OPTIONS}
    if "among" in options:
        options["among"] = tuple(options["among"])
    if kind in LIST_KINDS:
        return Field(kind, names=tuple(value), **options)
    return Field(kind, value, **options)


def _rows(declared: Mapping[str, Any]) -> Rows:
    """Make the multiplication of rows of its keys in the YAML."""
    along = tuple(declared.get("with", ()))
    options = {key: value for key, value in declared.items() if key != "with"}
    return Rows(along=along, **options)


def read_prompts(path: str | Path) -> dict[str, dict[str, Any]]:
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
    declared = languages[language]
    prompts = Prompts(
        {role: declared[role] for role in ROLES[task.form] if role in declared},
        declared.get("lines", {}),
        {str(value): wordings for value, wordings in declared.get("phrases", {}).items()},
    )
    problems = list(_prompt_problems(prompts, task))
    if problems:
        raise SidmillError(f"{path}, {language}: " + "; ".join(problems))
    return prompts


def _prompt_problems(prompts: Prompts, task: Task) -> Iterator[str]:
    """Yield what the wordings lack for a task, and what is wrong in them."""
    # A wording for each role, line and value. A system turn is optional.
    for role in ROLES[task.form]:
        if role != "system" and role not in prompts.roles:
            yield f"no wording for {role!r}"
    for spec in task.fields.values():
        if spec.kind == "lines":
            yield from (f"no line for {name!r}" for name in spec.names if name not in prompts.lines)
        if spec.kind == "phrase":
            values = task.values(spec.source)
            yield from (f"no phrase for {value!r}" for value in values
                        if value not in prompts.phrases)  # fmt: skip

    # Braces that name fields of the task.
    for group in (prompts.roles, prompts.lines, prompts.phrases):
        for wordings in group.values():
            for wording in wordings:
                yield from _template_problems(wording, task)


def _template_problems(template: str, task: Task) -> Iterator[str]:
    """Yield what is wrong with the braces of a wording."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        yield f"wording {template!r}: {error}: {BRACES}"
        return
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name or spec or conversion:
            yield f"wording {template!r}: braces hold no name of a field: {BRACES}"
        elif name not in task.fields:
            yield f"{{{name}}} is not a field of the task: {template!r}"


def parse_template(template: str) -> list[tuple[str, str | None]]:
    """Cut a prompt template into literals, each with the field that follows it, or None.

    Raises:
        SidmillError: if a brace is not closed; ``{{`` is a literal brace.
    """
    try:
        return [(literal, name) for literal, name, _, _ in string.Formatter().parse(template)]
    except ValueError as error:
        raise SidmillError(f"wording {template!r}: {error}: {BRACES}") from None


def fields_of_template(template: str) -> list[str]:
    """The fields that a template names, in order."""
    return [name for _, name in parse_template(template) if name]


def columns(task: Task) -> set[str]:
    """The columns of the input that a task reads, ``split`` left out."""
    names = {name for name in task.metadata if name not in task.fields}

    # Columns that multiply the rows. An entry of a mapping gives two columns of its own.
    rows = task.rows or Rows()
    names |= {rows.each, rows.entries, *rows.along} - {""}

    # Columns of fields, and their masks.
    for name, spec in task.fields.items():
        if spec.kind not in KINDS_OF_FIELDS and spec.kind != "choose":
            names.add(spec.source)
        if spec.of is not None:
            names.add(spec.of)
        names |= set(mask_columns(task, name).values())
    return names - ({"keyword", "keyword_items"} if rows.entries else set())


def names_titles(task: Task) -> bool:
    """Whether a task names items by title, which is in another file."""
    return any(spec.kind in TITLE_KINDS for spec in task.fields.values())


def names_products(task: Task) -> bool:
    """Whether a task has items of the second domain."""
    return any(spec.domain == "product" for spec in task.fields.values())


def mask_columns(task: Task, name: str) -> dict[str, str]:
    """The mask columns of a field, by the label they belong to; ``where`` may hold ``{label}``."""
    pattern = task.fields[name].where
    if pattern is None:
        return {}
    label_field = label_field_of(pattern)
    if label_field is None:
        return {"": pattern}
    labels = task.fields[label_field].names if label_field in task.fields else ()
    return {label: pattern.format(**{label_field: label}) for label in labels}


def label_field_of(pattern: str) -> str | None:
    """The field whose label is part of the name of a mask column; None where there is none."""
    return next(iter(fields_of_template(pattern)), None)


def _load(path: str | Path, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read a YAML file, and check it where there is a schema."""
    try:
        content: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
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


def _dangling_names(task: Task) -> Iterator[str]:
    """Yield names that refer to nothing, or to a field of the wrong kind."""
    # Needs and metadata name fields.
    for name in (*task.needs, *(name for name in task.metadata if name not in OWN_METADATA)):
        if name not in task.fields:
            yield f"{name!r} is not a field"

    # Limits that are names.
    for limit in _limits(task):
        if isinstance(limit, str) and limit not in task.limits:
            yield f"{limit!r} is not in limits"

    # Fields that are made of other fields, of a kind that fits.
    for name, spec in task.fields.items():
        allowed = KINDS_OF_FIELDS.get(spec.kind, ())
        for other in spec.fields:
            if other not in task.fields:
                yield f"{name}: {other!r} is not a field"
            elif allowed and task.fields[other].kind not in allowed:
                kind = task.fields[other].kind
                yield f"{name}: {other!r} is of kind {kind}: name one of {allowed}"

        # Masks: those of a drawn label, and those that another field's label names.
        if spec.kind == "choose" and not (spec.of and spec.where):
            yield f"{name}: choose needs of and where"
        label_field = label_field_of(spec.where or "")
        is_drawn = label_field in task.fields and task.fields[label_field].kind == "choose"
        if label_field is not None and spec.kind != "choose" and not is_drawn:
            yield f"{name}: where names {{{label_field}}}, which is not a field of kind choose"


def _limits(task: Task) -> Iterator[str | int | None]:
    """Yield every limit that a field or the rows name."""
    for spec in task.fields.values():
        yield from (spec.first, spec.last)
    if task.rows is not None:
        yield task.rows.first
