"""What training an RQ-VAE promises: same bytes after kills, figures that are true, refusals."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT

from sidmill import api
from sidmill.core.errors import SidmillError
from sidmill.formats import (
    embedding_shards,
    item_data,
    quantizer_file,
    sequence_table,
    vector_store,
)
from sidmill.formats.quantizer_file import Quantizer
from sidmill.numeric import latents, mlp
from sidmill.quantize import rqkmeans
from sidmill.quantize.rqvae import (
    checkpoints,
    data,
    fit,
    init,
    measure,
)
from sidmill.quantize.rqvae import train as epochs
from sidmill.quantize.rqvae.autoencoder import Autoencoder
from sidmill.settings import base
from sidmill.settings.quantize import Rqkmeans, Rqvae

SETTINGS = {
    "codebook_sizes": [8, 6, 4],
    "e_dim": 4,
    "layers": [16, 8],
    "autoencoder_epochs": 1,
    "warmup_epochs": 1,
    "epochs": 6,
    "batch_size": 64,
    "eval_step": 2,
    "save_limit": 2,
    "device": "cpu",
    "memory_mb": 64,
}
SEED = 0
ROWS, DIM = 200, 12
STEPS = 3  # per epoch: the rows that train, in batches


class CutShort(BaseException):
    """What a kill is to a program: nothing after it runs."""


@pytest.fixture
def path(tmp_path, rng):
    centres = rng.standard_normal((20, DIM))
    items = centres[rng.integers(20, size=ROWS)] + 0.3 * rng.standard_normal((ROWS, DIM))
    np.save(tmp_path / "v.npy", items.astype(np.float32))
    return str(tmp_path / "v.npy")


def train(path, folder, *, seed=SEED, code="test", **options):
    """Train; ``options`` are settings, or fields of ``fit.Inputs`` besides the vectors."""
    paths = [path] if isinstance(path, str) else path
    inputs = {key: options.pop(key) for key in fit.Inputs._fields if key in options}
    settings = Rqvae(**(SETTINGS | options))
    return fit.fit(fit.Inputs(paths, {}, **inputs), settings, fit.Run(str(folder), seed, code))


def arrays(trained):
    networks = [trained.encoder, trained.decoder]
    parts = [part for net in networks for part in (*net.weights, *net.biases, net.skip)]
    return [*trained.codebooks, *(part for part in parts if part is not None)]


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(arrays(one), arrays(other), strict=True))


def table(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("settings", "n_kills"),
    [
        ({}, 4),
        (
            {
                "codebook_update": "gradient",
                "optimizer": "nadam",
                "dropout": 0.2,
                "batch_norm": True,
            },
            2,
        ),
        (
            {"sk_epsilons": [0.0, 0.05, 0.05], "estimator": "rotation", "kmeans_init": "full"},
            2,
        ),
        ({"skip": "none", "kmeans_init": "none", "optimizer": "sgd", "loss": "cosine"}, 2),
    ],
)
def test_killed_at_ten_random_steps_it_ends_in_the_same_bytes(
    tmp_path, monkeypatch, path, rng, settings, n_kills
):
    whole = train(path, tmp_path / "whole", **settings)
    for cut in rng.choice(SETTINGS["epochs"] * STEPS, size=n_kills, replace=False):
        folder, steps = tmp_path / f"cut{cut}", iter(range(1, 10_000))
        step = epochs._step

        def step_or_die(*arguments, steps=steps, cut=cut, step=step):
            if next(steps) > cut:
                raise CutShort
            step(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(epochs, "_step", step_or_die)
            with pytest.raises(CutShort):
                train(path, folder, **settings)
        assert same(train(path, folder, **settings), whole)
        for file in (tmp_path / "whole").iterdir():
            assert (folder / file.name).read_bytes() == file.read_bytes(), file.name


def test_cut_between_any_two_files_of_a_checkpoint(tmp_path, monkeypatch, path):
    settings = {"epochs": 4, "eval_step": 2, "save_limit": 1}
    whole = train(path, tmp_path / "whole", **settings)
    write = checkpoints.tensors.write
    for cut in range(1, 10):  # five files after epoch 2, and what is better after epoch 4
        written = iter(range(1, 10_000))

        def write_and_die(*arguments, written=written, cut=cut):
            write(*arguments)
            if next(written) == cut:
                raise CutShort

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.tensors, "write", write_and_die)
            with suppress(CutShort):
                train(path, tmp_path / f"cut{cut}", **settings)
                assert cut > 6  # the last epoch writes two files at least
        assert same(train(path, tmp_path / f"cut{cut}", **settings), whole)
        assert table(tmp_path / f"cut{cut}") == table(tmp_path / "whole")


@pytest.mark.parametrize("codebook_update", ["ema", "gradient"])
def test_large_batches_on_many_threads_end_in_the_same_bytes(tmp_path, rng, codebook_update):
    """From 32,768 numbers on threads share the sums of gradients, each in its own time."""
    np.save(tmp_path / "v.npy", rng.standard_normal((2048, 32), np.float32))
    large = {"batch_size": 2048, "e_dim": 32, "layers": [], "diversity_weight": 1.0, "epochs": 8}
    large |= {"codebook_update": codebook_update, "test_ratio": 0.0, "kmeans_init": "none"}
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        one, *others = (
            train(str(tmp_path / "v.npy"), tmp_path / f"{number}", **large, choose="last")
            for number in range(3)
        )
    finally:
        torch.set_num_threads(before)
    assert all(same(one, other) for other in others)
    assert not torch.are_deterministic_algorithms_enabled()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("options", [{}, {"data_paths": 2, "kmeans_init": "first_batch"}])
@pytest.mark.parametrize("machine", ["memory_mb", "device"])
def test_a_machine_setting_changes_no_byte(tmp_path, path, options, machine):
    """With memory for no row each batch is read from the files; without a GPU auto is the CPU."""
    values = {"memory_mb": [0, 16, 4096], "device": ["cpu", "auto", "cpu"]}[machine]
    if machine == "device" and torch.cuda.is_available():
        pytest.skip("a GPU adds floats in another order")
    if "data_paths" in options:
        np.save(tmp_path / "half.npy", np.load(path).astype(np.float16)[:77])
        options = options | {"data_paths": [path, str(tmp_path / "half.npy")]}
    trained, kept = [], []
    for number, value in enumerate(values):
        settings = options | {machine: value}
        trained.append(train(path, tmp_path / f"{number}", **settings))
        kept.append(files(tmp_path / f"{number}"))
    assert all(same(trained[0], other) for other in trained[1:])
    assert kept[0] == kept[1] == kept[2]
    assert set(base.machine_keys(Rqvae)) == {"memory_mb", "device"}


def test_what_a_killed_run_left_for_its_processes_is_removed(tmp_path, path):
    (tmp_path / "c/.scratch-3").mkdir(parents=True)
    (tmp_path / "c/.scratch-3/rows-0.npy").write_bytes(b"0")
    train(path, tmp_path / "c", epochs=2)
    assert not list((tmp_path / "c").glob(".scratch-*"))


def test_a_real_kill(tmp_path, path):
    whole = train(path, tmp_path / "whole", epochs=12)
    arguments = {
        "inputs": {"vectors": [path], "fingerprint": {}},
        "settings": SETTINGS | {"epochs": 12},
        "run": {"folder": str(tmp_path / "killed"), "seed": SEED, "code": "test"},
        "member": None,
    }
    code = "import json, sys; from sidmill.quantize.rqvae import fit; "
    code += "fit.train_worker(**json.loads(sys.argv[1]))"
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    child = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not (tmp_path / "killed/last.safetensors").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert same(train(path, tmp_path / "killed", epochs=12), whole)


@pytest.mark.parametrize("change", ["seed", "code", "data", "damage"])
def test_checkpoints_of_another_training_are_not_used(tmp_path, path, change):
    train(path, tmp_path / "c", epochs=4)
    settings = {"seed": {"seed": 1}, "code": {"code": "other"}}.get(change, {})
    if change == "data":
        items = np.load(path)
        items[5, 3] += 1
        np.save(path, items)
    if change == "damage":
        last = tmp_path / "c/last.safetensors"
        last.write_bytes(last.read_bytes()[:-9])
    anew = train(path, tmp_path / "new", epochs=4, **settings)
    assert same(train(path, tmp_path / "c", epochs=4, **settings), anew)


def test_a_constant_rate_can_be_trained_further(tmp_path, path):
    longer = train(path, tmp_path / "a", schedule="constant", epochs=6)
    train(path, tmp_path / "b", schedule="constant", epochs=4)
    assert same(train(path, tmp_path / "b", schedule="constant", epochs=6), longer)


def test_the_quantizer_file_does_what_the_training_measured(tmp_path, path):
    trained = train(path, tmp_path / "c", choose="last", batch_norm=True)
    items = np.load(path)
    found = Quantizer("rqvae", trained.codebooks, {}, {}, trained.encoder, trained.decoder)
    quantizer_file.write(tmp_path / "q.safetensors", found)
    loaded = quantizer_file.read(tmp_path / "q.safetensors")
    assert loaded.dim == DIM
    codes = api.encode(loaded, items)
    last = table(tmp_path / "c")[-1]
    assert 1 - len(np.unique(codes, axis=0)) / ROWS == pytest.approx(float(last["collision_rate"]))
    held = data.held_out(ROWS, 0.05, 0)
    error = np.square(items - api.decode(loaded, codes))[held].mean()
    assert error == pytest.approx(float(last["heldout_mse"]), rel=1e-4)
    with pytest.raises(SidmillError, match="has an encoder"):
        api.save(tmp_path / "q.pt", loaded)


def test_a_row_has_one_latent_wherever_it_stands(tmp_path, path):
    trained, items = train(path, tmp_path / "c"), np.load(path)
    whole = np.concatenate(
        [block.copy() for block in latents.blocks(items, trained.encoder, "cpu", 64)]
    )
    run = mlp.load(trained.encoder, torch.device("cpu"))
    for row in (0, 7, ROWS - 1):
        np.testing.assert_array_equal(run(torch.from_numpy(items[row : row + 1]))[0], whole[row])
    order = np.random.default_rng(0).permutation(ROWS)
    moved = run(torch.from_numpy(items[order])).numpy()
    np.testing.assert_array_equal(moved, whole[order])
    fitted = Quantizer("rqvae", trained.codebooks, {}, {}, trained.encoder, trained.decoder)
    codes = api.encode(fitted, items, device="cpu")
    with latents.projected(items, fitted, codes, tmp_path, device="cpu", memory_mb=64) as found:
        np.testing.assert_array_equal(found, whole)
    assert not list(tmp_path.glob(".latents*"))


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_a_latent_depends_on_its_row_alone_whatever_the_widths(rng, threads):
    """Matrix products of odd widths add the first and the last rows in another order."""
    widths = [(37, 19, 3), (384, 100, 33, 7), (12, 4), (5, 1), (1, 1, 1), (1025, 9), (50, 31, 11)]
    widths += [tuple(rng.integers(1, 70, size=3).tolist()) for _ in range(12)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for layers in widths:
            made = [rng.standard_normal(s, np.float32) for s in pairwise(layers[::-1])][::-1]
            biases = [rng.standard_normal(len(weight), np.float32) for weight in made]
            skip = rng.standard_normal((layers[-1], layers[0]), np.float32)
            rows = rng.standard_normal((300, layers[0]), np.float32)
            order = rng.permutation(len(rows))
            for past in (None, skip):
                run = mlp.load(quantizer_file.Network(made, biases, past), "cpu")
                whole = run(rows)
                assert torch.equal(run(rows[order]), whole[order]), layers
                for row in (0, 7, 255, 299):
                    assert torch.equal(run(rows[row : row + 1])[0], whole[row]), layers
    finally:
        torch.set_num_threads(before)


def test_a_network_is_the_product_of_its_layers(rng):
    """Oracle: numpy in float64, with every kind of way past the layers, and with a bound."""
    weights = [rng.standard_normal((9, 6), np.float32), rng.standard_normal((6, 9), np.float32)]
    biases = [rng.standard_normal(9, np.float32), rng.standard_normal(6, np.float32)]
    rows = rng.standard_normal((300, 6), np.float32)
    inner = np.maximum(rows.astype(np.float64) @ weights[0].T + biases[0], 0)
    plain = inner @ weights[1].T + biases[1]
    skip = rng.standard_normal((6, 6), np.float32)
    for past, beside in ((None, 0), (np.float32(0.5), rows * 0.5), (skip, rows @ skip.T)):
        past = None if past is None else np.asarray(past)
        for bound in (None, np.array(1, np.float32)):
            wanted = plain + beside if bound is None else (plain + beside).clip(-1, 1)
            found = mlp.load(quantizer_file.Network(weights, biases, past, bound), "cpu")(rows)
            np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)


def test_held_out_rows_teach_nothing(tmp_path, path):
    """Other values in the held-out rows change no weight."""
    trained = train(path, tmp_path / "a", choose="last")
    items, held = np.load(path), data.held_out(ROWS, Rqvae().test_ratio, 0)
    assert 3 <= held.sum() <= 30
    items[held] += 1
    np.save(path, items)
    assert same(train(path, tmp_path / "b", choose="last"), trained)
    assert table(tmp_path / "a") != table(tmp_path / "b")  # they are measured, though


def test_files_in_hdf5_and_parquet_and_many_train_alike(tmp_path, path):
    items = np.load(path)
    wanted = train(path, tmp_path / "npy")
    tokens = item_data.Block(items[:100], np.ones((100, 3), np.int32), np.full(100, 3, np.int32))
    item_data.write(tmp_path / "item_data.h5", np.arange(1, 101), DIM, 3, [tokens])
    folder = tmp_path / "embeddings.parquet"
    folder.mkdir()
    for number, part in enumerate((items[100:130], items[130:])):
        block = (pa.chunked_array([np.arange(len(part))]), part)
        embedding_shards.write(folder / f"part-{number}.parquet", pa.int64(), {}, [block])
    several = [str(tmp_path / "item_data.h5"), str(folder)]
    found = train(path, tmp_path / "many", data_paths=several)
    assert same(found, wanted)
    assert not list((tmp_path / "many").glob(".scratch*"))


def test_rows_are_the_same_in_memory_and_on_disk(tmp_path, path):
    np.save(tmp_path / "half.npy", np.load(path).astype(np.float16)[:77])
    paths, cpu = [path, str(tmp_path / "half.npy")], torch.device("cpu")
    held, streamed = (data.open_rows(paths, tmp_path, cpu, memory_mb) for memory_mb in (1, 0))
    assert streamed.in_memory is None
    chosen = np.sort(np.random.default_rng(0).choice(ROWS + 77, 50, replace=False))
    assert torch.equal(data.take(held, chosen, cpu), data.take(streamed, chosen, cpu))
    for (one, rows), (other, read) in zip(
        data.blocks(held, cpu), data.blocks(streamed, cpu), strict=True
    ):
        assert one == other
        assert torch.equal(rows, read)


def test_a_warm_start_begins_at_residual_k_means(tmp_path, path):
    items = np.load(path)
    kmeans = Rqkmeans(codebook_size=[8, 6, 4], n_iter=9, tolerance=0.0, device="cpu")
    given = rqkmeans.fit(items, kmeans, seed=0).codebooks
    quantizer_file.write(tmp_path / "q.safetensors", Quantizer("rqkmeans", given, {}, {}))
    warm = {"warm_start": str(tmp_path / "q.safetensors"), "choose": "last"}
    still = {
        "test_ratio": 0.0,
        "lr": 1e-30,
        "weight_decay": 0.0,
        "codebook_update": "gradient",
        "restart": False,
    }
    trained = train(path, tmp_path / "still", **warm, **still)
    begun = Quantizer("rqkmeans_plus", trained.codebooks, {}, {}, trained.encoder, trained.decoder)
    plain = Quantizer("rqkmeans", given, {}, {})
    codes = api.encode(plain, items)
    assert (api.encode(begun, items) == codes).all(axis=1).mean() > 0.97  # one step of k-means
    error = np.square(items - api.decode(plain, codes)).mean()
    assert np.square(items - api.decode(begun, codes)).mean() == pytest.approx(error, rel=1e-2)
    alone = {"repulsion_weight": 0.0, "diversity_weight": 0.0}
    moved = train(path, tmp_path / "moved", epochs=20, lr=0.005, **alone, **warm)
    losses = [float(row["reconstruction"]) for row in table(tmp_path / "moved")]
    assert losses[-1] < 0.9 * losses[0]
    assert [len(words) for words in moved.codebooks] == [8, 6, 4]


def test_a_warm_start_forgets_what_is_held_out(tmp_path, path):
    """Codebooks that learned every item by heart begin no better than any on those held out."""
    items, held = np.load(path), data.held_out(ROWS, 0.2, 0)
    books = [items[np.flatnonzero(held)[:8]], *(np.zeros((n, DIM), np.float32) for n in (6, 4))]
    quantizer_file.write(tmp_path / "q.safetensors", Quantizer("rqkmeans", books, {}, {}))
    rows = data.open_rows([path], tmp_path, torch.device("cpu"), 64)
    model = Autoencoder(DIM, Rqvae(**SETTINGS | {"e_dim": DIM}), "warm")
    init.scale(model, rows, held, torch.device("cpu"))
    init.copy_codebooks(model, books, rows, held, torch.device("cpu"))
    words = model.codebooks[0].detach().numpy()
    scaled = model.scaled(torch.from_numpy(items)).numpy()
    codes = np.square(scaled[~held, None] - scaled[held][None, :8]).sum(axis=2).argmin(axis=1)
    for code in np.unique(codes):
        mean = scaled[~held][codes == code].mean(axis=0)
        np.testing.assert_allclose(words[code], mean, atol=1e-5)


def test_nan_stops_with_the_step_and_the_last_good_checkpoint(tmp_path, monkeypatch, path):
    step, numbers = epochs._step, iter(range(1, 10_000))

    def poison(state, loss, *others):
        if next(numbers) == 4 * STEPS + 1:  # step 1 of epoch 5; it shows at step 2
            next(iter(state.model.encoder.parameters())).data.fill_(float("nan"))
        step(state, loss, *others)

    monkeypatch.setattr(epochs, "_step", poison)
    with pytest.raises(SidmillError, match=r"step 2 of epoch 5.*last\.safetensors of epoch 4"):
        train(path, tmp_path / "c")
    monkeypatch.undo()
    assert same(train(path, tmp_path / "c"), train(path, tmp_path / "whole"))


def test_checkpoints_hold_what_their_names_say(tmp_path, path):
    settings = {"epochs": 12, "eval_step": 1, "repulsion_weight": 0.0}
    trained = train(path, tmp_path / "c", **settings)
    rows = [row for row in table(tmp_path / "c") if row["heldout_mse"]]
    least = min(float(row["heldout_mse"]) for row in rows)
    near = [row for row in rows if float(row["heldout_mse"]) <= checkpoints.TOLERATED * least]
    assert trained.figures["collision"] == min(float(row["collision_rate"]) for row in near)
    chosen = {
        kind: train(path, tmp_path / "c", choose=kind, **settings) for kind in checkpoints.KINDS
    }
    assert chosen["best_loss"].figures["error"] == least
    names = {file.name for file in (tmp_path / "c").glob("epoch-*")}
    assert names == {"epoch-000011.safetensors", "epoch-000012.safetensors"}
    assert len(rows) == 11
    assert [int(row["epoch"]) for row in table(tmp_path / "c")] == list(range(1, 13))


def test_measured_figures_are_those_of_brute_force(tmp_path, path):
    items = np.load(path)
    torch.manual_seed(0)
    model = Autoencoder(DIM, Rqvae(**SETTINGS))
    rows = data.open_rows([path], tmp_path, torch.device("cpu"), 64)
    held = data.held_out(ROWS, 0.2, 3)
    figures, codes = measure.measure(model, rows, held, torch.device("cpu"))
    books, encoder, decoder = model.exported()
    plain = Quantizer("rqvae", books, {}, {}, encoder, decoder)
    np.testing.assert_array_equal(api.encode(plain, items), codes)
    error = np.square(items - api.decode(plain, codes))[held]
    assert figures["heldout_mse"] == pytest.approx(error.mean(), rel=1e-4)
    assert figures["utilisation_1"] == len(set(codes[:, 0])) / 8


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_rises_and_falls(schedule):
    settings = Rqvae(schedule=schedule, warmup_epochs=2, epochs=10, lr=1.0)
    assert epochs.learning_rate(settings, 1) == 0.5
    assert epochs.learning_rate(settings, 2) == 1
    assert epochs.learning_rate(settings, 6) == pytest.approx({"constant": 1}.get(schedule, 0.5))
    assert epochs.learning_rate(settings, 10) == pytest.approx({"constant": 1}.get(schedule, 0))


@pytest.mark.parametrize("name", epochs.OPTIMIZERS)
def test_every_optimizer_goes_on_where_it_stopped(tmp_path, monkeypatch, path, name):
    settings = {"optimizer": name, "epochs": 3, "eval_step": 2}
    whole = train(path, tmp_path / "whole", **settings)
    save = checkpoints.save

    def save_and_die(*arguments):
        save(*arguments)
        raise CutShort

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save_and_die)
        with pytest.raises(CutShort):
            train(path, tmp_path / "cut", **settings)
    assert same(train(path, tmp_path / "cut", **settings), whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sk_epsilons": [0.1]}, r"sk_epsilons lists 1 numbers for 3 levels"),
        ({"codebook_sizes": [400, 4, 4]}, r"cannot fill 400 codewords"),
        ({"warmup_epochs": 6}, r"warmup_epochs is 6 of 6"),
        ({"autoencoder_epochs": 6}, r"nothing would be quantized"),
        ({"e_dim": 13}, r"13 latent dimensions, and the vectors have 12"),
        ({"contrastive_weight": 1.0}, r"contrastive_weight needs pairs"),
        ({"kmeans_init": "first_batch", "batch_size": 6}, r"kmeans_init to full"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, path, settings, message):
    with pytest.raises(SidmillError, match=message):
        train(path, tmp_path / "c", **settings)


def test_files_that_do_not_fit(tmp_path, path):
    np.save(tmp_path / "w.npy", np.ones((40, 5), np.float32))
    with pytest.raises(SidmillError, match=r"w\.npy has 5 dimensions, .*v\.npy has 12"):
        train([path, str(tmp_path / "w.npy")], tmp_path / "c")
    with pytest.raises(SidmillError, match="are equal"):
        train(str(tmp_path / "w.npy"), tmp_path / "c", codebook_sizes=[2, 2])
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["item_ids"] = np.arange(3)
    with pytest.raises(SidmillError, match="no dataset 'embeddings'"):
        train(path, tmp_path / "c", data_paths=[str(tmp_path / "x.h5")])
    store = tmp_path / "vectors.npy"
    np.save(store, np.load(path))
    vector_store.write_ids(
        tmp_path / "ids.parquet", pa.chunked_array([range(ROWS)]), (ROWS, DIM), {"a": 1}
    )
    with pytest.raises(SidmillError, match="holds other embeddings"):
        train(path, tmp_path / "c", data_paths=[str(store)])
    items = np.load(path)
    items[9] = np.nan
    np.save(path, items)
    with pytest.raises(SidmillError, match="first at row 9"):
        train(path, tmp_path / "c")


def test_pairs_come_from_the_training_part_of_histories(tmp_path, path):
    ids = pa.chunked_array([range(100, 100 + ROWS)])
    vector_store.write_ids(tmp_path / "ids.parquet", ids, (ROWS, DIM), {})
    users = pa.table(
        {
            "user_id": ["a", "b"],
            "item_ids": [[100, 105, 105, 102, 299], [101, 100]],
            "splits": [[0, 0, 0, 0, 2], [0, 0]],
            "timestamps": [None, None],
        },
        schema=sequence_table.schema(pa.int64()),
    )
    sequence_table.write(tmp_path / "sequences.parquet", pa.int64(), [users])
    found = data.read_pairs(str(tmp_path / "sequences.parquet"), str(tmp_path / "ids.parquet"))
    assert found.tolist() == [[0, 5], [5, 2], [1, 0]]
    pq.write_table(pa.table({"pid_a": [100], "pid_b": [7]}), tmp_path / "p.parquet")
    with pytest.raises(SidmillError, match="item 7 is not in the catalogue"):
        data.read_pairs(str(tmp_path / "p.parquet"), str(tmp_path / "ids.parquet"))
    settings = {"ids": str(tmp_path / "ids.parquet"), "contrastive_weight": 1.0}
    settings["sequences"] = str(tmp_path / "sequences.parquet")
    train(path, tmp_path / "c", **settings)
    assert float(table(tmp_path / "c")[-1]["contrastive"]) > 0


def test_colliding_items_are_parted_from_the_first_quantized_step(tmp_path, path):
    """Not only once a measurement has found them."""
    train(path, tmp_path / "t", eval_step=6)
    repulsion = [float(row["repulsion"]) for row in table(tmp_path / "t")]
    assert repulsion[0] == 0
    assert min(repulsion[1:]) > 0


def test_two_processes_train_as_one(tmp_path, monkeypatch, path):
    """Two gloo processes on the CPU: the sums of their gradients are those of one process."""
    settings = {"choose": "last", "clip": 0.0, "diversity_weight": 0.0, "epochs": 4}
    alone = train(path, tmp_path / "one", **settings)
    monkeypatch.setattr(epochs, "run_epoch", None)  # the two train; this process does not
    both = train(path, tmp_path / "two", processes=2, **settings)
    for one, other in zip(arrays(alone), arrays(both), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert len(table(tmp_path / "two")) == 4
    assert not list((tmp_path / "two").glob(".scratch*"))


def test_tensorboard_and_wandb_offline_keep_the_figures(tmp_path, path, monkeypatch):
    pytest.importorskip("tensorboard")
    pytest.importorskip("wandb")
    small = {"epochs": 3, "eval_step": 2}
    plain = train(path, tmp_path / "plain", **small)
    assert same(train(path, tmp_path / "tb", tracking="tensorboard", **small), plain)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb/tensorboard"))
    events.Reload()
    assert [one.step for one in events.Scalars("loss")] == [1, 2, 3]
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert same(train(path, tmp_path / "wb", tracking="wandb", **small), plain)
    assert list((tmp_path / "wb/wandb").glob("offline-run-*/*.wandb"))
    assert (tmp_path / "wb/metrics.csv").read_bytes() == (tmp_path / "tb/metrics.csv").read_bytes()
