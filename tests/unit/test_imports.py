"""Published data sets: every row is counted, ids and texts and times are those of the files."""

import copy
import json
import random
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT
from hypothesis import given
from hypothesis import settings as fewer
from hypothesis import strategies as st
from published_files import COLLECTIONS, SETS, json_lines, write
from snakemake.utils import update_config

from sidmill.commands.import_data import import_data
from sidmill.core import provenance
from sidmill.core.errors import SidmillError
from sidmill.embed.backends import precomputed
from sidmill.formats import passages, qrels
from sidmill.imports import collection, dataset, log
from sidmill.interactions.read import read
from sidmill.items.render import render
from sidmill.settings import base
from sidmill.settings.check import check
from sidmill.settings.embedding import Embedding
from sidmill.settings.imported import Imported
from sidmill.settings.interactions import Interactions
from sidmill.settings.items import Items
from sidmill.settings.registry import SOURCES

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
LENIENT = Imported(max_reject_share=1.0)


def imported(tmp_path, name, settings=LENIENT):
    """Import what a function of published_files writes."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    expected = SETS[name](source)
    report = dataset.run(name.partition(" ")[0], str(source), out, settings)
    return expected, report, out


def log_of(out):
    rows = pq.read_table(out / "interactions.parquet").to_pylist()
    return {row["user_id"]: row for row in rows}


@pytest.mark.parametrize("name", SETS)
def test_a_published_form_is_read_as_it_is(tmp_path, name):
    expected, _, out = imported(tmp_path, name)
    items = pq.read_table(out / "items.parquet").to_pylist()
    assert [row["item_id"] for row in items] == list(expected.items)
    for row in items:
        texts = [value for key, value in row.items() if key != "item_id"]
        assert expected.items[row["item_id"]] in texts

    log = log_of(out)
    assert {user: row["item_ids"] for user, row in log.items()} == expected.histories
    assert {user: row["timestamps"] for user, row in log.items()} == expected.times
    splits = {user: row["splits"] for user, row in log.items()} if expected.splits else None
    assert splits == expected.splits
    assert ("splits" in pq.read_schema(out / "interactions.parquet").names) == bool(expected.splits)


@pytest.mark.parametrize("name", SETS)
def test_every_row_is_counted_once(tmp_path, name):
    expected, report, out = imported(tmp_path, name)
    items, log = report["items"], report["interactions"]
    assert (items["rejected"], log["read"], log["rejected"]) == (
        expected.item_rejects, expected.read, expected.rejected,
    )  # fmt: skip
    left_out = {reason: n for reason, n in log["left_out"].items() if n}
    assert left_out == (expected.left_out or {})
    written = sum(map(len, expected.histories.values()))
    assert log["written"] == written == log["read"] - log["rejected"] - sum(left_out.values())

    # The same from the files.
    rejects = pq.read_table(out / "rejects.parquet").to_pylist()
    assert sum(row["interactions"] for row in rejects) == expected.rejected
    assert sum(row["interactions"] == 0 for row in rejects) == expected.item_rejects
    assert all(row["reason"] and row["row"] > 0 for row in rejects)
    assert json.loads((out / "import.json").read_text())["interactions"] == log
    users, n_items = (
        len(expected.histories),
        len({i for h in expected.histories.values() for i in h}),
    )
    assert (report["log"]["users"], report["log"]["items"]) == (users, n_items)
    assert report["log"]["density"] == pytest.approx(written / (users * n_items))


@pytest.mark.parametrize("name", SETS)
def test_the_overlay_is_a_configuration_and_the_files_are_what_it_reads(tmp_path, name):
    expected, _, out = imported(tmp_path, name)
    overlay = yaml.safe_load((out / "overlay.yaml").read_text(encoding="utf-8"))
    config = copy.deepcopy(CONFIG)
    update_config(config, overlay)
    check(config)

    # Nothing is rejected when the two stages read it, and nothing is lost.
    text, sequences = str(tmp_path / "text.parquet"), str(tmp_path / "sequences.parquet")
    counts = render(text, str(tmp_path / "r.parquet"), base.read(Items, config["items"]))
    assert counts == (len(expected.items), len(expected.items), 0)
    settings = base.read(Interactions, config["interactions"])
    figures = read(text, sequences, str(tmp_path / "s.parquet"), settings)
    assert figures["rows"]["rejected"] == 0
    assert figures["interactions"] == sum(map(len, expected.histories.values()))
    rows = {row["user_id"]: row["item_ids"] for row in pq.read_table(sequences).to_pylist()}
    assert rows == expected.histories


def events(draw_rows, folder, order):
    """MovieLens files with these interactions, in this order."""
    movies = "movieId,title,genres\n" + "".join(f"{n},Film {n},Drama\n" for n in range(12))
    write(folder / "movies.csv", movies)
    lines = [f"{u},{i},{r},{t}\n" for u, i, r, t in (draw_rows[n] for n in order)]
    write(folder / "ratings.csv", "userId,movieId,rating,timestamp\n" + "".join(lines))


ROWS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 13), st.integers(1, 5)), min_size=1, max_size=80
)


@fewer(max_examples=25, deadline=None)
@given(ROWS, st.integers(0, 4), st.integers(0, 4), st.booleans(), st.randoms())
def test_core_filter_and_repeats_are_those_of_a_plain_program(
    tmp_path_factory, drawn, min_user, min_item, first, shuffle
):
    folder = tmp_path_factory.mktemp("set")
    rows = [(*row, 1_000_000 + n) for n, row in enumerate(drawn)]  # no two times are equal
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    events(rows, folder / "in", order)
    settings = Imported(
        min_user=min_user, min_item=min_item, min_value=2,
        repeats="first" if first else "keep", max_reject_share=1.0,
    )  # fmt: skip

    # The same, without blocks and arrays.
    kept = [row for row in rows if row[1] < 12 and row[2] >= 2]
    if first:
        kept = list(
            {(user, item): row for row in reversed(kept) for user, item in [row[:2]]}.values()
        )
    before = len(kept)
    while True:
        users, items = (Counter(row[n] for row in kept) for n in (0, 1))
        fewer_rows = [r for r in kept if users[r[0]] >= min_user and items[r[1]] >= min_item]
        if len(fewer_rows) == len(kept):
            break
        kept = fewer_rows
    if not kept:
        with pytest.raises(SidmillError, match="no interaction"):
            dataset.run("movielens", str(folder / "in"), folder / "out", settings)
        assert not (folder / "out/interactions.parquet").exists()
        return

    report = dataset.run("movielens", str(folder / "in"), folder / "out", settings)
    wanted = {
        str(user): [str(row[1]) for row in sorted(kept, key=lambda row: row[3]) if row[0] == user]
        for user in {row[0] for row in kept}
    }
    assert {user: row["item_ids"] for user, row in log_of(folder / "out").items()} == wanted
    assert report["interactions"]["left_out"]["k_core"] == before - len(kept)
    assert report["before_k_core"]["interactions"] == before


def test_the_order_of_rows_and_memory_change_no_byte(tmp_path):
    source = random.Random(1)
    rows = [
        (source.randint(1, 300), source.randint(0, 11), 5, time)
        for time in source.sample(range(10**6), 3000)
    ]
    made = set()
    for number, memory in enumerate((64, 64, 1024)):
        order = list(range(len(rows)))
        random.Random(number).shuffle(order)
        events(rows, tmp_path / str(number), order)
        out = tmp_path / f"out{number}"
        dataset.run(
            "movielens", str(tmp_path / str(number)), out, Imported(min_item=2, memory_mb=memory)
        )
        made.add((out / "interactions.parquet").read_bytes())
        assert not (out / ".import").exists()
    assert len(made) == 1


def test_interacted_items_alone(tmp_path):
    settings = Imported(catalogue="interacted", min_user=2, max_reject_share=1.0)
    _, report, out = imported(tmp_path, "movielens", settings)
    assert pq.read_table(out / "items.parquet")["item_id"].to_pylist() == ["1", "2"]
    assert report["items"]["left_out"] == 1
    assert report["interactions"]["left_out"] == {"k_core": 1}


def test_embeddings_of_lc_rec_are_named_only_if_their_rows_are_those_of_the_catalogue(tmp_path):
    _, _, out = imported(tmp_path, "lc-rec")
    overlay = yaml.safe_load((out / "overlay.yaml").read_text())
    assert overlay["embedding"]["path"].endswith("Arts.emb-llama-td.npy")
    assert overlay["embedding"]["rows"] == "catalogue"
    assert "given: {path: " in (out / "overlay.yaml").read_text()

    # They are found for the items as the overlay says, row i for item i.
    config = copy.deepcopy(CONFIG)
    update_config(config, overlay)
    text = str(tmp_path / "text.parquet")
    render(text, str(tmp_path / "r.parquet"), base.read(Items, config["items"]))
    vectors = precomputed.gather(
        pa.array(["2", "0"]), base.read(Embedding, config["embedding"]), text
    )
    np.testing.assert_array_equal(vectors, np.load(overlay["embedding"]["path"])[[2, 0]])

    # Ids in another order, and items that are left out.
    item = tmp_path / "in/Arts.item.json"
    known = json.loads(item.read_text())
    for items, settings in (
        ({key: known[key] for key in "1023"}, LENIENT),
        (known | {"3": {}}, LENIENT),
        (known, Imported(catalogue="interacted", min_item=2, max_reject_share=1.0)),
    ):
        write(item, json.dumps(items))
        dataset.run("lc-rec", str(tmp_path / "in"), out, settings)
        overlay = yaml.safe_load((out / "overlay.yaml").read_text())
        assert "path" not in overlay.get("embedding", {})


def test_an_archive_is_read_in_place_whatever_its_names(tmp_path):
    archive = tmp_path / "ml.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("../../movies.csv", "movieId,title,genres\n1,One,Drama\n")
        out.writestr("/ratings.csv", "userId,movieId,rating,timestamp\n1,1,5,9\n")
    before = set(tmp_path.parent.rglob("*"))
    report = dataset.run("movielens", str(archive), tmp_path / "out", Imported())
    assert report["log"]["interactions"] == 1
    new = set(tmp_path.parent.rglob("*")) - before
    assert all((tmp_path / "out") in (path, *path.parents) for path in new)


MISSING = [
    ("movielens", {"ratings.csv": "x\n"}, "no movies.dat, movies.csv or u.item in it"),
    ("mind", {"news.tsv": "x\n"}, "behaviors.tsv"),
    (
        "goodreads",
        {"goodreads_books.json": "{}\n", "goodreads_interactions.csv": "a\n"},
        "no times",
    ),
    ("recbole", {"a.item": "item_id\tx\n", "a.inter": "u\n"}, "names with types"),
    (
        "recbole",
        {
            "a.item": "item_id:token\tname:token\n1\tx\n",
            "a.inter": "user_id:token\titem_id_list:token_seq\titem_id:token\n",
        },
        "set interactions.path",
    ),
    ("movielens", {"movies.csv": "id,name\n", "ratings.csv": "x\n"}, "no column movieId"),
    ("movielens", {"movies.dat": "1::A::B\n", "ratings.dat": "1::2::3::4\n"}, "no interaction"),
]


@pytest.mark.parametrize(("name", "texts", "words"), MISSING)
def test_a_message_says_what_is_missing(tmp_path, name, texts, words):
    for file, text in texts.items():
        write(tmp_path / "in" / file, text)
    with pytest.raises(SidmillError, match=words):
        dataset.run(name, str(tmp_path / "in"), tmp_path / "out", LENIENT)
    assert not (tmp_path / "out/overlay.yaml").exists()


def test_a_missing_file_says_where_to_fetch_it(tmp_path):
    with pytest.raises(SidmillError, match=r"no such file or folder: fetch .* from https://msnews"):
        dataset.run("mind", str(tmp_path / "none"), tmp_path / "out", Imported())
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        SidmillError, match=r"no news\.tsv in it \(it has no file\): fetch MINDsmall"
    ):
        dataset.run("mind", str(tmp_path / "empty"), tmp_path / "out", Imported())


def test_a_damaged_file_stops_and_a_common_fault_too(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    SETS["amazon-2023"](source)
    whole = (source / "All_Beauty.jsonl.gz").read_bytes()
    (source / "All_Beauty.jsonl.gz").write_bytes(whole[:-9])
    with pytest.raises(SidmillError, match="cannot be read to its end"):
        dataset.run("amazon-2023", str(source), tmp_path / "out", LENIENT)
    write(source / "All_Beauty.jsonl.gz", json_lines(*(["no json\n"] * 9), {"user_id": "a"}))
    with pytest.raises(SidmillError, match=r"raise imported\.max_reject_share"):
        dataset.run("amazon-2023", str(source), tmp_path / "out", Imported())


@pytest.mark.parametrize("end", [".tar.xz", ".tar.gz", ".tar.bz2"])
def test_a_damaged_archive_is_named(tmp_path, end):
    """Each compression has an error of its own."""
    (tmp_path / "in").mkdir()
    SETS["movielens"](tmp_path / "in")
    path = tmp_path / f"ml{end}"
    with tarfile.open(path, f"w:{end[5:]}") as archive:
        archive.add(tmp_path / "in", "ml")
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:40] + b"\xff" * 40 + whole[80:]):
        path.write_bytes(data)
        with pytest.raises(SidmillError, match=r"ml\.tar.*fetch it again"):
            dataset.run("movielens", str(path), tmp_path / "out", LENIENT)


def test_an_archive_with_a_password_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    SETS["movielens"](tmp_path / "in")
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for one in sorted((tmp_path / "in").rglob("*")):
            archive.write(one, one.name)
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # bit 0: encrypted
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(SidmillError, match=r"ml\.zip: .* cannot be opened .*: unpack it"):
        dataset.run("movielens", str(path), tmp_path / "out", LENIENT)


def test_the_first_time_may_be_zero(tmp_path, monkeypatch):
    """Times that count from the beginning of a log, over several blocks of users."""
    source = tmp_path / "in"
    source.mkdir()
    rows = [(user, item, 5, 100 * user) for user in range(40) for item in (1, 2)]
    lines = [",".join(map(str, row)) for row in rows]
    header = "userId,movieId,rating,timestamp"
    write(source / "ratings.csv", "\n".join([header, *lines]) + "\n")
    write(source / "movies.csv", "movieId,title,genres\n1,One,Drama\n2,Two,Drama\n")
    monkeypatch.setattr(log.partition_by_user, "read", in_parts(log.partition_by_user.read))
    report = dataset.run("movielens", str(source), tmp_path / "out", LENIENT)
    assert (report["first_time"], report["last_time"]) == (0, 3900)


def in_parts(read):
    """The same users in blocks of one, the earliest first."""

    def cut(*arguments):
        table = pa.concat_tables(read(*arguments))
        for user in sorted(set(table["user"].to_pylist()), key=int):
            yield table.filter(pc.equal(table["user"], user))

    return cut


def test_the_output_is_no_input(tmp_path):
    imported(tmp_path, "movielens")
    with pytest.raises(SidmillError, match="OUT"):
        dataset.run("movielens", str(tmp_path / "in"), tmp_path / "in", LENIENT)


def test_the_command_imports_and_lists(tmp_path):
    run = [sys.executable, "-m", "sidmill", "import"]
    listed = subprocess.run([*run, "--list"], capture_output=True, text=True, check=True).stdout
    for name, source in SOURCES.items():
        assert f"{name}\n  reads    {source.reads}\n" in listed
        assert source.licence in listed
    SETS["movielens csv"](tmp_path / "in")
    words = [*run, "movielens", str(tmp_path / "in"), str(tmp_path / "out"), "--min-value", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "1 users, 1 items, 1 interactions" in done.stdout
    assert subprocess.run([*run, "nothing", "a", "b"], capture_output=True).returncode == 2


def test_a_source_is_in_the_table_and_in_what_names_its_code():
    modules = {name: (entry.module,) for name, entry in SOURCES.items()}
    assert provenance.CHOICES["source"].modules == modules
    files = (ROOT / "src/sidmill/imports/sources").glob("[a-z]*.py")
    assert {name for (name,) in modules.values()} == {
        f"sidmill.imports.sources.{file.stem}" for file in files
    }
    assert {name.partition(" ")[0] for name in SETS} | {*COLLECTIONS} == set(SOURCES)
    assert {name for name, entry in SOURCES.items() if entry.is_collection} == {*COLLECTIONS}


def commands_on(page):
    """Words of the commands ``sidmill import`` that a page shows, but for ``--list``."""
    lines = re.findall(r"^    (sidmill import .+)$", (ROOT / page).read_text(), re.M)
    return [words for line in lines if "--list" not in (words := shlex.split(line)[2:])]


@pytest.mark.parametrize("page", ["docs/importing.md", "README.md"])
def test_the_commands_of_the_pages_run_as_they_are(tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    shown = commands_on(page)
    assert page == "README.md" or {words[0] for words in shown} == set(SOURCES)
    for words in shown:
        name, source, out = words[:3]
        folder = tmp_path / source
        folder.mkdir(parents=True)
        (SETS | COLLECTIONS)[name](folder)
        if source.endswith(".zip"):  # the folder as the archive that the page names
            made = shutil.make_archive(str(tmp_path / "made"), "zip", folder)
            shutil.rmtree(folder)
            shutil.move(made, folder)

        # The tiny files have few rows, some of them with a fault.
        limits = ("--min-user", "--min-item", "--max-reject-share")
        limits = limits[2 * SOURCES[name].is_collection :]
        options = [*words[3:], *(word for limit in limits for word in (limit, "1"))]
        done = CliRunner().invoke(import_data, [name, source, out, *options])
        assert done.exit_code == 0, (words, done.output, done.exception)
        assert (tmp_path / out / "overlay.yaml").is_file()


@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_collection_is_read_as_it_is_and_counted(tmp_path, name):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    expected = COLLECTIONS[name](source)
    report = collection.run(name, str(source), out, LENIENT)
    assert {key: report[key] for key in expected} == expected
    rejects = pq.read_table(out / "rejects.parquet").to_pylist()
    assert len(rejects) == sum(counts["rejected"] for counts in expected.values())

    # The files are what the retrieval stage reads, without a rejected line.
    overlay = yaml.safe_load((out / "overlay.yaml").read_text(encoding="utf-8"))
    config = copy.deepcopy(CONFIG)
    update_config(config, overlay)
    check(config)
    corpus, queries, judged = (overlay["retrieval"][key] for key in ("corpus", "queries", "qrels"))
    read = list(passages.read_passages([corpus], None, "auto"))
    asked = list(passages.read_queries([queries], None, "auto"))
    labels = list(qrels.read_foreign(judged))
    assert not any(one.problem for one in [*read, *asked])
    assert [len(read), len(asked), len(labels)] == [
        expected[key]["written"] for key in ("passages", "queries", "judgements")
    ]
    assert {label.pid for label in labels} <= {one.id for one in read}
    if name == "beir":
        assert read[0].text == "Microstructural — growth\nAlterations"
        assert asked[0].text == "0-dimensional\tbiomaterials"
    else:
        assert read[0].text == 'The presence of "communication'


def test_options_of_interactions_do_not_apply_to_a_collection(tmp_path):
    (tmp_path / "in").mkdir()
    COLLECTIONS["beir"](tmp_path / "in")
    settings = Imported(min_user=5, split="time")
    with pytest.raises(SidmillError, match="min_user, split: beir has passages"):
        collection.run("beir", str(tmp_path / "in"), tmp_path / "out", settings)
    with pytest.raises(SidmillError, match="no such source of interactions: take one of movielens"):
        dataset.run("beir", str(tmp_path / "in"), tmp_path / "out", Imported())


@pytest.mark.parametrize("name", [*SETS, *COLLECTIONS])
def test_files_that_are_there_twice_are_not_counted_twice(tmp_path, name):
    """An archive beside its folder, a second size of a data set, a 5-core beside all reviews."""
    source, plain = tmp_path / "in", name.partition(" ")[0]
    for copy_of in ("one", "two"):
        (source / copy_of).mkdir(parents=True)
        (SETS | COLLECTIONS)[name](source / copy_of)
    run = collection.run if name in COLLECTIONS else dataset.run
    with pytest.raises(SidmillError, match=r"two data sets|data sets: name"):
        run(plain, str(source), tmp_path / "out", LENIENT)


def test_all_reviews_and_their_5_core_are_not_added_up(tmp_path):
    SETS["amazon-2018 of 2014"](tmp_path / "in")
    data = (tmp_path / "in/reviews_Home_5.json.gz").read_bytes()
    (tmp_path / "in/reviews_Home.json.gz").write_bytes(data)
    with pytest.raises(SidmillError, match=r"reviews_Home.* and .*reviews_Home.*: two data sets"):
        dataset.run("amazon-2018", str(tmp_path / "in"), tmp_path / "out", LENIENT)


def test_rows_behind_an_unclosed_quote_are_counted(tmp_path):
    write(tmp_path / "in/movies.csv", "movieId,title,genres\n1,One,Drama\n2,Two,Drama\n")
    ratings = 'userId,movieId,rating,timestamp\n1,1,5,9\n1,"2,5,10\n1,2,5,11\n1,1,5,12\n'
    write(tmp_path / "in/ratings.csv", ratings)
    report = dataset.run("movielens", str(tmp_path / "in"), tmp_path / "out", LENIENT)
    assert report["interactions"]["read"] == 4
    assert report["interactions"]["rejected"] == 3


def test_the_test_set_of_mind_is_not_read_and_a_folder_above_says_nothing(tmp_path):
    folder = tmp_path / "test-dev/MINDlarge"
    news = "N1\ta\tb\tTitle\t\thttps://x\t[]\t[]\n"
    for name, shown in (("train", "N1-1"), ("test", "N1 N1")):
        write(folder / f"MINDlarge_{name}/news.tsv", news)
        line = f"1\tU_{name}\t11/11/2019 9:05:58 AM\tN1\t{shown}\n"
        write(folder / f"MINDlarge_{name}/behaviors.tsv", line)
    report = dataset.run("mind", str(folder), tmp_path / "out", Imported())
    assert log_of(tmp_path / "out").keys() == {"U_train"}
    note = "not read, since the test set has no labels: MINDlarge_test/behaviors.tsv"
    assert report["notes"] == (note,)
    assert "not read" in (tmp_path / "out/overlay.yaml").read_text()


def test_a_history_that_the_next_stage_would_refuse_is_allowed_in_the_overlay(tmp_path):
    """Users of large data sets have longer histories than interactions.max_history."""
    for n_rows, wanted in ((10_000, None), (10_001, 10_001)):
        rows = [(1, number % 12, 5, number) for number in range(n_rows)]
        events(rows, tmp_path / "in", range(n_rows))
        dataset.run("movielens", str(tmp_path / "in"), tmp_path / "out", Imported())
        overlay = yaml.safe_load((tmp_path / "out/overlay.yaml").read_text())
        assert overlay["interactions"].get("max_history") == wanted


def test_values_nested_too_deeply_or_of_another_kind_are_no_text(tmp_path):
    deep = "[" * 900 + '"x"' + "]" * 900
    odd = json.dumps({"parent_asin": "B2", "title": {"a": 1}, "features": [{"b": 2}, ["c", None]]})
    meta = f'{{"parent_asin": "B1", "title": "One", "categories": {deep}}}\n{odd}\n'
    write(tmp_path / "in/meta_X.jsonl", meta)
    write(tmp_path / "in/X.csv", "user_id,parent_asin,rating,timestamp\nu,B1,5,1\nu,B2,5,2\n")
    dataset.run("amazon-2023", str(tmp_path / "in"), tmp_path / "out", LENIENT)
    items = pq.read_table(tmp_path / "out/items.parquet").to_pylist()
    assert [item["categories"] for item in items] == [["x"], []]
    assert [(item["title"], item["features"]) for item in items] == [("One", []), (None, ["c"])]
