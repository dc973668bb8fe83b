"""What reruns and what does not, and that the same input gives the same bytes."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.workflow

TINY = ("--configfile", "tests/configs/tiny.yaml")
PUBLISHED = ("pid2sid.parquet", "codes.parquet", "items/vectors.npy", "index.json", "quality.json")
TRAINING = {"train_rqkmeans", "encode_items", "choose_codes"}
AFTER = {"resolve_collisions", "measure_quality", "plot_quality", "explore_sids", "all"}


@pytest.fixture(scope="module")
def finished(make_workflow):
    """A run from nothing that every test here looks at; a test that changes it copies it."""
    workflow = make_workflow()
    workflow.run(*TINY)
    return workflow


@pytest.fixture
def copy(finished, make_workflow):
    workflow = make_workflow()
    for name in ("results", ".snakemake"):
        shutil.copytree(finished.folder / name, workflow.folder / name, copy_function=shutil.copy2)
    return workflow


def test_processes_change_no_byte_and_rerun_nothing(finished, copy):
    """Training and encoding, by two processes each that the jobs start."""
    own = copy.overlay("own.yaml", "{rqkmeans: {processes: 2}, encoding: {processes: 2}}")
    assert copy.planned(*TINY, own) == set()
    (copy.folder / "results/codes.parquet").unlink()
    copy.run("results/codes.parquet", *TINY, own, "--forcerun", "train_rqkmeans", "encode_items")
    for name in ("rqkmeans/quantizer.safetensors", "rqkmeans/codes.parquet", "codes.parquet"):
        assert copy.bytes(name) == finished.bytes(name), name
    started = "2 processes, started by this one"
    assert started in (copy.folder / "results/logs/encode_items.rqkmeans.log").read_text()

    # So few codes have work for one process: two are started only where they are asked for.
    log, quantizer = copy.folder / "results/logs/train_rqkmeans.log", "rqkmeans/quantizer"
    assert started not in log.read_text()
    two = ("--forcerun", "train_rqkmeans", "--set-resources", "train_rqkmeans:tasks=2")
    copy.run(f"results/{quantizer}.safetensors", *TINY, own, *two)
    assert copy.bytes(f"{quantizer}.safetensors") == finished.bytes(f"{quantizer}.safetensors")
    assert started in log.read_text()


def edit(workflow, name, old, new):
    path = workflow.folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def status(workflow, *words):
    """What ``sidmill status`` says, with its exit code."""
    command = [sys.executable, "-m", "sidmill", "status", "--json", *words]
    environment = os.environ | {"PYTHONPATH": str(workflow.folder / "src")}
    done = subprocess.run(
        command, cwd=workflow.folder, env=environment, capture_output=True, text=True, timeout=300
    )
    told = json.loads(done.stdout)
    return done.returncode, told, {job["rule"]: job for job in told["jobs"]}


def test_a_run_from_nothing_leaves_every_file(finished):
    table = pq.read_table(finished.folder / "results/pid2sid.parquet")
    assert table.num_rows == 200
    assert len({tuple(sid) for sid in table["sid"].to_pylist()}) == 200
    assert (
        table["pid"].to_pylist()
        == pq.read_table(finished.folder / "results/items/text.parquet")["pid"].to_pylist()
    )
    figures = json.loads(finished.bytes("quality.json"))
    assert figures["after"]["collision_rate"] == 0
    assert figures["before"]["collision_rate"] > 0
    index = json.loads(finished.bytes("index.json"))
    sids = dict(zip(table["pid"].to_pylist(), table["sid"].to_pylist(), strict=True))
    assert all(
        index[str(pid)] == [f"<{letter}_{code}>" for letter, code in zip("abc", sid, strict=True)]
        for pid, sid in sids.items()
    )
    leftovers = list((finished.folder / "results").rglob(".*partial"))
    assert not leftovers


def test_every_rule_leaves_a_log_and_a_benchmark(finished):
    for kind in ("logs", "benchmarks"):
        stems = {
            path.name.split(".")[0] for path in (finished.folder / f"results/{kind}").iterdir()
        }
        assert stems == {
            "write_demo", "render_text", "fit_lsa", "embed_shard", "store_vectors",
            *TRAINING, *AFTER,
        } - {"all"}  # fmt: skip


def test_a_second_run_does_nothing(finished):
    assert finished.planned(*TINY) == set()


def test_touching_every_script_and_module_reruns_nothing(copy):
    for folder in ("workflow", "src"):
        for path in (copy.folder / folder).rglob("*.*"):
            os.utime(path)
    assert copy.planned(*TINY) == set()


@pytest.mark.parametrize(
    ("name", "old", "new", "rerun"),
    [
        ("src/sidmill/quantize/rqkmeans.py", "logger = ", "other = 1\nlogger = ", TRAINING | AFTER),
        ("src/sidmill/sids/reassign.py", "MIN_BEAM = 32", "MIN_BEAM = 64", AFTER),
        ("workflow/resources/explorer.html.jinja", "</body>", " </body>", {"explore_sids", "all"}),
        ("src/sidmill/embed/backends/lsa.py", "import ", "OTHER = 1\nimport ", None),
    ],
)  # fmt: skip
def test_editing_code_reruns_what_it_makes_and_what_follows(copy, name, old, new, rerun):
    if rerun is None:
        rerun = {"fit_lsa", "embed_shard", "store_vectors"} | TRAINING | AFTER
    edit_once = (copy.folder / name).read_text().replace(old, new, 1)
    assert edit_once != (copy.folder / name).read_text()
    (copy.folder / name).write_text(edit_once)
    assert copy.planned(*TINY) == rerun


def test_words_plumbing_and_what_this_run_does_not_use_rerun_nothing(copy):
    edit(copy, "src/sidmill/sids/reassign.py", "MIN_BEAM = 32", "MIN_BEAM = 32  # a comment")
    edit(copy, "workflow/scripts/choose_codes.py", '"wrote %s', '"WROTE %s')
    edit(copy, "src/sidmill/core/locks.py", "is still at work", "works still")
    edit(copy, "src/sidmill/core/locks.py", "O_RDWR", "O_RDONLY")
    edit(copy, "src/sidmill/quantize/rqkmeans.py", "cannot fill", "are too few for")
    edit(
        copy,
        "src/sidmill/embed/backends/openai.py",
        "import httpx2\n",
        "import httpx2\nimport this\n",
    )
    assert copy.planned(*TINY) == set()


@pytest.mark.parametrize(
    ("overlay", "rerun"),
    [
        ("rqkmeans: {n_iter: 6}", TRAINING | AFTER),
        ("collisions: {strategy: none}", AFTER),
        ("quality: {neighbours: 6}", {"measure_quality", "plot_quality", "all"}),
        ("rqkmeans: {n_levels: 3}\ncollisions: {strategy: reassign}\nrun: {seed: 42}", set()),
        ("embedding: {prompt: '', shards: 2, dim: 16}", set()),
        ("embedding: {batch_tokens: 99, device: cpu}\nrqkmeans: {memory_mb: 99}", set()),
    ],
)
def test_a_setting_reruns_what_it_makes_and_what_follows(copy, overlay, rerun):
    name = copy.overlay("overlay.yaml", overlay + "\n")
    assert copy.planned(*TINY, name) == rerun


def test_a_deleted_shard_is_rebuilt_alone_and_changes_nothing(copy):
    shard = "results/items/embeddings.parquet/part-00001-of-00002.parquet"
    before = {name: copy.bytes(name) for name in PUBLISHED}
    whole = (copy.folder / shard).read_bytes()
    (copy.folder / shard).unlink()
    assert copy.planned(*TINY, "--", shard) == {"embed_shard"}
    copy.run(*TINY, "--", shard)
    assert (copy.folder / shard).read_bytes() == whole
    copy.run(*TINY)
    assert {name: copy.bytes(name) for name in PUBLISHED} == before


def test_two_runs_from_nothing_give_the_same_bytes(finished, workflow):
    workflow.run(*TINY)
    for name in (*PUBLISHED, "rqkmeans/quantizer.safetensors", "items/lsa.safetensors"):
        assert workflow.bytes(name) == finished.bytes(name), name
    for name in ("code_usage", "prefix_sizes", "reconstruction"):
        assert workflow.bytes(f"plots/{name}.svg") == finished.bytes(f"plots/{name}.svg")
    assert workflow.bytes("explorer.html") == finished.bytes("explorer.html")


def test_a_killed_run_goes_on_to_the_same_bytes(finished, workflow):
    """Killed while two different rules run, and run again."""
    for name in ("logs/embed_shard.items.00000-of-00002.log", "logs/train_rqkmeans.log"):
        workflow.kill_when(name, *TINY)
        rule = name.removeprefix("logs/").partition(".")[0]
        code, told, jobs = status(workflow, *TINY)
        assert (code, told["locked"], told["states"]["interrupted"] > 0) == (1, False, True)
        assert rule == "embed_shard" or jobs[rule]["state"] == "interrupted"
    workflow.run(*TINY)
    for name in (*PUBLISHED, "rqkmeans/quantizer.safetensors", "rqkmeans/model.pt"):
        assert workflow.bytes(name) == finished.bytes(name), name
    left = [path for pattern in (".*partial", "*.state") for path in workflow.folder.rglob(pattern)]
    assert not left


def test_the_run_is_described_and_what_is_to_do_is_told(copy):
    """Done, then with a setting that fails, then with another one."""
    copy.run(*TINY, "--", "results/run.json")
    told = json.loads(copy.bytes("run.json"))
    assert {stage["stage"]: stage["in"] for stage in told["stages"]}["resolve collisions"] == 200
    assert all(stage["holds"] for stage in told["stages"])
    assert {rule["rule"] for rule in told["rules"]} >= TRAINING | {"embed_shard"}
    assert told["settings"]["rqkmeans"]["n_iter"] == 5
    code, told, _ = status(copy, "results/run.json", *TINY)
    assert (code, set(told["states"]), told["locked"]) == (0, {"done"}, False)

    # Described again it is the same run; with another setting it is one more.
    def history():
        return [json.loads(line) for line in copy.bytes("runs.jsonl").decode().splitlines()]

    copy.run(*TINY, "--forcerun", "describe_run", "--", "results/run.json")
    (first,) = history()
    assert first["written"] == json.loads(copy.bytes("run.json"))["written"]
    other = copy.overlay("other.yaml", "explorer: {max_items: 50}\n")
    copy.run(*TINY, other, "--", "results/run.json")
    assert [run["settings"]["explorer.max_items"] for run in history()] == [
        first["settings"]["explorer.max_items"],
        50,
    ]
    page = copy.bytes("runs.html").decode()
    assert page.count('scope="row"') == 2
    assert "explorer.max_items" in page
    copy.run(*TINY, "--", "results/run.json")

    bad = copy.overlay("bad.yaml", "rqkmeans: {codebook_size: 1000}\n")
    failed = copy.snakemake("--show-failed-logs", *TINY, bad)
    assert failed.stdout.count("200 vectors cannot fill") + failed.stderr.count(
        "200 vectors cannot fill"
    ) == 2  # where it is said, and in the log that is shown  # fmt: skip
    log = (copy.folder / "results/logs/train_rqkmeans.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["message"] == "failed"
    code, told, jobs = status(copy, *TINY, "--configfile", bad)
    assert (code, jobs["fit_lsa"]["state"]) == (1, "done")
    assert jobs["train_rqkmeans"]["state"] == "failed"
    assert jobs["train_rqkmeans"]["why"][0].startswith("200 vectors cannot fill 1000 codewords")
    assert jobs["resolve_collisions"]["state"] == "waiting"
    assert copy.planned(*TINY, bad) >= TRAINING

    other = copy.overlay("other.yaml", "store: {dtype: float16}\n")
    _, _, jobs = status(copy, *TINY, "--configfile", other)
    assert jobs["store_vectors"]["why"] == ["dtype 'float32' -> 'float16'"]
    assert jobs["measure_quality"]["state"] == "waiting"


def test_a_pretrained_quantizer_takes_the_place_of_training(copy):
    """The checkpoint of the run, given back as pretrained, leads to the same SIDs."""
    before = copy.bytes("pid2sid.parquet")
    shutil.copytree(copy.folder / "results/items/embeddings.parquet", copy.folder / "mine")
    shutil.copy2(copy.folder / "results/rqkmeans/model.pt", copy.folder / "their model.pt")
    text = 'quantizer: pretrained\npretrained: {path: "their model.pt"}\n'
    text += "embedding: {backend: precomputed, model: mine, path: mine, dim: null}\n"
    copy.run(*TINY, copy.overlay("overlay.yaml", text), "--", "results/quality.json")
    assert copy.bytes("pid2sid.parquet") == before
    assert json.loads(copy.bytes("quality.json"))["quantizer"] == "pretrained"


def test_another_number_of_shards_gives_the_same_sids(finished, workflow):
    name = workflow.overlay("overlay.yaml", "embedding: {shards: 5}\n")
    workflow.run(*TINY, name, "--", "results/pid2sid.parquet")
    assert workflow.bytes("pid2sid.parquet") == finished.bytes("pid2sid.parquet")
    assert workflow.bytes("items/vectors.npy") == finished.bytes("items/vectors.npy")


def test_fewer_shards_leave_no_old_ones_in_the_folder(copy):
    name = copy.overlay("overlay.yaml", "embedding: {shards: 1}\n")
    copy.run(*TINY, name, "--", "results/items/vectors.npy")
    folder = copy.folder / "results/items/embeddings.parquet"
    assert [path.name for path in folder.iterdir()] == ["part-00000-of-00001.parquet"]
    assert pq.read_table(folder).num_rows == 200


@pytest.mark.parametrize("strategy", ["suffix", "none"])
def test_other_strategies_run_to_the_end(copy, strategy):
    name = copy.overlay("overlay.yaml", f"collisions: {{strategy: {strategy}}}\n")
    copy.run(*TINY, name)
    figures = json.loads(copy.bytes("quality.json"))
    assert len(figures["after"]["levels"]) == (4 if strategy == "suffix" else 3)
    assert (figures["after"]["collision_rate"] == 0) == (strategy == "suffix")


def test_codebooks_of_different_sizes(copy):
    name = copy.overlay("overlay.yaml", "rqkmeans: {codebook_size: [32, 16, 8]}\n")
    copy.run(*TINY, name, "--", "results/quality.json")
    figures = json.loads(copy.bytes("quality.json"))
    assert figures["codebook_sizes"] == [32, 16, 8]
    assert figures["capacity"] == 32 * 16 * 8


def test_your_own_embeddings_take_the_place_of_the_encoder(copy):
    """The embeddings of the run, given back as precomputed, lead to the same SIDs."""
    shutil.copytree(copy.folder / "results/items/embeddings.parquet", copy.folder / "mine")
    text = (
        "embedding: {backend: precomputed, model: lsa-of-mine, path: mine, dim: null, shards: 3}\n"
    )
    before = copy.bytes("pid2sid.parquet")
    copy.run(*TINY, copy.overlay("overlay.yaml", text), "--", "results/pid2sid.parquet")
    assert copy.bytes("pid2sid.parquet") == before


def test_the_report_is_one_file_that_holds_every_result(copy):
    copy.run(*TINY, "--report", "results/report.html")
    page = (copy.folder / "results/report.html").read_text(encoding="utf-8")
    for word in ("SID explorer", "code usage", "prefix sizes", "reconstruction error"):
        assert word in page
    assert 'src="http' not in page


@pytest.mark.parametrize("lint", ["--lint"])
def test_the_linter_has_no_remark(finished, lint):
    assert "your workflow is in a good condition" in finished.run(lint)


@pytest.mark.long
def test_the_real_catalogue(workflow, real_data):
    """3,686 items in, 3,686 distinct SIDs of length 3 out."""
    folder = real_data / "amazon-industrial"
    data = {name: {"path": str(folder / f"{name}.jsonl")} for name in ("items", "interactions")}
    name = workflow.overlay("overlay.yaml", json.dumps(data))
    workflow.run("--configfile", "tests/configs/amazon-industrial.yaml", name)
    table = pq.read_table(workflow.folder / "results/pid2sid.parquet")
    sids = {tuple(sid) for sid in table["sid"].to_pylist()}
    assert (table.num_rows, len(sids), {len(sid) for sid in sids}) == (3686, 3686, {3})
    figures = json.loads(workflow.bytes("quality.json"))
    assert figures["before"]["collision_rate"] < 0.30
    assert all(level["utilisation"] > 0.95 for level in figures["before"]["levels"])
    assert figures["before"]["neighbours"]["1"] > 20 * figures["before"]["neighbours_chance"]["1"]
