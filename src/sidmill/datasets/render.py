"""Second pass: rows of numbers -> rows of text, column by column.

A wording is drawn per row from its key. Each wording is cut into literals and fields. A run of
literals and SIDs is a list of numbers of strings, and its text one gathering of them; only texts of
other columns are joined afterwards.

Shapes: n rows, N items.
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from sidmill.core.errors import SidmillError
from sidmill.datasets import ragged, row_hash, tasks
from sidmill.datasets.tasks import SID_KINDS, TITLE_KINDS, Prompts, Task
from sidmill.formats import dataset_rows

TEXT = pa.large_string()
NAMESPACE = hashlib.sha1(b"https://github.com/sidmill/datasets", usedforsecurity=False).digest()[
    :16
]
OTHER_CONTROLS = [chr(code) for code in range(32) if chr(code) not in "\n\r\t\b\f"]
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
UUID_LENGTH = 36
HYPHENS = (8, 13, 18, 23)  # their positions in a uuid


class Strings:
    """SIDs, followed by the literals between them, all under one numbering."""

    def __init__(self, sids: pa.LargeStringArray) -> None:
        """Start with the SIDs, large_string (N,)."""
        self.texts = sids
        self.literals: dict[str, int] = {}

    def numbers(self, literals: list[str]) -> np.ndarray:
        """Numbers of literals, int32; a new one is added, which copies all texts once."""
        new = [text for text in dict.fromkeys(literals) if text not in self.literals]
        if new:
            for number, text in enumerate(new, start=len(self.texts)):
                self.literals[text] = number
            self.texts = pa.concat_arrays([self.texts, pa.array(new, TEXT)])
        return np.array([self.literals[text] for text in literals], np.int32)


class ItemTexts(NamedTuple):
    """What rendering needs of the items.

    Attributes:
        sids: SIDs as text, by domain.
        titles: large_string (N,) of the first domain; None where the task names no titles.
        pids: ids (N,), by domain.
    """

    sids: dict[str, Strings]
    titles: pa.LargeStringArray | None
    pids: dict[str, pa.Array]


class Drawn(NamedTuple):
    """A literal for each row: number ``which``, int64 (n,), of ``literals``."""

    literals: list[str]
    which: np.ndarray


class Sids(NamedTuple):
    """SIDs of each row, end to end: ``lists`` are numbers of items of ``domain``."""

    domain: str
    lists: ragged.Ragged


# What a text is joined of: a literal of all rows, one of each, SIDs, or texts, large_string (n,).
Part: TypeAlias = "str | Drawn | Sids | pa.Array"


def render(
    rows: pa.Table, task: Task, prompts: Prompts, texts: ItemTexts, form: str, seed: int
) -> pa.Table:
    """Render resolved rows as text: fill their numbers into the wordings of a task's prompts.

    Args:
        rows: ``key``, metadata and fields, as the first pass leaves them.
        task: what the fields are.
        prompts: wordings of one language.
        texts: of the items.
        form: ``onerec`` makes JSON text, ``chat`` makes lists of role and content.
        seed: covers the choice of wordings.

    Returns:
        ``source``, ``uuid``, ``segments`` or ``messages``, ``metadata``; of chat turns also the
        ``ground_truth`` columns of :mod:`sidmill.formats.dataset_rows`.
    """
    page = Page(rows.combine_chunks(), task, prompts, texts, seed, plain=form == "chat")

    # The content, and the texts that a uuid is a hash of.
    turns: list[tuple[str, pa.Array]] = []
    if form == "onerec":
        content = page.json_segments() if task.form == "segments" else page.json_messages()
        hashed = [content]
    else:
        turns = [(role, page.text(role)) for role in prompts.roles]
        content = turns[0][1] if task.form == "segments" else _chat(turns)
        hashed = [text for _, text in turns]

    # The columns. Metadata counts for a uuid: equal texts of two users are two rows.
    owners = page.metadata()
    columns = {
        "source": _repeat(task.source, len(rows)).cast(pa.string()),
        "uuid": uuids(task.source, [*hashed, owners]),
        task.form: content,
    }
    if turns and task.form == "messages":
        columns[dataset_rows.ANSWERS] = page.answers(turns[-1][1])
        columns[dataset_rows.PIDS] = page.answer_pids()
    columns["metadata"] = owners.cast(pa.string())
    return pa.Table.from_arrays(list(columns.values()), list(columns))


class Page:
    """Fields of some rows as text; JSON-escaped unless ``plain``."""

    def __init__(
        self,
        rows: pa.Table,
        task: Task,
        prompts: Prompts,
        texts: ItemTexts,
        seed: int,
        *,
        plain: bool,
    ) -> None:
        """Take the rows; fields are made when they are first needed."""
        self.rows = rows
        self.task, self.prompts, self.texts = task, prompts, texts
        self.seed, self.plain = seed, plain
        self.keys: np.ndarray = rows["key"].to_numpy()
        self.fields: dict[str, pa.Array] = {}
        self.unfinished: set[str] = set()  # fields that others wait for

    def json_segments(self) -> pa.Array:
        """Plain texts as JSON of typed parts, large_string (n,)."""
        return self.join(['[{"type": "text", "text": "', *self.role("text"), '"}]'])

    def json_messages(self) -> pa.Array:
        """Chat turns as JSON, large_string (n,)."""
        parts: list[Part] = []
        for role in self.prompts.roles:
            opening = f'{{"role": "{role}", "content": [{{"type": "text", "text": "'
            parts += ["[" if not parts else ", ", opening, *self.role(role), '"}]}']
        return self.join([*parts, "]"])

    def role(self, role: str) -> list[Part]:
        """What the text of one role is joined of."""
        return self._fill_wordings(self.prompts.roles[role], role, np.arange(len(self.keys)))

    def text(self, role: str) -> pa.Array:
        """The text of one role, large_string (n,)."""
        return self.join(self.role(role))

    def join(self, parts: list[Part], count: int | None = None) -> pa.Array:
        """Join parts of ``count`` rows, of all without it: large_string (n,)."""
        count = len(self.keys) if count is None else count
        texts: list[str | pa.Array] = []
        for domain, run in _runs(parts):
            texts += [self._gather(domain, run, count)] if domain else _texts(run)
        if len(texts) == 1 and isinstance(texts[0], pa.Array):
            return texts[0]
        joined = _join(*texts)
        return joined if isinstance(joined, pa.Array) else _repeat(joined.as_py(), count)

    def _gather(self, domain: str, parts: list[Part], count: int) -> pa.Array:
        """Texts of literals and SIDs of one domain, without copying a byte twice."""
        strings, lists = self.texts.sids[domain], []
        for part in parts:
            if isinstance(part, Sids):
                lists.append(part.lists)
            else:
                drawn = part if isinstance(part, Drawn) else Drawn([part], np.zeros(count, int))
                numbers = strings.numbers(drawn.literals)[drawn.which]
                lists.append(ragged.Ragged(numbers, np.arange(count + 1)))
        return ragged.join_strings(strings.texts, ragged.concat_lists(lists))

    def field(self, name: str) -> pa.Array:
        """The text of one field, large_string (n,).

        Raises:
            SidmillError: if the field is made of itself.
        """
        if name not in self.fields:
            if name in self.unfinished:
                raise SidmillError(
                    f"field {name!r} is made of itself: see {self.task.prompts}.yaml"
                )
            self.unfinished.add(name)
            self.fields[name] = self._make_field(name)
        return self.fields[name]

    def _make_field(self, name: str) -> pa.Array:
        """Make the text of a field by its kind."""
        spec = self.task.fields[name]
        match spec.kind:
            case "sids" | "sid":
                return ragged.join_strings(self.texts.sids[spec.domain].texts, self._lists(name))
            case "titles":
                return self._titles(name)
            case "title":
                return self.escape(self._titles_of(self._column(name)))
            case "lines":
                return self._lines(spec.names)
            case "phrase":
                return self._phrases(spec.source)
        return self.escape(self._column(name).cast(TEXT))

    def metadata(self) -> pa.Array:
        """JSON objects, large_string (n,); numbers stay numbers."""
        parts: list[str | pa.Array] = []
        for name in self.task.metadata:
            parts.append(f"{', ' if parts else '{'}{json.dumps(name)}: ")
            is_field = name in self.task.fields
            kind = self.task.fields[name].kind if is_field else "value"
            column = self._column(name)
            if kind not in ("sid", "title") and pa.types.is_integer(column.type):
                parts.append(pc.fill_null(column.cast(TEXT), "null"))
            else:
                text = self.field(name) if is_field else column.cast(TEXT)
                text = text if is_field and not self.plain else json_escape(text)
                parts += ['"', pc.fill_null(text, ""), '"']
        return _join(*parts, "}")

    def answers(self, texts: pa.Array) -> pa.LargeListArray:
        """The SIDs of each answer; where an answer names no item by SID, its text."""
        columns = []
        for name in self._answer_fields():
            spec, numbers = self.task.fields[name], self._lists(name)
            if spec.kind in SID_KINDS:
                sids = self.texts.sids[spec.domain].texts.take(ragged.as_arrow(numbers.values))
                columns.append(ragged.Ragged(sids, numbers.offsets))
        if not columns:
            return pa.LargeListArray.from_arrays(ragged.as_arrow(np.arange(len(texts) + 1)), texts)
        return _concat_arrow_lists(columns)

    def answer_pids(self) -> pa.LargeListArray:
        """The items that each answer names, in the type of the catalogue's ids."""
        columns = []
        for name in self._answer_fields():
            spec, numbers = self.task.fields[name], self._lists(name)
            pids = self.texts.pids[spec.domain].take(ragged.as_arrow(numbers.values))
            columns.append(ragged.Ragged(pids, numbers.offsets))
        if not columns:
            no_pids = self.texts.pids["items"].slice(0, 0)
            columns = [ragged.Ragged(no_pids, np.zeros(len(self.keys) + 1, np.int64))]
        return _concat_arrow_lists(columns)

    def _answer_fields(self) -> list[str]:
        """The fields of items that the wordings of the answer name, in order, each once."""
        wordings, names = list(self.prompts.roles["assistant"]), dict[str, None]()
        while wordings:
            fields = tasks.fields_of_template(wordings.pop(0))
            names |= dict.fromkeys(fields)
            for name in fields:
                if self.task.fields[name].kind == "lines":
                    for line in self.task.fields[name].names:
                        wordings += self.prompts.lines[line]
        kinds = (*SID_KINDS, *TITLE_KINDS)
        return [name for name in names if self.task.fields[name].kind in kinds]

    def escape(self, texts: pa.Array) -> pa.Array:
        """Texts as the content holds them: escaped where the content is JSON."""
        return texts if self.plain else json_escape(texts)

    def _column(self, name: str) -> pa.Array:
        column = self.rows[name]
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)

    def _lists(self, name: str) -> ragged.Ragged:
        """Numbers of items, of a field of lists or of one item a row."""
        column = self._column(name)
        if pa.types.is_large_list(column.type):
            return ragged.from_arrow(column)
        return ragged.Ragged(column.to_numpy(), np.arange(len(column) + 1))

    def _titles_of(self, numbers: pa.Array) -> pa.Array:
        """Titles of items."""
        assert self.texts.titles is not None  # the task names titles
        return self.texts.titles.take(numbers)

    def _titles(self, name: str) -> pa.Array:
        """The titles of each list, with a literal between them."""
        lists = self._lists(name)
        titles = self.escape(self._titles_of(ragged.as_arrow(lists.values)))
        columns = pa.LargeListArray.from_arrays(ragged.as_arrow(lists.offsets), titles)
        separator = self._literal(self.task.fields[name].join)
        return pc.binary_join(columns, pa.scalar(separator, TEXT))

    def _lines(self, names: tuple[str, ...]) -> pa.Array:
        """Some fields, one line each, each in a wording of its own; empty fields make no line."""
        texts = _repeat("", len(self.keys))
        for name in names:
            # Lines of the rows (r,) where the field is not empty.
            filled = ragged.as_numpy(pc.greater(pc.binary_length(self.field(name)), 0))
            rows = np.flatnonzero(filled)
            parts = self._fill_wordings(self.prompts.lines[name], f"line {name}", rows)
            lines = self.join(parts, len(rows))

            # A line feed before each but the first line of a row.
            is_first = pc.equal(pc.binary_length(texts.take(ragged.as_arrow(rows))), 0)
            line_feed = pa.scalar(self._literal("\n"), TEXT)
            separators = pc.if_else(is_first, pa.scalar("", TEXT), line_feed)

            # Appended to their rows; all other rows get the empty text after the lines.
            line_of_row = np.full(len(self.keys), len(rows))
            line_of_row[rows] = np.arange(len(rows))
            added = pa.concat_arrays([_join(separators, lines), pa.array([""], TEXT)])
            texts = _join(texts, added.take(ragged.as_arrow(line_of_row)))
        return texts

    def _phrases(self, name: str) -> pa.Array:
        """Wording for the value of another field."""
        # Every value needs a wording; an empty one has none.
        values = pc.fill_null(self._column(name).cast(TEXT), "")
        worded = pa.array(["", *self.prompts.phrases], TEXT)
        unknown = values.filter(pc.invert(pc.is_in(values, worded)))
        if len(unknown):
            raise SidmillError(
                f"the value {unknown[0].as_py()!r} of {name!r} has no wording: add it to phrases "
                f"in {self.task.prompts}.yaml, or name the values to keep in the task: "
                f"{name}: {{..., among: [{', '.join(self.prompts.phrases)}]}}"
            )

        texts = _repeat("", len(self.keys))
        for value, wordings in self.prompts.phrases.items():
            chosen = pc.equal(values, value)
            rows = np.flatnonzero(ragged.as_numpy(chosen))
            if len(rows):
                parts = self._fill_wordings(wordings, f"phrase {value}", rows)
                texts = pc.replace_with_mask(texts, chosen, self.join(parts, len(rows)))
        return texts

    def _literal(self, text: str) -> str:
        return text if self.plain else json.dumps(text, ensure_ascii=False)[1:-1]

    def _fill_wordings(self, wordings: list[str], use: str, rows: np.ndarray) -> list[Part]:
        """Draw a wording for each of some rows and fill it in.

        Args:
            wordings: to draw from.
            use: name of the draw, part of the random numbers.
            rows: int64 (r,).

        Returns:
            What the texts (r,) are joined of.
        """
        # The wording of each row, (r,).
        drawn = np.zeros(len(rows), np.int64)
        if len(wordings) > 1:
            keys = row_hash.derive(self.keys[rows], self.seed, use)
            drawn = row_hash.below(keys, len(wordings))

        # Wordings with the same fields in the same order are filled together.
        templates = [tasks.parse_template(wording) for wording in wordings]
        groups: dict[tuple[str | None, ...], list[int]] = {}
        for number, template in enumerate(templates):
            groups.setdefault(tuple(name for _, name in template), []).append(number)
        if len(groups) == 1:
            return self._fill(next(iter(groups)), templates, drawn, rows)

        # Several groups: the rows of each, then all in their own order.
        texts, order = [], []
        for fields, numbers in groups.items():
            some = np.flatnonzero(np.isin(drawn, numbers))
            parts = self._fill(fields, templates, drawn[some], rows[some])
            texts.append(self.join(parts, len(some)))
            order.append(some)
        back = np.argsort(np.concatenate(order))
        return [pa.concat_arrays(texts).take(ragged.as_arrow(back))]

    def _fill(
        self,
        fields: tuple[str | None, ...],
        templates: list[list[tuple[str, str | None]]],
        drawn: np.ndarray,
        rows: np.ndarray,
    ) -> list[Part]:
        """Literals, per row those of its wording, and between them the same fields in all rows."""
        parts: list[Part] = []
        for position, name in enumerate(fields):
            literals = [
                self._literal(template[position][0]) if len(template) == len(fields) else ""
                for template in templates
            ]
            is_same = len(set(literals)) == 1
            parts.append(literals[0] if is_same else Drawn(literals, drawn))
            if name is not None:
                parts.append(self._part(name, rows))
        return parts

    def _part(self, name: str, rows: np.ndarray) -> Part:
        """A field of some rows; SIDs stay numbers until the literals around them are known."""
        spec, all_rows = self.task.fields[name], len(rows) == len(self.keys)
        if spec.kind in SID_KINDS:
            lists = self._lists(name)
            return Sids(spec.domain, lists if all_rows else ragged.take_lists(lists, rows))
        field = self.field(name)
        return field if all_rows else field.take(ragged.as_arrow(rows))


def _runs(parts: list[Part]) -> Iterator[tuple[str | None, list[Part]]]:
    """Cut parts where a text of another column, or a SID of another domain, follows.

    Yields:
        A domain and literals with SIDs of it; or None and parts that hold no SID.
    """
    domain: str | None = None
    run: list[Part] = []
    for part in parts:
        # Whether the part starts a new run.
        if isinstance(part, Sids):
            is_new = domain != part.domain if domain else any(isinstance(p, pa.Array) for p in run)
        else:
            is_new = isinstance(part, pa.Array) and domain is not None
        if is_new:
            yield domain, run
            domain, run = None, []

        # Literals that follow each other are one.
        if isinstance(part, Sids):
            domain = part.domain
        if isinstance(part, str) and run and isinstance(run[-1], str):
            run[-1] += part
        elif not isinstance(part, str) or part:
            run.append(part)
    yield domain, run


def _texts(parts: list[Part]) -> list[str | pa.Array]:
    """Parts without SIDs, as the join takes them."""
    return [
        pa.array(part.literals, TEXT).take(ragged.as_arrow(part.which))
        if isinstance(part, Drawn)
        else part
        for part in parts
    ]


def json_escape(texts: pa.Array) -> pa.Array:
    """Texts as JSON strings, without the quotes; characters other than ASCII stay as they are."""
    if not len(texts) or not pc.any(pc.match_substring_regex(texts, r'[\x00-\x1f"\\]')).as_py():
        return texts
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t",
               "\b": "\\b", "\f": "\\f"}  # fmt: skip
    rare = pc.any(pc.match_substring_regex(texts, r"[\x00-\x08\x0b\x0e-\x1f]")).as_py()
    if rare:
        escapes |= {character: f"\\u{ord(character):04x}" for character in OTHER_CONTROLS}
    for character, escaped in escapes.items():
        texts = pc.replace_substring(texts, character, escaped)
    return texts


def uuids(source: str, contents: list[pa.Array]) -> pa.Array:
    """Make the uuid column of rendered rows: a uuid5 of source, texts and metadata of each row.

    The name that it hashes is ``source`` and the XXH3 of each text, 128 bits in hexadecimal, a line
    each: SHA-1 of the texts themselves takes as long as joining them.

    Args:
        source: what the name begins with.
        contents: large_string (n,) each: texts, and whose row it is.
    """
    # Hash the texts of each row.
    names = [b""] * len(contents[0])
    for texts in contents:
        offsets = np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, 8 * texts.offset)
        view = memoryview(texts.buffers()[2] or b"")
        for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
            names[row] += b"\n" + xxhash.xxh3_128_hexdigest(view[begin:end]).encode()

    # SHA-1 of namespace and name, with the bits that say version 5 and variant: uint8 (n, 16).
    start = hashlib.sha1(NAMESPACE + source.encode(), usedforsecurity=False)
    digests = []
    for name in names:
        digest = start.copy()
        digest.update(name)
        digests.append(digest.digest())
    numbers = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 20)[:, :16].copy()
    numbers[:, 6] = numbers[:, 6] & 0x0F | 0x50
    numbers[:, 8] = numbers[:, 8] & 0x3F | 0x80
    return _hexadecimal(numbers)


def _hexadecimal(numbers: np.ndarray) -> pa.StringArray:
    """Write uuids, uint8 (n, 16), with hyphens: string (n,)."""
    written = np.full((len(numbers), UUID_LENGTH), ord("-"), np.uint8)
    digits = [position for position in range(UUID_LENGTH) if position not in HYPHENS]
    written[:, digits[0::2]] = DIGITS[numbers >> 4]
    written[:, digits[1::2]] = DIGITS[numbers & 15]
    offsets = np.arange(0, UUID_LENGTH * len(numbers) + 1, UUID_LENGTH, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(written))


def _concat_arrow_lists(columns: list[ragged.Ragged]) -> pa.LargeListArray:
    """Concatenate the lists of each row: values of Arrow types, texts where the types differ."""
    if len(columns) == 1:
        return ragged.to_list_array(columns[0])

    # The values of all columns end to end, in one type.
    arrays = [ragged.as_arrow(column.values) for column in columns]
    kinds = {array.type for array in arrays}
    kind = kinds.pop() if len(kinds) == 1 else TEXT
    values = pa.concat_arrays([array.cast(kind) for array in arrays])

    # Their order row by row.
    starts = np.cumsum([0, *map(len, arrays[:-1])])
    numbers = [
        ragged.Ragged(np.arange(len(column.values)) + start, column.offsets)
        for column, start in zip(columns, starts.tolist(), strict=True)
    ]
    order = ragged.concat_lists(numbers)
    return pa.LargeListArray.from_arrays(
        ragged.as_arrow(order.offsets), values.take(ragged.as_arrow(order.values))
    )


def _chat(texts: list[tuple[str, pa.Array]]) -> pa.Array:
    """Lists of role and content, one of each text a row."""
    count, n_rows = len(texts), len(texts[0][1])
    order = np.arange(count * n_rows).reshape(count, n_rows).T.ravel()
    contents = pa.concat_arrays([text for _, text in texts]).take(ragged.as_arrow(order))
    names = pa.array([role for role, _ in texts], TEXT).take(
        ragged.as_arrow(np.tile(range(count), n_rows))
    )
    pairs = pa.StructArray.from_arrays([names, contents], fields=list(dataset_rows.CHAT.value_type))
    offsets = np.arange(0, count * n_rows + 1, count, dtype=np.int64)
    return pa.LargeListArray.from_arrays(ragged.as_arrow(offsets), pairs)


def _repeat(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, TEXT), count)


def _join(*parts: str | pa.Array | pa.Scalar) -> pa.Array | pa.Scalar:
    """Join parts row by row; a scalar where all parts are literals."""
    texts = [pa.scalar(part, TEXT) if isinstance(part, str) else part for part in parts]
    separator = pa.scalar("", TEXT)
    return pc.binary_join_element_wise(*texts, separator)
