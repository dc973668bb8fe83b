"""Second pass: rows of numbers -> rows of text, column by column.

A wording is drawn per row from its key. Each wording is cut into literals and fields. A stretch of
literals and SIDs is a list of numbers of strings, and its text one gathering of them; only texts of
other columns are joined afterwards.

Shapes: n rows.
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from sidmill.core.errors import SidmillError
from sidmill.datasets import ragged, row_hash, tasks
from sidmill.datasets.tasks import Prompts, Task
from sidmill.formats import dataset_rows

TEXT = pa.large_string()
NAMESPACE = hashlib.sha1(b"https://github.com/sidmill/datasets", usedforsecurity=False).digest()[
    :16
]
OTHER_CONTROLS = [chr(code) for code in range(32) if chr(code) not in "\n\r\t\b\f"]
SID_KINDS = ("sids", "sid")
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
HYPHENS = (8, 13, 18, 23)


class Strings:
    """SIDs, and behind them the literals that stand between them, all under one numbering."""

    def __init__(self, sids: pa.LargeStringArray) -> None:
        """Begin with the SIDs, large_string (N,)."""
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


class Words(NamedTuple):
    """What rendering needs besides the rows: per domain SIDs and ids, and the titles of items."""

    sids: dict[str, Strings]
    titles: pa.LargeStringArray | None
    pids: dict[str, pa.Array]


class Drawn(NamedTuple):
    """A literal of each row: ``literals`` of its number in ``which``, int64 (n,)."""

    literals: list[str]
    which: np.ndarray


class Sids(NamedTuple):
    """SIDs of each row, end to end: ``lists`` are numbers of items of ``domain``."""

    domain: str
    lists: ragged.Ragged


# What a text is joined of: a literal of all rows, one of each, SIDs, or texts, large_string (n,).
Part = str | Drawn | Sids | pa.Array


def render(
    rows: pa.Table, task: Task, prompts: Prompts, words: Words, form: str, seed: int
) -> pa.Table:
    """Put rows into words.

    Args:
        rows: ``key``, metadata and fields, as the first pass leaves them.
        task: what the fields are.
        prompts: wordings of one language.
        words: SIDs and titles.
        form: ``onerec`` makes JSON text, ``chat`` makes lists of role and content.
        seed: covers the choice of wordings.

    Returns:
        ``source``, ``uuid``, ``segments`` or ``messages``, ``metadata``; of chat turns also what
        :mod:`sidmill.formats.dataset_rows` says of ``ground_truth``.
    """
    page = Page(rows.combine_chunks(), task, prompts, words, seed, plain=form == "chat")
    if task.form == "segments" and form == "onerec":
        content = page.join(['[{"type": "text", "text": "', *page.role("text"), '"}]'])
    elif form == "onerec":
        parts: list[Part] = []
        for role in prompts.roles:
            opening = f'{{"role": "{role}", "content": [{{"type": "text", "text": "'
            parts += ["[" if not parts else ", ", opening, *page.role(role), '"}]}']
        content = page.join([*parts, "]"])
    else:
        texts = [(role, page.text(role)) for role in prompts.roles]
        content = texts[0][1] if task.form == "segments" else _chat(texts)
    hashed = [content] if form == "onerec" else [text for _, text in texts]
    owners = page.metadata()  # equal texts of two users are two rows
    columns = {
        "source": _repeat(task.source, len(rows)).cast(pa.string()),
        "uuid": uuids(task.source, [*hashed, owners]),
        task.form: content,
    }
    if form == "chat" and task.form == "messages":
        columns[dataset_rows.ANSWERS] = page.answers(texts[-1][1])
        columns[dataset_rows.PIDS] = page.answer_pids()
    columns["metadata"] = owners.cast(pa.string())
    return pa.Table.from_arrays(list(columns.values()), list(columns))


class Page:
    """Fields of some rows as text; JSON-escaped unless ``plain``."""

    def __init__(self, rows, task, prompts, words, seed, *, plain) -> None:
        """Take the rows; fields are made when they are first asked for."""
        self.rows: pa.Table = rows
        self.task: Task = task
        self.prompts: Prompts = prompts
        self.words: Words = words
        self.keys: np.ndarray = rows["key"].to_numpy()
        self.seed, self.plain = seed, plain
        self.made: dict[str, pa.Array] = {}
        self.making: set[str] = set()

    def role(self, role: str) -> list[Part]:
        """What the text of one role is joined of."""
        return self._worded(self.prompts.roles[role], role, np.arange(len(self.keys)))

    def text(self, role: str) -> pa.Array:
        """The text of one role, large_string (n,)."""
        return self.join(self.role(role))

    def join(self, parts: list[Part], count: int | None = None) -> pa.Array:
        """Texts of ``count`` rows, of all without it: large_string (n,)."""
        count = len(self.keys) if count is None else count
        whole: list[str | pa.Array] = []
        for domain, stretch in _stretches(parts):
            whole += [self._gathered(domain, stretch, count)] if domain else _texts(stretch)
        if len(whole) == 1 and isinstance(whole[0], pa.Array):
            return whole[0]
        joined = _join(*whole)
        return joined if isinstance(joined, pa.Array) else _repeat(joined.as_py(), count)

    def _gathered(self, domain: str, parts: list[Part], count: int) -> pa.Array:
        """Texts of literals and SIDs of one domain, without copying a byte twice."""
        strings, lists = self.words.sids[domain], []
        for part in parts:
            if isinstance(part, Sids):
                lists.append(part.lists)
            else:
                drawn = part if isinstance(part, Drawn) else Drawn([part], np.zeros(count, int))
                numbers = strings.numbers(drawn.literals)[drawn.which]
                lists.append(ragged.Ragged(numbers, np.arange(count + 1)))
        return ragged.texts(strings.texts, ragged.side_by_side(lists))

    def field(self, name: str) -> pa.Array:
        """The text of one field, large_string (n,)."""
        if name not in self.made:
            declared = self.task.fields[name]
            make = {
                "sids": lambda: ragged.texts(self._sids(name), self._lists(name)),
                "sid": lambda: ragged.texts(self._sids(name), self._lists(name)),
                "titles": lambda: self._titles(name),
                "title": lambda: self.escaped(self.words.titles.take(self._column(name))),
                "lines": lambda: self._lines(declared["lines"]),
                "phrase": lambda: self._phrases(declared["phrase"]),
            }
            kind = self.task.kind(name)
            if name in self.making:
                raise SidmillError(
                    f"field {name!r} is made of itself: see {self.task.prompts}.yaml"
                )
            self.making.add(name)
            text = make[kind]() if kind in make else self.escaped(self._column(name).cast(TEXT))
            self.made[name] = text
        return self.made[name]

    def metadata(self) -> pa.Array:
        """JSON objects; numbers stay numbers."""
        parts: list = []
        for name in self.task.metadata:
            parts.append(f"{', ' if parts else '{'}{json.dumps(name)}: ")
            kind = self.task.kind(name) if name in self.task.fields else "value"
            column = self._column(name)
            if kind not in ("sid", "title") and pa.types.is_integer(column.type):
                parts.append(pc.fill_null(column.cast(TEXT), "null"))
            else:
                text = self.field(name) if name in self.task.fields else column.cast(TEXT)
                text = text if name in self.task.fields and not self.plain else json_escape(text)
                parts += ['"', pc.fill_null(text, ""), '"']
        return _join(*parts, "}")

    def answers(self, texts: pa.Array) -> pa.LargeListArray:
        """The SIDs of each answer; where an answer names items otherwise or not, its text."""
        lists = [
            self._strings(name) for name in self._answering() if self.task.kind(name) in SID_KINDS
        ]
        if not lists:
            return pa.LargeListArray.from_arrays(ragged.arrow(np.arange(len(texts) + 1)), texts)
        return _beside(lists)

    def answer_pids(self) -> pa.LargeListArray:
        """The items that each answer names, in the type of the catalogue's ids."""
        lists = []
        for name in self._answering():
            numbers = self._lists(name)
            pids = self.words.pids[self._domain(name)].take(ragged.arrow(numbers.values))
            lists.append(ragged.Ragged(pids, numbers.offsets))
        if not lists:
            nothing = self.words.pids["items"].slice(0, 0)
            lists = [ragged.Ragged(nothing, np.zeros(len(self.keys) + 1, np.int64))]
        return _beside(lists)

    def _answering(self) -> list[str]:
        """The fields of items that the wordings of the answer name, in order, each once."""
        waiting, names = list(self.prompts.roles["assistant"]), {}
        while waiting:
            fields = [name for _, name in tasks.pieces(waiting.pop(0)) if name]
            names |= dict.fromkeys(fields)
            for name in fields:
                if self.task.kind(name) == "lines":
                    waiting += [
                        wording
                        for part in self.task.fields[name]["lines"]
                        for wording in self.prompts.lines[part]
                    ]
        kinds = (*SID_KINDS, *tasks.TITLES)
        return [name for name in names if self.task.kind(name) in kinds]

    def _strings(self, name: str) -> ragged.Ragged:
        """The SIDs of a field, one by one."""
        numbers = self._lists(name)
        texts = self.words.sids[self._domain(name)].texts.take(ragged.arrow(numbers.values))
        return ragged.Ragged(texts, numbers.offsets)

    def escaped(self, texts: pa.Array) -> pa.Array:
        """Ready to stand in the content."""
        return texts if self.plain else json_escape(texts)

    def _column(self, name: str) -> pa.Array:
        column = self.rows[name]
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)

    def _lists(self, name: str) -> ragged.Ragged:
        """Numbers of items, of a field of lists or of one item a row."""
        column = self._column(name)
        if pa.types.is_large_list(column.type):
            return ragged.of(column)
        return ragged.Ragged(column.to_numpy(), np.arange(len(column) + 1))

    def _domain(self, name: str) -> str:
        return self.task.fields[name].get("domain", "items")

    def _sids(self, name: str) -> pa.LargeStringArray:
        return self.words.sids[self._domain(name)].texts

    def _titles(self, name: str) -> pa.Array:
        lists = self._lists(name)
        titles = self.escaped(self.words.titles.take(ragged.arrow(lists.values)))
        between = self.task.fields[name].get("join", "; ")
        columns = pa.LargeListArray.from_arrays(ragged.arrow(lists.offsets), titles)
        return pc.binary_join(columns, pa.scalar(self._literal(between), TEXT))

    def _lines(self, names: list[str]) -> pa.Array:
        """Some fields, one line each, each in a wording of its own; empty fields make no line."""
        whole = _repeat("", len(self.keys))
        for name in names:
            there = np.flatnonzero(
                pc.greater(pc.binary_length(self.field(name)), 0).to_numpy(zero_copy_only=False)
            )
            worded = self._worded(self.prompts.lines[name], f"line {name}", there)
            lines = self.join(worded, len(there))
            first = pc.equal(pc.binary_length(whole.take(ragged.arrow(there))), 0)
            between = pc.if_else(first, pa.scalar("", TEXT), pa.scalar(self._literal("\n"), TEXT))
            place = np.full(len(self.keys), len(there))
            place[there] = np.arange(len(there))
            added = pa.concat_arrays([_join(between, lines), pa.array([""], TEXT)])
            whole = _join(whole, added.take(ragged.arrow(place)))
        return whole

    def _phrases(self, name: str) -> pa.Array:
        """Wording for the value of another field."""
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
            rows = np.flatnonzero(chosen.to_numpy(zero_copy_only=False))
            if len(rows):
                worded = self._worded(wordings, f"phrase {value}", rows)
                texts = pc.replace_with_mask(texts, chosen, self.join(worded, len(rows)))
        return texts

    def _literal(self, text: str) -> str:
        return text if self.plain else json.dumps(text, ensure_ascii=False)[1:-1]

    def _worded(self, wordings: list[str], use: str, rows: np.ndarray) -> list[Part]:
        """Draw a wording for each of ``rows`` and fill it in: what is to be joined."""
        count = len(wordings)
        own = self.keys[rows]
        drawn = np.zeros(len(rows), np.int64)
        if count > 1:
            drawn = row_hash.below(row_hash.derive(own, self.seed, use), count)
        cut = [tasks.pieces(wording) for wording in wordings]
        shapes: dict[tuple, list[int]] = {}
        for number, parts in enumerate(cut):
            shapes.setdefault(tuple(name for _, name in parts), []).append(number)
        if len(shapes) == 1:
            return self._filled(next(iter(shapes)), cut, drawn, rows)
        texts, order = [], []
        for shape, numbers in shapes.items():
            some = np.flatnonzero(np.isin(drawn, numbers))
            filled = self._filled(shape, cut, drawn[some], rows[some])
            texts.append(self.join(filled, len(some)))
            order.append(some)
        return [pa.concat_arrays(texts).take(ragged.arrow(np.argsort(np.concatenate(order))))]

    def _filled(self, shape: tuple, cut: list, drawn: np.ndarray, rows: np.ndarray) -> list[Part]:
        """Literals, per row those of its wording, and between them the fields of one sequence."""
        whole: list[Part] = []
        for place, name in enumerate(shape):
            literals = [
                self._literal(parts[place][0]) if len(parts) == len(shape) else "" for parts in cut
            ]
            same = len(set(literals)) == 1
            whole.append(literals[0] if same else Drawn(literals, drawn))
            if name is not None:
                whole.append(self._part(name, rows))
        return whole

    def _part(self, name: str, rows: np.ndarray) -> Part:
        """A field of some rows; SIDs stay numbers until all that stands around them is known."""
        everything = len(rows) == len(self.keys)
        if self.task.kind(name) in SID_KINDS:
            lists = self._lists(name)
            return Sids(self._domain(name), lists if everything else ragged.pick(lists, rows))
        field = self.field(name)
        return field if everything else field.take(ragged.arrow(rows))


def _stretches(parts: list[Part]) -> Iterator[tuple[str | None, list[Part]]]:
    """Cut parts where a text of another column, or a SID of another domain, comes in.

    Yields:
        A domain and literals with SIDs of it; or None and parts that hold no SID.
    """
    domain, stretch = None, []
    for part in parts:
        if isinstance(part, Sids):
            cut = domain != part.domain if domain else any(isinstance(p, pa.Array) for p in stretch)
        else:
            cut = isinstance(part, pa.Array) and domain is not None
        if cut:
            yield domain, stretch
            domain, stretch = None, []
        if isinstance(part, Sids):
            domain = part.domain
        if isinstance(part, str) and stretch and isinstance(stretch[-1], str):
            stretch[-1] += part
        elif not isinstance(part, str) or part:
            stretch.append(part)
    yield domain, stretch


def _texts(parts: list[Part]) -> list[str | pa.Array]:
    """Parts without SIDs, as the join takes them."""
    return [
        pa.array(part.literals, TEXT).take(ragged.arrow(part.which))
        if isinstance(part, Drawn)
        else part
        for part in parts
    ]


def json_escape(texts: pa.Array) -> pa.Array:
    """As JSON writes them, without the quotes and with other than ASCII as it is."""
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
    """A uuid5 for each row, of its source, its texts and its metadata: equal rows have equal ones.

    The name behind it is ``source`` and the XXH3 of each text, 128 bits in hexadecimal, a line
    each: SHA-1 of the texts themselves takes as long as putting them together.

    Args:
        source: what the name begins with.
        contents: large_string (n,) each: texts, and whose row it is.
    """
    start = hashlib.sha1(NAMESPACE + source.encode(), usedforsecurity=False)
    names = [b""] * len(contents[0])
    for texts in contents:
        offsets = np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, 8 * texts.offset)
        view = memoryview(texts.buffers()[2] or b"")
        for row, (begin, end) in enumerate(pairwise(offsets.tolist())):
            names[row] += b"\n" + xxhash.xxh3_128_hexdigest(view[begin:end]).encode()
    digests = []
    for name in names:
        digest = start.copy()
        digest.update(name)
        digests.append(digest.digest())
    numbers = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 20)[:, :16].copy()
    numbers[:, 6] = numbers[:, 6] & 0x0F | 0x50
    numbers[:, 8] = numbers[:, 8] & 0x3F | 0x80
    written = np.full((len(numbers), 36), ord("-"), np.uint8)
    places = [place for place in range(36) if place not in HYPHENS]
    written[:, places[0::2]] = DIGITS[numbers >> 4]
    written[:, places[1::2]] = DIGITS[numbers & 15]
    offsets = np.arange(0, 36 * len(numbers) + 1, 36, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(written))


def _beside(lists: list[ragged.Ragged]) -> pa.LargeListArray:
    """Join list i of each: values of Arrow types, texts where the types differ."""
    if len(lists) == 1:
        return ragged.to_arrow(lists[0])
    kinds = {each.values.type for each in lists}
    kind = kinds.pop() if len(kinds) == 1 else TEXT
    values = pa.concat_arrays([each.values.cast(kind) for each in lists])
    starts = np.cumsum([0, *(len(each.values) for each in lists[:-1])])
    numbers = [
        ragged.Ragged(np.arange(len(each.values)) + start, each.offsets)
        for each, start in zip(lists, starts.tolist(), strict=True)
    ]
    order = ragged.side_by_side(numbers)
    return pa.LargeListArray.from_arrays(
        ragged.arrow(order.offsets), values.take(ragged.arrow(order.values))
    )


def _chat(texts: list[tuple[str, pa.Array]]) -> pa.Array:
    """Lists of role and content, one of each text a row."""
    count, n_rows = len(texts), len(texts[0][1])
    order = np.arange(count * n_rows).reshape(count, n_rows).T.ravel()
    contents = pa.concat_arrays([text for _, text in texts]).take(ragged.arrow(order))
    names = pa.array([role for role, _ in texts], TEXT).take(
        ragged.arrow(np.tile(range(count), n_rows))
    )
    pairs = pa.StructArray.from_arrays([names, contents], fields=list(dataset_rows.CHAT.value_type))
    offsets = np.arange(0, count * n_rows + 1, count, dtype=np.int64)
    return pa.LargeListArray.from_arrays(ragged.arrow(offsets), pairs)


def _repeat(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, TEXT), count)


def _join(*parts: str | pa.Array | pa.Scalar) -> pa.Array | pa.Scalar:
    whole = [pa.scalar(part, TEXT) if isinstance(part, str) else part for part in (*parts, "")]
    return pc.binary_join_element_wise(*whole)  # the last one stands between the others
