"""What is done to whole datasets: mixed, linted, counted; and the command that adds SID tokens."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import tiny_qwen3
from click.testing import CliRunner

from sidmill.cli import commands
from sidmill.core.errors import SidmillError
from sidmill.datasets import counts, lint, mix
from sidmill.formats import code_files, dataset_rows, sid_text
from sidmill.io import buckets, json_report
from sidmill.settings.datasets import Lint, Mixture

SID = sid_text.render(np.arange(30, dtype=np.int32).reshape(10, 3)).to_pylist()
N_ROWS = 60


def dataset(folder, source, owner, n_rows=N_ROWS, per_file=25):
    """Rows with a text of their own; a user owns two of them, an item one."""
    folder.mkdir(parents=True)
    files = range(0, n_rows, per_file)
    for number, start in enumerate(files):
        rows = range(start, min(start + per_file, n_rows))
        table = {
            "source": [source for _ in rows],
            "uuid": [f"{hash_of(source, row):08x}-0000-5000-8000-{row:012x}" for row in rows],
            "messages": [f"{source} {row}" for row in rows],
            "metadata": [json.dumps({owner: row // 2 if owner == "uid" else row}) for row in rows],
        }
        dataset_rows.write(folder / dataset_rows.part_name(number, len(files)), pa.table(table))
    return str(folder)


def hash_of(source, row):
    return int(np.random.default_rng([ord(source[0]), row]).integers(2**32))


def texts(folder):
    return pa.concat_tables(dataset_rows.read(folder))["messages"].to_pylist()


def mixed(tmp_path, **changes):
    seed = changes.pop("seed", 3)
    weights = {"a_items": 1.0, "b_users": 1.0, "c_users": 1.0}
    settings = Mixture(**{"weights": weights, "test_size": {}, "rows_per_file": 40} | changes)
    kinds = {"a_items": "pid", "b_users": "uid", "c_users": "uid"}
    folders = [
        str(tmp_path / name) if (tmp_path / name).exists() else dataset(tmp_path / name, name, kind)
        for name, kind in kinds.items()
    ]
    figures = mix.mix(folders, tmp_path / "train", tmp_path / "test", settings, seed)
    return figures, tmp_path / "train", tmp_path / "test"


def test_weights_say_how_often_a_row_is_taken(tmp_path):
    figures, train, test = mixed(tmp_path, weights={"a_items": 2.0, "b_users": 1.0, "c_users": 0.5})
    seen = Counter(texts(train))
    assert {seen[f"a_items {row}"] for row in range(N_ROWS)} == {2}
    assert {seen[f"b_users {row}"] for row in range(N_ROWS)} == {1}
    halves = [seen[f"c_users {row}"] for row in range(N_ROWS)]
    assert set(halves) == {0, 1}
    assert 15 < sum(halves) < 45
    assert figures["train"] == {"a_items": 120, "b_users": 60, "c_users": sum(halves)}
    assert not list(test.iterdir())
    assert texts(train) != sorted(texts(train))


def test_who_is_held_out_is_in_no_training_row_and_items_stay(tmp_path):
    figures, train, test = mixed(tmp_path, test_size={"b_users": 9})
    kept, held = texts(train), texts(test)
    owners = {int(text.split()[1]) // 2 for text in held}
    assert len(held) >= 9
    assert all(text.startswith("b_users") for text in held)
    users = {int(text.split()[1]) // 2 for text in kept if "users" in text}
    assert owners.isdisjoint(users)
    assert figures["train"]["a_items"] == N_ROWS
    lost = figures["dropped_of_held_out_users"]
    assert lost == {"c_users": 2 * len(owners)}
    for name in ("b_users", "c_users"):
        assert figures["train"][name] + figures["test"][name] + lost.get(name, 0) == N_ROWS


def test_a_mixture_is_the_same_bytes_again_and_another_with_another_seed(tmp_path):
    def files(**changes):
        _, train, _ = mixed(tmp_path, **changes)
        return [path.read_bytes() for path in dataset_rows.parts(train)]

    first = files()
    assert files() == first
    assert files(seed=4) != first


def test_a_test_size_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(SidmillError, match=r"^mixture\.test_size: .* b_users, which has 60"):
        mixed(tmp_path, test_size={"b_users": 60})
    with pytest.raises(SidmillError, match="names other"):
        mixed(tmp_path, test_size={"other": 1})


@pytest.fixture
def pid2sid(tmp_path):
    sids = np.arange(30, dtype=np.int32).reshape(10, 3)
    path = tmp_path / "pid2sid.parquet"
    code_files.write(path, "sid", pa.chunked_array([pa.array(range(10))]), [sids], [30, 30, 30])
    return path


def chat(user, assistant):
    return json.dumps(
        [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("user", user), ("assistant", assistant))
        ]
    )


def test_the_linter_finds_what_is_planted_and_nothing_else(tmp_path, pid2sid):
    # One row for each finding.
    caption = {"pid": 1, "sid": SID[1]}
    rows = [
        (f"After {SID[0]}{SID[1]}?", SID[2], {"uid": 1}),
        (f"After {SID[0]}{SID[1]}?", SID[1], {"uid": 2}),  # target_in_history
        (f"After {SID[0]}?", SID[3].replace("9", "8"), {"uid": 3}),  # unknown_sids
        (f"After {SID[0]}?", SID[3][:-5], {"uid": 4}),  # unknown_sids, malformed
        (f"After {SID[0]}" + " word" * 90, SID[4], {"uid": 5}),  # over_token_budget
        (f"What is {SID[1]}?", "a bolt", caption),
        (f"What is {SID[1]}?", "a glove", {**caption, "pid": 7}),  # contradictory_captions
    ]
    uuids = [f"u{row}" for row in range(len(rows))] + ["u0"]  # duplicate_rows
    rows.append(rows[0])

    # Two datasets of one task: the user of the second is in the first as well.
    folders = []
    for name, some in (("sft_x", range(len(rows))), ("sft_x.test", [0])):
        table = {
            "source": ["x" for _ in some],
            "uuid": [uuids[row] for row in some],
            "messages": [chat(*rows[row][:2]) for row in some],
            "metadata": [json.dumps(rows[row][2]) for row in some],
        }
        folders.append(str(tmp_path / name))
        (tmp_path / name).mkdir()
        dataset_rows.write(tmp_path / name / dataset_rows.part_name(0, 1), pa.table(table))

    # Each is found once, and nothing else.
    found = lint.lint(folders, pid2sid, Lint(token_budget=100))
    planted = found["datasets"]["sft_x"]
    assert planted["examples"] == {
        "target_in_history": ["u1"],
        "unknown_sids": ["u2", "u3"],
        "over_token_budget": ["u4"],
        "contradictory_captions": ["u6"],
        "duplicate_rows": ["u0"],
    }
    assert planted["users_in_two_splits"] == 1
    alone = lint.lint(folders[:1], pid2sid, Lint(token_budget=100))
    assert alone["datasets"]["sft_x"]["users_in_two_splits"] is None  # not looked at is not none
    assert found["datasets"]["sft_x.test"]["examples"] == {}
    assert found["rows"] == 9


def test_the_report_sets_counts_beside_findings(tmp_path):
    for name, written in (("sft_a", 3), ("sft_b", 5)):
        json_report.write(tmp_path / f"{name}.json", {"read": 6, "written": written})
    found = {"rows": 8, "duplicate_rows": 1, "datasets": {"sft_a": {"rows": 3}}}
    json_report.write(tmp_path / "lint.json", found)
    paths = [str(tmp_path / f"{name}.json") for name in ("sft_a", "sft_b")]
    assert counts.combine(paths, tmp_path / "lint.json") == {
        "datasets": {
            "sft_a": {"read": 6, "written": 3, "lint": {"rows": 3}},
            "sft_b": {"read": 6, "written": 5, "lint": {}},
        },
        "lint": {"rows": 8, "duplicate_rows": 1},
    }


@pytest.mark.model
def test_the_command_leaves_a_model_and_its_tree(tmp_path, pid2sid):
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    from sidmill.datasets import tokenizer_checks, trie

    # A model on disk, first without the quantizer that the default needs.
    source = tiny_qwen3.build(tmp_path / "source")
    Qwen3ForCausalLM.from_pretrained(source).save_pretrained(source)
    command = ["vocab", str(source), str(tmp_path / "out"), "--pid2sid", str(pid2sid)]
    refused = CliRunner().invoke(commands, command)
    assert isinstance(refused.exception, SidmillError)
    assert "--quantizer" in str(refused.exception)

    # The remedy: the tokens are added, and the tree allows each SID to its end.
    done = CliRunner().invoke(commands, [*command, "--init", "mean", "--pad-to", "64"])
    assert done.exit_code == 0, done.output
    assert "92 tokens" in done.output
    assert "trainable_token_indices" in done.output
    assert f"What was checked: {tmp_path / 'out/sid_vocabulary.json'}" in done.output
    assert json.loads((tmp_path / "out/sid_vocabulary.json").read_text())["tokens"] == 92
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    tokenizer_checks.check_round_trip(tokenizer, code_files.read(pid2sid, "sid").codes)
    tree = trie.read(tmp_path / "out/trie.safetensors")
    ids = tokenizer(SID[4], add_special_tokens=False)["input_ids"]
    node = 0
    for token in ids:
        node = tree.step(node, token)
    assert node > 0
    assert not len(tree.allowed(node))
    assert Qwen3ForCausalLM.from_pretrained(tmp_path / "out").config.vocab_size % 64 == 0


def test_the_memory_for_a_mixture_changes_no_byte(tmp_path, monkeypatch):
    changes = {
        "test_size": {"b_users": 9},
        "weights": {"a_items": 2.0, "b_users": 1, "c_users": 0.5},
    }
    found = []
    for size in (1 << 20, 10):  # bytes of a MiB
        monkeypatch.setattr(buckets, "BYTES_PER_MB", size)
        figures, *folders = mixed(tmp_path, **changes)
        files = [path.read_bytes() for folder in folders for path in dataset_rows.parts(folder)]
        found.append((figures, files))
    assert found[0] == found[1]
    assert not (tmp_path / "train.work").exists()
