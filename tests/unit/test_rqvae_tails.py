"""A training of an RQ-VAE fails at no number of rows, and at no point where a length is 0."""

import re

import numpy as np
import pytest
import torch
from test_rqvae import DIM, SEED, SETTINGS, train

from sidmill.core.errors import SidmillError
from sidmill.formats import quantizer_file
from sidmill.formats.quantizer_file import Quantizer
from sidmill.numeric import nearest_torch
from sidmill.numeric.process_group import Group
from sidmill.quantize.rqvae import (
    data,
    distributed,
    fit,
    init,
    losses,
    measure,
    residual_quantizer,
)
from sidmill.quantize.rqvae import train as epochs
from sidmill.quantize.rqvae.autoencoder import Autoencoder
from sidmill.quantize.rqvae.data import MIN_BATCH_ROWS
from sidmill.quantize.rqvae.fit import check_rows
from sidmill.recommend import sequence_model
from sidmill.settings.quantize import Rqvae

CPU = torch.device("cpu")
SMALL = {
    "codebook_sizes": [2, 2],
    "e_dim": 3,
    "layers": [6],
    "test_ratio": 0.0,
    "batch_size": 16,
    "epochs": 3,
    "eval_step": 3,
    "save_limit": 0,
}


def settings_of(**changes):
    return Rqvae(**(SETTINGS | SMALL | changes))


@pytest.fixture
def rows_file(tmp_path, rng):
    def write(n_rows, scale=1.0):
        path = tmp_path / f"rows-{n_rows}.npy"
        np.save(path, (scale * rng.standard_normal((n_rows, DIM))).astype(np.float32))
        return str(path)

    return write


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_every_process_has_rows_to_compare_in_every_batch(processes):
    """For every number of rows: all are trained on once, none in a batch too small."""
    least = MIN_BATCH_ROWS * processes
    for batch_size in (8, 16, 128):
        for n_rows in range(least, 301):
            bounds = data.batch_bounds(n_rows, batch_size, processes)
            sizes = np.diff(bounds)
            assert bounds[0] == 0
            assert bounds[-1] == n_rows
            assert sizes.min() >= least, (n_rows, batch_size)
            shares = [
                len(distributed.local_rows(np.arange(size), Group(rank, processes)))
                for size in set(sizes.tolist())
                for rank in range(processes)
            ]
            assert min(shares) >= MIN_BATCH_ROWS
            if n_rows % batch_size == 0 or n_rows % batch_size >= least:  # nothing to spread
                assert (sizes[:-1] == batch_size).all()


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_every_number_of_rows_trains_or_is_refused_with_a_number_that_trains(processes):
    settings = settings_of(processes=processes)
    for n_rows in range(1, 301):
        if n_rows >= MIN_BATCH_ROWS * processes:
            check_rows(settings, n_rows, n_rows, needs_kmeans=True)
        elif n_rows < MIN_BATCH_ROWS:
            with pytest.raises(SidmillError, match="embed more items"):
                check_rows(settings, n_rows, n_rows, needs_kmeans=True)
        else:
            with pytest.raises(SidmillError, match=r"lower rqvae\.processes") as refused:
                check_rows(settings, n_rows, n_rows, needs_kmeans=True)
            fewer = int(re.search(r"at most (\d+)", str(refused.value))[1])
            check_rows(settings_of(processes=fewer), n_rows, n_rows, needs_kmeans=True)
            with pytest.raises(SidmillError):
                check_rows(settings_of(processes=fewer + 1), n_rows, n_rows, needs_kmeans=True)


AWKWARD = [2, 3, 15, 16, 17, 18, 31, 33, 49]


@pytest.mark.parametrize("n_rows", AWKWARD)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "batch_norm": True,
            "codebook_update": "gradient",
            "estimator": "rotation",
            "dropout": 0.3,
        },
        {"loss": "cosine", "sk_epsilons": [0.002, 0.05], "kmeans_init": "none", "skip": "none"},
    ],
    ids=["ema", "batch_norm", "sinkhorn"],
)
def test_awkward_numbers_of_rows_train(tmp_path, rows_file, n_rows, settings):
    trained = train(rows_file(n_rows), tmp_path / "c", **(SMALL | settings))
    assert all(np.isfinite(words).all() for words in trained.codebooks)
    assert np.isfinite(trained.figures["error"])


@pytest.mark.parametrize("kind", ["two distinct", "all but one equal", "one row at the mean"])
def test_equal_rows_train(tmp_path, rng, kind):
    """Whole batches of equal rows, and a row that is the centre, whose scaled vector is zero."""
    rows = np.zeros((65, DIM), np.float32) + rng.standard_normal(DIM).astype(np.float32)
    if kind == "two distinct":
        rows[32:] *= -1
    elif kind == "all but one equal":
        rows[7] += 1
    else:
        rows = rng.standard_normal((65, DIM)).astype(np.float32)
        rows[0] = rows[1:].astype(np.float64).mean(axis=0)
    np.save(tmp_path / "v.npy", rows)
    for number, settings in enumerate(({}, {"batch_norm": True, "skip": "none"})):
        trained = train(str(tmp_path / "v.npy"), tmp_path / f"c{number}", **(SMALL | settings))
        assert all(np.isfinite(words).all() for words in trained.codebooks)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_each_process_of_several_takes_finite_steps_at_every_tail(
    tmp_path, monkeypatch, rows_file, processes
):
    """What one process of several computes, without the others: sums are left as they are."""
    monkeypatch.setattr(distributed, "all_reduce", lambda tensors, group: list(tensors))
    monkeypatch.setattr(distributed, "broadcast", lambda tensors, group: None)
    least = MIN_BATCH_ROWS * processes
    for n_rows in sorted({least, least + 1, *(16 + rest for rest in range(least + 1))}):
        settings = settings_of(batch_norm=True)
        rows = data.open_rows([rows_file(n_rows)], tmp_path, CPU, 64)
        held = np.zeros(n_rows, dtype=bool)
        for rank in (0, processes - 1):
            torch.manual_seed(0)
            state = epochs.make_state(Autoencoder(DIM, settings), settings)
            init.scale(state.model, rows, held, CPU)
            _, codes = measure.measure(state.model, rows, held, CPU)
            group = Group(rank, processes)
            training = epochs.Training(settings, SEED, rows, held, None, CPU, group)
            colliding = data.colliding_pairs(codes, ~held)
            figures = epochs.run_epoch(state, training, colliding, epoch=0, quantizing=True)
            assert np.isfinite(figures["loss"])


ZERO, EQUAL = torch.zeros(5, 3), torch.ones(5, 3)
TINY = 1e-30 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
POINTS = {
    "zeros": ZERO,
    "equal": EQUAL,
    "tiny": TINY,
    "one row": torch.ones(1, 3),
    "one zero row": torch.zeros(1, 3),
    "two equal of five": torch.eye(5, 3).index_copy(0, torch.tensor([4]), torch.eye(5, 3)[:1]),
}
CURVES = {
    "mse": lambda rows: losses.reconstruction(rows, torch.ones_like(rows), "mse"),
    "l1": lambda rows: losses.reconstruction(rows, rows.detach(), "l1"),
    "cosine": lambda rows: losses.reconstruction(rows, torch.ones_like(rows), "cosine"),
    "cosine of zeros": lambda rows: losses.reconstruction(rows, 0 * rows.detach(), "cosine"),
    "diversity": losses.diversity,
    "repulsion": lambda rows: losses.repulsion(rows, rows.detach(), torch.tensor(0.0)),
    "repulsion with a margin": lambda rows: losses.repulsion(
        rows, rows.detach().flip(0), torch.tensor(1.0)
    ),
    "contrastive": lambda rows: losses.contrastive(rows, rows.detach().flip(0), 0.1),
    "rotation": lambda rows: residual_quantizer.rotate(rows, torch.ones_like(rows)).sum(),
    "rotation to zero": lambda rows: residual_quantizer.rotate(rows, 0 * rows.detach()).sum(),
    "rotation to the opposite": lambda rows: residual_quantizer.rotate(rows, -rows.detach()).sum(),
    "cosine of the recommender": lambda rows: sequence_model.unit(rows).sum(),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("curve", CURVES)
def test_no_gradient_is_nan_or_drowns_the_others(curve, point):
    rows = POINTS[point].clone().requires_grad_()
    value = CURVES[curve](rows)
    (gradient,) = torch.autograd.grad(value, rows, allow_unused=True)
    assert value.isfinite()
    assert gradient is None or gradient.abs().max() < 1e8  # NaN is not less


def test_rotation_of_a_row_without_length_gives_the_codeword():
    goal = torch.tensor([[1.0, 2], [0, 0], [0, 0], [3, 4], [1, 0]])
    rows = torch.tensor([[0.0, 0], [1, 1], [0, 0], [3, 4], [-1, 0]], requires_grad=True)
    turned = residual_quantizer.rotate(rows, goal)
    torch.testing.assert_close(turned.detach(), goal, atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad(turned.sum(), rows)
    assert (gradient[:3] == 1).all()  # these pass straight


def test_rows_of_zeros_are_measured(tmp_path):
    """There is no length to hold the error against: the figure is left out, not invented."""
    rows = np.ones((40, DIM), np.float32)
    rows[::2] += np.arange(DIM, dtype=np.float32)
    held = data.held_out(40, 0.3, 0)
    rows[held] = 0
    np.save(tmp_path / "v.npy", rows)
    settings = SMALL | {"test_ratio": 0.3, "eval_step": 1}
    trained = train(str(tmp_path / "v.npy"), tmp_path / "c", **settings)
    assert trained.figures["error"] > 0
    assert "heldout_relative,collision_rate" in (tmp_path / "c/metrics.csv").read_text()


@pytest.mark.parametrize("length", [1e-25, 1e17])
def test_figures_do_not_overflow_where_vectors_do_not(tmp_path, rows_file, length):
    """Squares of float32 end at 3e38 and vanish below 1e-45."""
    trained = train(rows_file(40, length), tmp_path / "c", **SMALL)
    table = (tmp_path / "c/metrics.csv").read_text().splitlines()
    last = dict(zip(table[0].split(","), table[-1].split(","), strict=True))
    assert 0 < float(last["heldout_relative"]) < 2
    assert 0 < trained.figures["error"] < np.inf


CASES = [  # settings, what the message says, what it says to do
    ({"codebook_sizes": [41, 2]}, "cannot fill 41", {"codebook_sizes": [40, 2]}),
    ({"codebook_sizes": [41, 2]}, "kmeans_init to none", {"kmeans_init": "none"}),
    (
        {"kmeans_init": "first_batch", "codebook_sizes": [20, 2]},
        "codebook_sizes to at most 16",
        {"codebook_sizes": [16, 2]},
    ),
    (
        {"kmeans_init": "first_batch", "codebook_sizes": [20, 2]},
        "kmeans_init to full",
        {"kmeans_init": "full"},
    ),
    ({"lr": 1e30, "clip": 0.0, "optimizer": "sgd"}, "lower rqvae.lr", {"lr": 1e-3}),
    ({"lr": 30.0, "clip": 0.0, "optimizer": "sgd"}, "set rqvae.clip to 1", {"clip": 1.0}),
]


@pytest.mark.parametrize(("settings", "message", "remedy"), CASES)
def test_what_a_message_says_to_do_works(tmp_path, rows_file, settings, message, remedy):
    path = rows_file(40)
    settings = SMALL | settings
    with pytest.raises(SidmillError, match=re.escape(message)):
        train(path, tmp_path / "c", **settings)
    train(path, tmp_path / "c", **(settings | remedy))


def test_a_warm_start_needs_no_training_row_for_each_codeword(tmp_path, rows_file):
    """Its codebooks were fitted to all rows; some of these are held out now."""
    rows = np.load(rows_file(20))
    books = [rows, np.zeros((2, DIM), np.float32)]
    quantizer_file.write(tmp_path / "q.safetensors", Quantizer("rqkmeans", books, {}, {}))
    warm = SMALL | {"warm_start": str(tmp_path / "q.safetensors"), "test_ratio": 0.3}
    trained = train(rows_file(20), tmp_path / "c", **warm)
    assert [len(words) for words in trained.codebooks] == [20, 2]
    np.save(tmp_path / "narrow.npy", rows[:, :7])
    with pytest.raises(SidmillError, match=r"codewords of 12 dimensions, the vectors .* have 7"):
        train(str(tmp_path / "narrow.npy"), tmp_path / "d", **warm)


def test_a_test_ratio_that_leaves_too_little_can_be_set_to_0(tmp_path, rows_file):
    seed = next(n for n in range(99) if data.held_out(2, 0.5, n).any())
    settings = SMALL | {"test_ratio": 0.5, "seed": seed, "kmeans_init": "none"}
    with pytest.raises(SidmillError, match=r"embed more items, or set rqvae\.test_ratio to 0"):
        train(rows_file(2), tmp_path / "c", **settings)
    train(rows_file(2), tmp_path / "c", **(settings | {"test_ratio": 0.0}))


def test_weights_that_the_last_step_of_an_epoch_spoils_are_no_fault_of_the_items(
    tmp_path, monkeypatch, rows_file
):
    """The loss of that step is finite; k-means over the latents comes next."""
    step, numbers = epochs._step, iter(range(1, 99))

    def poison(state, loss, *others):
        step(state, loss, *others)
        if next(numbers) == 3:  # the last of epoch 1, before anything is quantized
            next(iter(state.model.encoder.parameters())).data.fill_(float("nan"))

    monkeypatch.setattr(epochs, "_step", poison)
    with pytest.raises(
        SidmillError, match=r"step 3 of epoch 1: no checkpoint was saved.*rqvae\.lr"
    ):
        train(rows_file(40), tmp_path / "c", **SMALL)


PATCHED = """
import numpy as np
from sidmill.quantize.rqvae import fit, train

run_epoch, epochs = train.run_epoch, iter(range(99))


def run_and_keep(state, training, *arguments, **named):
    figures = run_epoch(state, training, *arguments, **named)
    arrays = {name: part.numpy() for name, part in state.model.state_dict().items()}
    arrays |= {f"moved.{n}": a.sums.numpy() for n, a in enumerate(state.averages)}
    np.savez(f"{FOLDER}/{training.group.rank}-{next(epochs)}.npz", **arrays)
    return figures


def train_worker(**arguments):
    train.run_epoch = run_and_keep
    fit.train_worker(**arguments)
"""


def test_all_processes_have_the_same_state_after_every_epoch(tmp_path, monkeypatch, rows_file):
    """Buffers of batch norm too; 35 rows in batches of 16 leave 3, too few for two processes."""
    (tmp_path / "patched.py").write_text(f"FOLDER = {str(tmp_path)!r}\n{PATCHED}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(fit, "WORKER", "patched:train_worker")
    settings = SMALL | {"batch_norm": True, "eval_step": 2, "dropout": 0.2, "processes": 2}
    train(rows_file(35), tmp_path / "c", **settings)
    for epoch in range(settings["epochs"]):
        one, other = (np.load(tmp_path / f"{rank}-{epoch}.npz") for rank in (0, 1))
        assert any("running_var" in name for name in one.files)
        for name in one.files:
            assert one[name].tobytes() == other[name].tobytes(), (epoch, name)


def test_a_process_that_fails_says_why_through_the_one_that_started_it(tmp_path, rows_file):
    settings = SMALL | {"processes": 2, "batch_size": 3}
    message = r"of the 2 that train .*c failed: rqvae\.batch_size is 3 for 2 .*at least 4"
    with pytest.raises(SidmillError, match=message):
        train(rows_file(30), tmp_path / "c", **settings)
    assert not list((tmp_path / "c").glob(".scratch*"))
    check_rows(settings_of(**settings | {"batch_size": 4}), 30, 30, needs_kmeans=True)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(nearest_torch.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("auto", "cuda", "cuda:1"):
        with pytest.raises(SidmillError, match=r"processes to at most 2, or set .* to cpu"):
            distributed.check_devices(3, device)
        distributed.check_devices(2, device)
    distributed.check_devices(3, "cpu")


def test_vectors_of_another_model_are_refused_before_training(tmp_path, rows_file):
    np.save(tmp_path / "wide.npy", np.ones((40, DIM + 1), np.float32))
    with pytest.raises(SidmillError, match=r"wide\.npy has 13 dimensions, the items have 12"):
        train(rows_file(40), tmp_path / "c", data_paths=[str(tmp_path / "wide.npy")], **SMALL)
