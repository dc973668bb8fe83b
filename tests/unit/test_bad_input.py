"""Whatever a user's file holds, a run ends with one message, and the output folder stays clean.

Each case names a file, what is in it, and words of the message: the place, what was found, what is
wanted.
"""

import gzip
import json
import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.datasets import item_lookup
from sidmill.embed.backends import precomputed
from sidmill.formats import (
    item_data,
    item_text,
    memory_maps,
    sequence_data,
    sequence_table,
)
from sidmill.interactions import read as log_reader
from sidmill.io import text_lines
from sidmill.items import render
from sidmill.quantize import pretrained
from sidmill.retrieval import read as retrieval_reader
from sidmill.retrieval import training_data
from sidmill.settings.embedding import Embedding
from sidmill.settings.interactions import Interactions
from sidmill.settings.items import Items
from sidmill.settings.quantize import Pretrained
from sidmill.settings.retrieval import Retrieval, Training

LONGEST_MESSAGE = 1500
TEN_MB = 10 << 20
DEEP = "[" * 200_000
HUGE = 10**30
ROW = b'{"id": "a", "title": "red cup"}\n'
IDS = ["a", "b", "c"]


def refuses(call, folder, *words):
    """Expect one readable message, and nothing in ``folder``."""
    with pytest.raises(SidmillError) as error:
        call()
    message = str(error.value)
    for word in words:
        assert word in message
    assert len(message) < LONGEST_MESSAGE + 2 * len(str(folder))
    assert not [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def place(tmp_path):
    """Where the input lies, with a space and letters of other scripts; and the output folder."""
    folder = tmp_path / "mes données 数据"
    (tmp_path / "out").mkdir()
    folder.mkdir()
    return SimpleNamespace(data=folder, out=tmp_path / "out")


def put(path, content):
    """Write bytes, text, a table, or what a function writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes | str):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    elif isinstance(content, pa.Table):
        pq.write_table(content, path)
    elif content is not None:
        content(path)
    return str(path)


def table(**columns):
    return pa.table(columns)


def twins(name, column):
    """A table with two columns of one name, beside a title."""
    return pa.table([column, column, ["x"] * len(column)], names=[name, name, "title"])


def cut(content, size):
    """The first bytes of what is written."""

    def write(path):
        whole = path.with_name("whole")
        put(whole, content)
        path.write_bytes(whole.read_bytes()[:size])
        whole.unlink()

    return write


def flipped(content, start, stop):
    """Some bytes of what is written, turned over."""

    def write(path):
        put(path, content)
        data = bytearray(path.read_bytes())
        data[start:stop] = bytes(255 - byte for byte in data[start:stop])
        path.write_bytes(data)

    return write


# --- the catalogue


def catalogue(place, **settings):
    usual = {"path": str(place.data / "*"), "id_field": "id", "fields": ["title"]}
    out = (place.out / "text.parquet", place.out / "rejects.parquet")
    return render.render(*map(str, out), Items(**usual | settings))


def rows(*extra):
    return ROW + b"".join(extra)


CATALOGUE = {
    "empty": ("i.jsonl", b"", "i.jsonl: the file is empty, wanted"),
    "blank lines": ("i.jsonl", b"\n \n\r\n", "has a field 'id'"),
    "a byte order mark alone": ("i.jsonl", b"\xef\xbb\xbf", "has a field 'id'"),
    "latin-1": ("i.jsonl", rows('{"id": "é"}'.encode("latin-1")), "row 2: not UTF-8 (byte 8"),
    "invalid UTF-8": ("i.jsonl", rows(b'{"id": "\xc3\x28"}'), "row 2: not UTF-8"),
    "NUL bytes": ("i.jsonl", rows(b'{"id": "a\0"}'), "row 2: not JSON"),
    "NUL bytes alone": ("i.jsonl", rows(b"\0" * 100), "row 2: not JSON"),
    "a line of 10 MB": ("i.jsonl", rows(b'{"id": "' + b"x" * TEN_MB), "row 2: not JSON"),
    "an id of 10 MB twice": (
        "i.jsonl",
        2 * (b'{"id": "' + b"x" * TEN_MB + b'", "title": "t"}\n'),
        "row 2: id 'xxx",
    ),
    "deep JSON": ("i.jsonl", rows(b'{"id": ' + DEEP.encode()), "row 2: JSON nested too deeply"),
    "deep title": (
        "i.jsonl",
        rows(b'{"id": "b", "title": ' + b"[" * 400 + b"]" * 400 + b"}"),
        "row 2: ",
    ),
    "a huge id": ("i.jsonl", f'{{"id": {HUGE}, "title": "t"}}', "row 1: ", "64 bits"),
    "5,000 digits": ("i.jsonl", rows(b'{"id": ' + b"9" * 5000 + b"}"), "row 2: no text in"),
    "an id that is a list": ("i.jsonl", b'{"id": [1], "title": "t"}', "is a list, wanted an"),
    "an id that is a bool": ("i.jsonl", b'{"id": true, "title": "t"}', "is a bool, wanted an"),
    "an id that is a float": ("i.jsonl", b'{"id": 1.5, "title": "t"}', "is a float, wanted an"),
    "NaN for an id": ("i.jsonl", rows(b'{"id": NaN, "title": "t"}'), "row 2: no id in field"),
    "half a character": ("i.jsonl", b'{"id": "a", "title": "\\ud800x"}', "a lone surrogate"),
    "half a character in an id": ("i.jsonl", b'{"id": "\\ud800", "title": "x"}', "surrogate"),
    "a list for a row": ("i.jsonl", rows(b"[1, 2]"), "row 2: a JSON list, wanted an object"),
    "a number for a row": ("i.jsonl", rows(b"7"), "row 2: a JSON int, wanted an object"),
    "a dot for a title": ("i.jsonl", b'{"id": "a", "title": "."}', "no letter or digit in title"),
    "tags for a title": ("i.jsonl", b'{"id": "a", "title": "<br>"}', "row 1: no text in title"),
    "two files, one id": (
        "i.jsonl",
        ROW,
        "i.jsonl, row 1: id 'a' stands already at ",
        "b.jsonl, row 1",
    ),
    "an array cut": ("i.json", b'[{"id": "a", "title": "t"}, {"id"', "past element 1", "correct"),
    "an array and more": ("i.json", b'[{"id": "a", "title": "t"}] []', "i.json", "element 1"),
    "an array of numbers": ("i.json", b"[1]", "row 1: a JSON int, wanted an object"),
    "an array in latin-1": ("i.json", b'[{"id": "\xe9"}]', "row 1: not UTF-8"),
    "a deep array": ("i.json", DEEP, "element 0 of its JSON (JSON nested too deeply)"),
    "an empty array": ("i.json", b"[]", "has a field 'id'"),
    "two columns of a name": ("i.csv", b"id,title,id\n1,t,2\n", "two columns are named 'id'"),
    "a header alone": ("i.csv", b"id,title\n", "no row of ", "has a field 'id'"),
    "a short row": ("i.csv", b"id,title\n1,t\n2\n", "row 3: 1 columns, the header has 2"),
    "an open quote": ("i.csv", b'id,title\n1,"t\n2,u\n', "line 2: a quote opened there"),
    "latin-1 in a table": ("i.csv", b"id,title\n1,\xe9t\xe9\n", "row 2: not UTF-8"),
    "commas for tabs": ("i.tsv", b"id,title\n1,t\n", "field 'id': the first row has id,title"),
    "a 10 MB field": ("i.csv", b"id,title\n1," + b"." * TEN_MB, "row 2: no letter or digit"),
    "a kind unknown": ("i.xlsx", b"PK", "i.xlsx: unknown kind of file: take one ending in"),
    "not gzip": ("i.jsonl.gz", ROW, "i.jsonl.gz: cannot be read to its end"),
    "gzip cut": ("i.jsonl.gz", gzip.compress(ROW * 99)[:-9], "cannot be read to its end"),
    "gzip and more": ("i.jsonl.gz", gzip.compress(ROW) + b"junk", "cannot be read to its end"),
    "gzip flipped": ("i.csv.gz", flipped(gzip.compress(ROW * 9), 12, 20), "cannot be read to its"),
    "zstd cut": ("i.jsonl.zst", pa.compress(ROW * 99, "zstd", asbytes=True)[:-5], "i.jsonl.zst"),
    "not parquet": ("i.parquet", ROW, "i.parquet: not a readable parquet file"),
    "parquet cut": ("i.parquet", cut(table(id=IDS, title=IDS), 200), "not a readable parquet"),
    "a damaged page": (
        "i.parquet",
        flipped(table(id=IDS, title=IDS), 4, 60),
        "i.parquet: not a readable parquet file",
    ),
    "two columns in parquet": ("i.parquet", twins("id", IDS), "two columns are named 'id'"),
    "floats in parquet": ("i.parquet", table(id=[1.5], title=["t"]), "is a float, wanted an"),
    "bytes for ids": ("i.parquet", table(id=[b"a"], title=["t"]), "is a bytes, wanted an"),
    "bytes for titles": ("i.parquet", table(id=["a"], title=[b"cup"]), "row 1: ", "bytes"),
    "no such column": ("i.parquet", table(pid=["a"]), "field 'id': the first row has pid"),
    "a date out of range": (
        "i.parquet",
        table(id=["a"], title=pa.array([10**15], pa.timestamp("s"))),
        "row 1: a value that cannot be read",
    ),
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_bad_catalogue(place, name):
    file, content, *words = CATALOGUE[name]
    path = put(place.data / file, content)
    if name == "two files, one id":
        path = str(Path(put(place.data / "b.jsonl", content)).with_name("*"))
    refuses(lambda: catalogue(place, path=path), place.out, *words)


PATHS = {
    "a glob that matches nothing": ("*.csv", "items.path: no file matches"),
    "no file": ("none.jsonl", "items.path: no such file: "),
    "a folder without such files": (".", "items.path: no file matches"),
    "a link to nothing": ("dangling.jsonl", "items.path: no such file: "),
    "a link to itself": ("loop.jsonl", "items.path: no such file: "),
    "a pipe": ("pipe.jsonl", "pipe.jsonl: no such file"),
    "braces": ("{a}.jsonl", "rename it, Snakemake cannot take braces"),
    "a NUL byte": ("a\0b", "items.path: no such file: "),
    "a NUL byte in a glob": ("a\0*", "items.path: no "),
    "a name of 5,000 letters": ("x" * 5000, "items.path: no such file: "),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_bad_path(place, name):
    pattern, *words = PATHS[name]
    (place.data / "dangling.jsonl").symlink_to(place.data / "gone")
    (place.data / "loop.jsonl").symlink_to(place.data / "loop.jsonl")
    (place.data / "folder.csv").mkdir()
    if name == "a pipe":
        os.mkfifo(place.data / "pipe.jsonl")
    if name == "braces":
        put(place.data / "{a}.jsonl", ROW)
    with pytest.raises(SidmillError) as error:
        catalogue(place, path=f"{place.data}/{pattern}")
    assert all(word in str(error.value) for word in words)


SETTINGS = {
    "a template that stays open": ({"template": "{title"}, "items.template '{title'"),
    "a template without a field": ({"template": "title"}, "names no field"),
    "a template that calls": ({"template": "{title.__class__}"}, "braces take a plain field name"),
    "a template that indexes": ({"template": "{title[0]}"}, "braces take a plain field name"),
    "a field misspelt": ({"fields": ["titel"]}, "no text in titel: the row has id, title"),
    "a second field misspelt": ({"fields": ["title", "brnad"]}, "no row of the catalogue has"),
    "an id field misspelt": ({"id_field": "asin"}, "items.id_field", "the first row has id, title"),
    "text for integers": ({"id_type": "int"}, "id 'a' is not an integer", "items.id_type"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_the_catalogue_does_not_fit(place, name):
    settings, *words = SETTINGS[name]
    put(place.data / "i.jsonl", ROW)
    refuses(lambda: catalogue(place, **settings), place.out, *words)


def linked(path):
    put(path.parent.parent / "elsewhere" / "i.jsonl", ROW)
    path.symlink_to(path.parent.parent / "elsewhere" / "i.jsonl")


SAME = {
    "UTF-16": ("i.jsonl", ROW.decode().encode("utf-16")),
    "a byte order mark": ("i.jsonl", b"\xef\xbb\xbf" + ROW),
    "CRLF": ("i.jsonl", ROW.replace(b"\n", b"\r\n")),
    "no end of line": ("i.jsonl", ROW.strip()),
    "blank lines": ("i.jsonl", b"\n\n" + ROW + b"\n"),
    "gzip": ("i.jsonl.gz", gzip.compress(ROW)),
    "gzip in members": ("i.jsonl.gz", gzip.compress(ROW[:9]) + gzip.compress(ROW[9:])),
    "a symbolic link": ("i.jsonl", linked),
    "a table with a byte order mark": ("i.csv", b"\xef\xbb\xbfid,title\r\na,red cup\r\n"),
    "a NUL in a table": ("i.csv", b"id,title\na,red\0 cup\n"),
    "upper case": ("I.CSV", b"id,title\na,red cup\n"),
    "10 MB of white space": ("i.csv", b"id,title\na,red " + b" " * TEN_MB + b"cup\n"),
    "parquet": ("i.parquet", table(id=["a"], title=["red cup"])),
}


@pytest.mark.parametrize("name", SAME)
def test_forms_that_are_no_fault_give_the_same(place, name):
    file, content = SAME[name]
    put(place.data / file, content)
    assert catalogue(place) == (1, 1, 0)
    found = pq.read_table(place.out / "text.parquet").to_pylist()
    assert found == [{"pid": "a", "text": "red cup"}]


@pytest.mark.parametrize(
    ("name", "before", "after", "words"),
    [
        ("i.jsonl.gz", ROW + b'{"id": "b", "title": "', b'"}\n' + ROW, "row 2: a line of more"),
        ("i.csv.gz", b"id,title\na,", b"\n", "line 2: a line of more than"),
        ("i.json.gz", b'[{"id": "a", "title": "', b'"}]', "what follows element 0"),
    ],
)
def test_a_bomb_does_not_fill_the_memory(place, monkeypatch, name, before, after, words):
    monkeypatch.setattr(text_lines, "LONGEST", 1 << 20)
    bomb = b"".join(map(gzip.compress, (before, *[b"0" * (16 << 20)] * 4, after)))
    assert len(bomb) < 1 << 17
    put(place.data / name, bomb)
    tracemalloc.start()
    try:
        refuses(lambda: catalogue(place), place.out, words)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


# --- interactions, in four forms


def log(place, file, content, **settings):
    put(place.data / file, content)
    schema = item_text.schema(pa.int64())
    known = place.data.parent / "text.parquet"
    item_text.write(known, pa.int64(), [pa.table([[1, 2, 3], ["x"] * 3], schema=schema)])
    usual = {"path": str(place.data), "max_history": 10, "memory_mb": 16}
    out = (place.out / "sequences.parquet", place.out / "rejects.parquet")
    return log_reader.read(known, *out, Interactions(**usual | settings))


def sequence(**changes):
    return json.dumps({"user_id": "u", "item_ids": [1, 2, 3], **changes}) + "\n"


def event(**changes):
    return json.dumps({"user_id": "u", "item_id": 1, "timestamp": 5, **changes}) + "\n"


def onerec(**changes):
    usual = {"uid": 1, "split": 0, "hist_video_pid": [1, 2], "target_video_pid": [3]}
    return json.dumps(usual | changes) + "\n"


def missrec(**changes):
    return json.dumps({"user_id": "u", "user_sequence": [0, 1, 2], **changes}) + "\n"


INTERACTIONS = {
    "empty": ("i.jsonl", b"", "the file is empty"),
    "blank": ("i.jsonl", b"\n", "has the fields none, which tell none of the forms"),
    "no known field": ("i.jsonl", b'{"who": 1}\n', "has the fields who, which tell none"),
    "latin-1": ("i.jsonl", sequence().encode() + b'{"user_id": "\xe9"}', "row 2: not UTF-8"),
    "gzip cut": ("i.jsonl.gz", gzip.compress(sequence().encode() * 99)[:-9], "to its end"),
    "two columns": ("i.parquet", twins("item_ids", [[1]]), "two columns are named 'item_ids'"),
    "no user": ("i.jsonl", sequence(user_id=None), "row 1: no user in field 'user_id'"),
    "a list for a user": ("i.jsonl", sequence(user_id=[1]), "user [1] is a list"),
    "half a character": ("i.jsonl", sequence(user_id="\ud800"), "a lone surrogate"),
    "text for items": ("i.jsonl", sequence(item_ids="1 2"), "'item_ids' is a str, wanted a list"),
    "no items": ("i.jsonl", sequence(item_ids=[]), "row 1: empty history"),
    "a null item": ("i.jsonl", sequence(item_ids=[1, None]), "item None is a NoneType"),
    "a float item": ("i.jsonl", sequence(item_ids=[1, 2.5]), "item 2.5 is a float"),
    "a bool item": ("i.jsonl", sequence(item_ids=[1, True]), "item True is a bool"),
    "an unknown item": ("i.jsonl", sequence(item_ids=[1, 9]), "has item 9, which is not in the"),
    "item 0": ("i.jsonl", sequence(item_ids=[1, 0]), "item id 0: 0 is padding"),
    "a huge item": ("i.jsonl", sequence(item_ids=[1, HUGE]), "does not fit in 64 bits"),
    "a deep item": ("i.jsonl", sequence(item_ids=["X"]).replace('"X"', "[" * 400 + "]" * 400),
                    "is a list"),
    "text for an item": ("i.jsonl", sequence(item_ids=["x"]), "item 'x' is no integer"),
    "few timestamps": ("i.jsonl", sequence(timestamps=[1]), "3 items, but timestamps: 1"),
    "text timestamps": ("i.jsonl", sequence(timestamps=["x", 1, 2]), "timestamp 'x' is not a"),
    "huge timestamps": ("i.jsonl", sequence(timestamps=[1, 2, HUGE]), "whole number of 64 bits"),
    "falling timestamps": ("i.jsonl", sequence(timestamps=[1, 3, 2]), "2 after 3"),
    "NaN for a timestamp": ("i.jsonl", sequence(timestamps=[1, 2, float("nan")]), "timestamp nan"),
    "splits unknown": ("i.jsonl", sequence(splits=["x"] * 3), "split 'x': wanted train, valid"),
    "few splits": ("i.jsonl", sequence(splits=[0]), "3 items, but splits: 1"),
    "a long history": ("i.jsonl", sequence(item_ids=[1] * 11), "more than interactions.max_hist"),
    "lists of floats": ("i.parquet", table(user_id=["u"], item_ids=[[1.5]]), "is a float"),
    "an item without an event": ("i.csv", b"user_id,item_id,timestamp\nu,,3\n", "no item in field"),
    "an event without a time": ("i.jsonl", event(timestamp=None), "no timestamp in field"),
    "an event on a date": ("i.jsonl", event(timestamp="2026-02-30"), "timestamp '2026-02-30' is"),
    "an event of a list": ("i.jsonl", event(item_id=[1]), "item [1] is a list"),
    "an event's short row": ("i.csv", b"user_id,item_id,timestamp\nu,1\n", "row 2: 2 columns"),
    "onerec's split 7": ("i.jsonl", onerec(split=7), "split 7: wanted train, valid, test, 0"),
    "onerec's text": ("i.jsonl", onerec(hist_video_pid="1,2"), "is a str, wanted a list"),
    "onerec without items": ("i.jsonl", onerec(hist_video_pid=None, target_video_pid=None),
                             "empty history"),
    "missrec of no split": ("i.jsonl", missrec(), "is in no folder train, valid or test"),
    "missrec of padding": ("train/i.jsonl", missrec(user_sequence=[0, 0]), "padding alone"),
    "missrec's 0 inside": ("train/i.jsonl", missrec(user_sequence=[1, 0, 2]), "0 is padding"),
}  # fmt: skip


@pytest.mark.parametrize("name", INTERACTIONS)
def test_bad_interactions(place, name):
    file, content, *words = INTERACTIONS[name]
    refuses(lambda: log(place, file, content), place.out, *words)


@pytest.mark.parametrize(
    ("content", "settings", "words"),
    [
        (missrec(), {"split": "time"}, "interactions.split: time needs timestamps"),
        (sequence(), {"split": "time"}, "row 1: no timestamps, which interactions.split"),
        (sequence(), {"split": "given"}, "row 1: no splits, which interactions.split"),
        (sequence(), {"path": None}, "interactions.path is null: name your interaction log"),
        (sequence(), {"format": "events"}, "no item in field 'item_id'"),
        (sequence(item_ids=[9]), {"on_unknown_items": "reject"}, "none of 1 interactions in 1 row"),
        (b"oops\n" + sequence(user_id=None).encode(), {"format": "events", "on_bad_rows": "reject"},
         "none of 0 interactions"),
    ],
)  # fmt: skip
def test_interactions_that_do_not_fit_their_settings(place, content, settings, words):
    refuses(lambda: log(place, "i.jsonl", content, **settings), place.out, words)


# --- embeddings that the user brings


def vectors(place, file, content, ids=None, pids=IDS, dim=None):
    path = put(place.data / file, content)
    ids_path = put(place.data.parent / ids[0], ids[1]) if ids else None
    return precomputed.gather(pa.array(pids), Embedding(path=path, ids_path=ids_path, dim=dim))


def npy(values, **options):
    return lambda path: np.save(path.open("wb"), values, **options)


def lists(values, kind=None):
    return table(pid=IDS, embedding=pa.array(values, kind or pa.list_(pa.float32())))


TRAPS = []


class Trap:
    """Unpickled, it leaves a trace."""

    def __reduce__(self):
        return TRAPS.append, (1,)


def header(text):
    """A .npy whose header says ``text``."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


GOOD = np.eye(3, 2, dtype=np.float32)
TXT = ("ids.txt", "a\nb\nc\n")
EMBEDDINGS = {
    "empty parquet": ("e.parquet", b"", None, "e.parquet: not a readable parquet file"),
    "no vectors": ("e.parquet", lists([[1.0]] * 3).slice(0, 0), None, "no vectors in it"),
    "parquet cut": ("e.parquet", cut(lists([[1.0]] * 3), 150), None, "not a readable parquet"),
    "a damaged page": ("e.parquet", flipped(lists([[1.0]] * 3), 4, 40), None, "e.parquet: not a"),
    "two columns": ("e.parquet", twins("embedding", [[1.0]]), None, "2 columns named 'embedding'"),
    "text for vectors": ("e.parquet", table(pid=IDS, embedding=IDS), None, "has type string, want"),
    "integer vectors": ("e.parquet", lists([[1]] * 3, pa.list_(pa.int64())), None, "list<"),
    "a null vector": ("e.parquet", lists([[1.0], None, [2.0]]), None, "row 1 has no vector"),
    "a null inside": ("e.parquet", lists([[1.0], [None], [2.0]]), None, "holds a null"),
    "ragged": ("e.parquet", lists([[1.0], [1.0, 2.0], [2.0]]), None, "row 1 has 2 dimensions"),
    "empty lists": ("e.parquet", lists([[], [], []]), None, "vectors have no dimensions"),
    "integer ids": ("e.parquet", table(pid=[1], embedding=[[1.0]]), None, "ids are int64, those"),
    "float ids": ("e.parquet", table(pid=[1.5], embedding=[[1.0]]), None, "id 1.5 at row 0 is"),
    "a null id": ("e.parquet", table(pid=["a", None], embedding=[[1.0]] * 2), None, "is null"),
    "an id twice": ("e.parquet", table(pid=["a", "a"], embedding=[[1.0]] * 2), None, "than once"),
    "an id missing": ("e.parquet", table(pid=["a"], embedding=[[1.0]]), None, "2 of 3 items have"),
    "a folder of both": ("e.d/e.npy", npy(GOOD), None, "embedding.ids_path is null"),
    "empty npy": ("e.npy", b"", TXT, "e.npy: not a readable .npy file"),
    "npy cut": ("e.npy", cut(npy(GOOD), 140), TXT, "not a readable .npy file"),
    "a pickle": ("e.npy", npy(np.array([Trap()], dtype=object), allow_pickle=True), TXT, "e.npy"),
    "several arrays": ("e.npy", lambda path: np.savez(path.open("wb"), a=GOOD), TXT, "(.npz)"),
    "integers": ("e.npy", npy(np.ones((3, 2), int)), TXT, "holds int64 of shape (3, 2), wanted"),
    "one dimension": ("e.npy", npy(np.ones(3)), TXT, "wanted floats (N, D)"),
    "records": ("e.npy", npy(np.zeros(3, "f4,f4")), TXT, "wanted floats (N, D)"),
    "rows for other ids": ("e.npy", npy(np.ones((4, 2))), TXT, "has 4 rows, ", " has 3 ids"),
    "a huge shape": (
        "e.npy",
        header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({HUGE}, 4)}}"),
        TXT,
        "e.npy: not a readable .npy file",
    ),
    "a header that calls": ("e.npy", header("__import__('os').abort()"), TXT, "not a readable"),
    "a deep header": ("e.npy", header("(" * 9000), TXT, "e.npy: not a readable .npy file"),
    "ids in latin-1": ("e.npy", npy(GOOD), ("i.txt", b"a\n\xe9\nc"), "line 2: not UTF-8"),
    "a blank id": ("e.npy", npy(GOOD), ("i.txt", "a\n\nc"), "line 2: blank"),
    "an id of 10 MB": ("e.npy", npy(GOOD), ("i.txt", "x" * TEN_MB), "3 of 3 items have no vector"),
    "ids of floats": ("e.npy", npy(GOOD), ("i.npy", npy(np.ones(3) / 2)), "id 0.5 at row 0 is"),
    "ids pickled": (
        "e.npy",
        npy(GOOD),
        ("i.npy", npy(np.array(["a", Trap()], dtype=object), allow_pickle=True)),
        "i.npy: not a readable",
    ),
    "ids of a kind unknown": ("e.npy", npy(GOOD), ("i.csv", "a"), "must end in .parquet, .npy"),
    "ids beside parquet": ("e.parquet", lists([[1.0]] * 3), TXT, "holds its ids: set null"),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_bad_embeddings(place, name):
    file, content, ids, *words = EMBEDDINGS[name]
    refuses(lambda: vectors(place, file, content, ids), place.out, *words)
    assert not TRAPS


def test_ids_of_other_widths_and_their_bounds(place):
    huge = table(pid=pa.array([2**64 - 1], pa.uint64()), embedding=[[1.0]])
    refuses(lambda: vectors(place, "e.parquet", huge, pids=[1]), place.out, "does not fit in int64")
    for line in ("01", "1.0", "+1", "9" * 30, "x", "9" * 5000):
        ids = ("i.txt", line)
        refuses(
            lambda ids=ids: vectors(place, "e.npy", npy(GOOD[:1]), ids, pids=[1]),
            place.out,
            "i.txt, line 1: ",
            "64-bit integer",
        )
    refuses(lambda: vectors(place, "e.npy", npy(GOOD), TXT, dim=3), place.out, "have 2 dim", "3:")


# --- passages, queries, judgements and training lines


def retrieval(place, kind, file, content, ids=None):
    path = put(place.data / file, content)
    ids_path = put(place.data.parent / ids[0], ids[1]) if ids else None
    out = [str(place.out / name) for name in ("result.parquet", "rejects.parquet")]
    if kind == "corpus":
        settings = Retrieval(corpus=str(path), corpus_ids=ids_path and str(ids_path))
        return retrieval_reader.read_corpus(*out, settings)
    if kind == "queries":
        settings = Retrieval(queries=str(path), query_ids=ids_path and str(ids_path))
        return retrieval_reader.read_queries(*out, settings)
    if kind == "qrels":
        return retrieval_reader.read_qrels(*out, Retrieval(qrels=str(path)))
    return training_data.read_training(*out, None, None, kind, Training(**{kind: str(path)}))


P = '{"_id": "1", "title": "", "text": "red"}\n'
RETRIEVAL = {
    "an empty corpus": ("corpus", "c.jsonl", b"", None, "c.jsonl: the file is empty"),
    "empty columns": ("corpus", "c.tsv", b"", None, "c.tsv: no line of it gives a text"),
    "corpus in latin-1": ("corpus", "c.jsonl", P.encode() + b"\xe9", None, "line 2: not UTF-8"),
    "columns in latin-1": ("corpus", "c.tsv", b"-\tred\n-\t\xe9", None, "line 2: not UTF-8"),
    "a corpus without ids": ("corpus", "c.jsonl", '{"text": "red"}', None, "no id in field '_id'"),
    "a title that is a list": ("corpus", "c.jsonl", P.replace('""', "[1]"), None, "is not a str"),
    "a passage twice": ("corpus", "c.jsonl", P * 2, None, "id '1' belongs to two texts"),
    "ids of two kinds": ("corpus", "c.jsonl", P + P.replace('"1"', "1"), None, "write all ids"),
    "a huge id": ("corpus", "c.jsonl", P.replace('"1"', str(HUGE)), None, "line 1: ", "64 bits"),
    "half a character": ("corpus", "c.jsonl", P.replace("red", "\\ud800x"), None, "line 1: "),
    "half an id": ("corpus", "c.jsonl", P.replace('"1"', '"\\ud800"'), None, "line 1: "),
    "deep JSON": ("corpus", "c.jsonl", P + DEEP, None, "line 2: JSON nested too"),
    "gzip cut": ("corpus", "c.jsonl.gz", gzip.compress(P.encode() * 99)[:-9], None, "to its end"),
    "one column": ("corpus", "c.tsv", "red\n", None, "1 column, wanted at least 2"),
    "a map of few lines": ("corpus", "c.tsv", "-\tred\n" * 2, ("m.json", '{"0": "x"}'), "ends"),
    "a map that is a list": ("corpus", "c.tsv", "-\tred\n", ("m.json", "[1]"), "m.json"),
    "a map that is no JSON": ("corpus", "c.tsv", "-\tred\n", ("m.json", "{oops"), "m.json"),
    "a map of lists": ("corpus", "c.tsv", "-\tred\n", ("m.json", '{"0": [1]}'), "line 1: "),
    "a map beside BEIR": ("corpus", "c.jsonl", P, ("m.json", "{}"), "holds its own ids"),
    "a query without a word": ("queries", "q.tsv", "?\n", None, "no letter or digit in it"),
    "a query that the map lacks": ("queries", "q.tsv", "red", ("m.json", "{}"), "has no id for it"),
    "a map of queries, a list": ("queries", "q.tsv", "red", ("m.json", "[]"), "wanted an object"),
    "a deep map": ("queries", "q.tsv", "red", ("m.json", DEEP), "cannot be read as JSON"),
    "no judgement": ("qrels", "q.tsv", "", None, "no judgement in it"),
    "a header alone": ("qrels", "q.tsv", "query-id\tcorpus-id\tscore\n", None, "no judgement"),
    "two columns": ("qrels", "q.tsv", "1\t2\n", None, "2 columns, wanted 3 (BEIR) or 4"),
    "a label of text": ("qrels", "q.tsv", "1\t2\t1\n1\t3\tyes\n", None, "line 2: the label"),
    "a huge label": ("qrels", "q.tsv", f"1\t2\t{HUGE}\n", None, "line 1: the label"),
    "5,000 digits": ("qrels", "q.tsv", "1\t2\t" + "9" * 5000, None, "line 1: the label"),
    "judged twice": ("qrels", "q.tsv", "1\t2\t1\n1\t2\t0\n", None, "judged 0 here and 1 in"),
    "JSON of another form": ("qrels", "q.json", '{"question_id": 1}', None, "answer_paragraphs"),
    "a list of JSON": ("qrels", "q.json", "[1]", None, "line 1: no question_id"),
    "deep judgements": ("qrels", "q.json", DEEP, None, "line 1: no question_id"),
    "qrels in latin-1": ("qrels", "q.tsv", b"\xe9\t2\t1", None, "line 1: not UTF-8"),
    "no training line": ("dual", "d.tsv", "", None, "no line can be trained on"),
    "dual of 2 columns": ("dual", "d.tsv", "a\tb\n", None, "2 columns, wanted 6"),
    "dual without positive": ("dual", "d.tsv", "a\t\t\t\tn\t0", None, "no query, or no pos"),
    "dual in latin-1": ("dual", "d.tsv", b"\xe9", None, "line 1: not UTF-8"),
    "a 10 MB line": ("dual", "d.tsv", b"x" * TEN_MB, None, "line 1: 1 columns, wanted 6"),
    "cross of label 2": ("cross", "c.tsv", "q\t-\tp\t2\n", None, "the label is '2', wanted 0"),
    "cross with a header": ("cross", "c.tsv", "query\ttitle\tpara\tlabel\n", None, "line 1: the"),
    "cross without a passage": ("cross", "c.tsv", "q\t-\t\t1\n", None, "no query, or no passage"),
}


@pytest.mark.parametrize("name", RETRIEVAL)
def test_bad_files_of_retrieval(place, name):
    kind, file, content, ids, *words = RETRIEVAL[name]
    refuses(lambda: retrieval(place, kind, file, content, ids), place.out, *words)


# --- files of other runs: SIDs, quantizers, memory maps, HDF5, histories


def sids(values, kind=None, pids=IDS, **metadata):
    found = pa.table([pids, pa.array(values, kind or pa.list_(pa.int32()))], names=["pid", "sid"])
    return found.replace_schema_metadata({f"sidmill.{k}": v for k, v in metadata.items()})


SIDS = {
    "empty": (b"", "p.parquet: not a readable parquet file"),
    "no sid": (table(pid=IDS), "0 columns named 'sid', wanted one"),
    "two columns": (twins("sid", [[1]]), "columns named 'pid'"),
    "text": (sids(IDS, pa.string()), "column 'sid' has type string, wanted list<"),
    "floats": (sids([[1.5]] * 3, pa.list_(pa.float64())), "wanted list<"),
    "ragged": (sids([[1], [1, 2], [3]]), "rows of 'sid' differ in length"),
    "null": (sids([[1], None, [3]]), "1 rows without 'sid', first row 1"),
    "negative": (sids([[1], [-1], [3]]), "code -1 of row 1, level 0, is outside"),
    "out of range": (sids([[1], [2], [9]], codebook_sizes="[4]"), "code 9 of row 2, level 0"),
    "a pid twice": (sids([[1], [2], [3]], pids=["a", "a", "b"]), "is listed twice"),
    "a null pid": (sids([[1], [2], [3]], pids=["a", None, "b"]), "1 rows without a pid"),
    "sizes of no JSON": (sids([[1]] * 3, codebook_sizes="[4"), "p.parquet: its metadata"),
    "sizes of text": (sids([[1]] * 3, codebook_sizes='["x"]'), "for 1 levels"),
    "sizes too few": (sids([[1, 2]] * 3, codebook_sizes="[4]"), "sizes [4] for 2 levels"),
    "sizes of a mapping": (sids([[1]] * 3, codebook_sizes='{"a": 1}'), "for 1 levels"),
    "a damaged page": (flipped(sids([[1], [2], [3]]), 4, 60), "p.parquet: not a readable"),
}


@pytest.mark.parametrize("name", SIDS)
def test_bad_sids(place, name):
    content, *words = SIDS[name]
    path = put(place.data / "p.parquet", content)
    refuses(lambda: item_lookup.load(path), place.out, "p.parquet", *words)


def quantizer_file(facts=None, **tensors):
    usual = {"kind": "rqkmeans", "settings": {}, "fingerprint": {}}
    usual = facts if isinstance(facts, list) else usual | (facts or {})
    return save(tensors, {"sidmill": json.dumps(usual)})


BOOK = np.ones((4, 2), dtype=np.float32)
QUANTIZERS = {
    "empty": ("q.safetensors", b"", "q.safetensors: not a readable"),
    "text": ("q.safetensors", b"hello, world, this is no tensor", "not a readable"),
    "a huge header": ("q.safetensors", b"\xff" * 8 + b"{}", "not a readable"),
    "cut": ("q.safetensors", cut(quantizer_file(**{"codebook.0": BOOK}), 150), "not a readable"),
    "no codebook": ("q.safetensors", quantizer_file(x=BOOK), "wanted codebook.0"),
    "a level left out": ("q.safetensors", quantizer_file(**{"codebook.1": BOOK}), "codebook.1:"),
    "a level of text": ("q.safetensors", quantizer_file(**{"codebook.x": BOOK}), "codebook.x:"),
    "a scalar": (
        "q.safetensors",
        quantizer_file(**{"codebook.0": np.array(1, np.float32)}),
        "wanted (K, d)",
    ),
    "float64": ("q.safetensors", quantizer_file(**{"codebook.0": BOOK.astype(float)}), "float32"),
    "NaN": ("q.safetensors", quantizer_file(**{"codebook.0": BOOK * np.nan}), "holds a NaN"),
    "two widths": (
        "q.safetensors",
        quantizer_file(**{"codebook.0": BOOK, "codebook.1": BOOK[:, :1]}),
        "codebook.1 is float32 (4, 1), wanted",
    ),
    "other prices": (
        "q.safetensors",
        quantizer_file(**{"codebook.0": BOOK, "price.0": BOOK[0]}),
        "prices [(2,)] for codebooks",
    ),
    "facts that are a list": ("q.safetensors", quantizer_file([1], x=BOOK), "holds no quantizer"),
    "a fact of another kind": (
        "q.safetensors",
        quantizer_file({"settings": 3}, **{"codebook.0": BOOK}),
        "its fact settings is 3, wanted a dict",
    ),
    "an unknown fact": (
        "q.safetensors",
        quantizer_file({"extra": 3}, **{"codebook.0": BOOK}),
        "holds unknown facts (extra)",
    ),
    "other dimensions": ("q.safetensors", quantizer_file(**{"codebook.0": BOOK}), "2 dimensions"),
    "a .pt that is text": ("m.pt", b"hello", "m.pt: "),
    "an empty .pt": ("m.pt", b"", "m.pt: not a readable checkpoint"),
    "a pickle": ("m.pt", lambda path: torch.save({"x": Trap()}, path), "holds pickled Python obj"),
    "a .pt cut": (
        "m.pt",
        cut(lambda path: torch.save({"centroids.0": torch.ones(4, 2)}, path), 300),
        "m.pt: not a readable checkpoint",
    ),
    "a .pt of a list": ("m.pt", lambda path: torch.save([1], path), "wanted a state dict"),
    "a .pt of a vector": (
        "m.pt",
        lambda path: torch.save({"centroids.0": torch.ones(4)}, path),
        "m.pt",
    ),
}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_bad_quantizers(place, name):
    file, content, *words = QUANTIZERS[name]
    path = put(place.data / file, content)
    refuses(
        lambda: pretrained.load(Pretrained(path=str(path)), dim=3, fingerprint={}),
        place.out,
        file,
        *words,
    )
    assert not TRAPS


MAPS = {
    "no JSON": ("oops", "m.json: not JSON"),
    "a byte order mark": ("\ufeff{}", "m.json: not JSON"),
    "latin-1": (b'{"\xe9": 1}', "m.json: not JSON"),
    "deep JSON": (DEEP, "m.json: not JSON"),
    "a list": ("[1]", "m.json: a JSON list, wanted an object"),
    "nothing": ("{}", "m.json: lacks mmap_idx_path"),
    "a number for a path": ({"mmap_idx_path": 3}, "mmap_idx_path is 3, wanted a path"),
    "no such map": ({"mmap_emb_path": "none"}, "none: no such file"),
    "text for a shape": ({"mmap_emb_shape": "4x2"}, "wanted (N, D) of whole numbers"),
    "a negative shape": ({"mmap_emb_shape": [-4, 2]}, "wanted (N, D) of whole numbers"),
    "a bool in a shape": ({"mmap_emb_shape": [True, 2]}, "wanted (N, D) of whole numbers"),
    "a huge shape": ({"mmap_emb_shape": [2**62, 4]}, "bytes, but float32"),
    "another shape": ({"mmap_emb_shape": [5, 2]}, "32 bytes, but float32"),
    "a null shape": ({"mmap_idx_shape": None}, "wanted (M,) of whole numbers"),
    "a row that is not there": ({"mmap_idx_path": "high"}, "item id 2 has row 9"),
    "item 0": ({"mmap_idx_path": "zero"}, "item id 0 is padding and wants row 0"),
    "row 0": ({"mmap_emb_path": "full"}, "row 0 is padding and wants zeros"),
}


@pytest.mark.parametrize("name", MAPS)
def test_bad_memory_maps(place, name):
    content, *words = MAPS[name]
    for file, values in {"idx": [0, 1, 2, 3], "high": [0, 1, 9, 3], "zero": [1, 1, 2, 3]}.items():
        put(place.data / file, np.array(values, "<i4").tobytes())
    put(place.data / "emb", np.eye(4, 2, k=-1, dtype="<f4").tobytes())
    put(place.data / "full", np.ones((4, 2), "<f4").tobytes())
    usual = {"mmap_idx_path": "idx", "mmap_idx_shape": [4],
             "mmap_emb_path": "emb", "mmap_emb_shape": [4, 2]}  # fmt: skip
    content = json.dumps(usual | content) if isinstance(content, dict) else content
    path = put(place.data / "m.json", content)
    refuses(lambda: memory_maps.open_maps(path), place.out, *words)


def item_file(**changes):
    """An item_data.h5 with some datasets and attributes (a_...) changed; None takes one away."""
    usual = {
        "item_ids": np.arange(1, 4),
        "embeddings": np.ones((3, 2), np.float32),
        "features": np.ones((3, 5), np.int32),
        "feature_lengths": np.ones(3, np.int32),
        "a_n_items": 3,
        "a_embedding_dim": 2,
        "a_max_feature_len": 5,
        "a_original_order_preserved": True,
    }

    def write(path):
        with h5py.File(path, "w") as file:
            for name, value in (usual | changes).items():
                if value is not None and name.startswith("a_"):
                    file.attrs[name[2:]] = value
                elif isinstance(value, str):
                    file[name] = h5py.ExternalLink(value, "/x")
                elif value is not None:
                    file[name] = value

    return write


H5 = {
    "empty": (b"", "i.h5: not a whole HDF5 file"),
    "text": (b"hello", "i.h5: not a whole HDF5 file"),
    "cut": (cut(item_file(), 3000), "i.h5: not a whole HDF5 file"),
    "no dataset": (item_file(features=None), "no dataset 'features', wanted int32 (n, F)"),
    "a link elsewhere": (item_file(features="/etc/passwd"), "no dataset 'features'"),
    "float64": (item_file(embeddings=np.ones((3, 2))), "is float64 (3, 2), wanted float32"),
    "pickled bytes": (item_file(features=np.void(b"cposix")), "i.h5: dataset 'features' is"),
    "texts for ids": (item_file(item_ids=["a", "b", "c"]), "'item_ids' is vlen str"),
    "other rows": (item_file(embeddings=np.ones((4, 2), np.float32)), "do not belong together"),
    "an id twice": (item_file(item_ids=np.array([1, 1, 2])), "ids repeat"),
    "id 0": (item_file(item_ids=np.arange(3)), "ids repeat, or one is below 1"),
    "no attribute": (item_file(a_n_items=None), "lacks the attribute n_items"),
    "another count": (item_file(a_n_items=4), "attribute n_items says 4, the datasets 3"),
    "text for a count": (item_file(a_n_items="x"), "attribute n_items says x, the datasets 3"),
    "a list for a count": (item_file(a_embedding_dim=[2, 2]), "embedding_dim says [2 2]"),
    "no value": (item_file(a_n_items=h5py.Empty("f")), "attribute n_items says"),
}  # fmt: skip


@pytest.mark.parametrize("name", H5)
def test_bad_hdf5(place, name):
    content, *words = H5[name]
    path = put(place.data / "i.h5", content)
    refuses(lambda: item_data.open_item_data(path), place.out, *words)
    if isinstance(content, bytes):
        refuses(lambda: sequence_data.open_sequence_data(path), place.out, *words)


def told(items, splits=None, times=None, pid=None):
    columns = [pa.array(["u"]), pa.array([items], pa.list_(pid or pa.int64()))]
    columns += [pa.array([splits or [0] * len(items)], pa.list_(pa.int8()))]
    columns += [pa.array([times], pa.list_(pa.int64()))]
    return pa.table(columns, names=["user_id", "item_ids", "splits", "timestamps"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "s.parquet: not a readable parquet file"),
        (told([1]).drop(["splits"]), "0 columns named 'splits'"),
        (told([1.5], pid=pa.float64()), "'item_ids' has type list<"),
        (told([]), "user 'u' has 0 items"),
        (told([1, 2], splits=[0]), "user 'u' has 2 items, 1 splits"),
        (told([1, 2], times=[0]), "and 1 timestamps"),
        (flipped(told([1, 2]), 4, 60), "s.parquet: not a readable parquet file"),
    ],
)
def test_bad_histories(place, content, words):
    path = put(place.data / "s.parquet", content)
    refuses(lambda: list(sequence_table.read(path)), place.out, words)


def test_a_file_that_cannot_be_written_leaves_the_old_one(place):
    write_text(place.out / "x", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(place.out / "x", "\ud800")
    assert [path.read_text() for path in place.out.iterdir()] == ["old"]
