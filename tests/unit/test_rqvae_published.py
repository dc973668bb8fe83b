"""RQ-VAE checkpoints of LC-Rec and MiniOneRec: the codes of their own inference, and refusals."""

import argparse
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file
from torch import nn

from sidmill import api
from sidmill.core.errors import SidmillError
from sidmill.formats import foreign_tokenizers, onerec_checkpoint, quantizer_file
from sidmill.io import state_dict
from sidmill.quantize import pretrained
from sidmill.report import inspect
from sidmill.settings.quantize import Pretrained

DIM, LATENT, SIZES = 10, 4, [6, 5, 7]
SPACE = {"backend": "sentence_transformers", "dim": DIM}


class Mlp(nn.Module):
    """A module with the published names: dropout, linear, batch norm, activation."""

    def __init__(self, widths, batch_norm):
        super().__init__()
        parts = []
        for number, (one, other) in enumerate(pairwise(widths)):
            inner = number + 2 < len(widths)
            parts += [nn.Dropout(0.1), nn.Linear(one, other)]
            parts += [nn.BatchNorm1d(other)] if inner and batch_norm else []
            parts += [nn.ReLU()] if inner else []
        self.mlp_layers = nn.Sequential(*parts)


class Level(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.embedding = nn.Embedding(size, LATENT)


class Levels(nn.Module):
    def __init__(self):
        super().__init__()
        self.vq_layers = nn.ModuleList(map(Level, SIZES))


class Model(nn.Module):
    """The published layout; the forward pass is written out in ``greedy`` below."""

    def __init__(self, batch_norm=False):
        super().__init__()
        self.encoder = Mlp([DIM, 8, 9, LATENT], batch_norm)
        self.rq = Levels()
        self.decoder = Mlp([LATENT, 9, 8, DIM], batch_norm)


def made(batch_norm=False, seed=0):
    torch.manual_seed(seed)
    model = Model(batch_norm)
    if batch_norm:  # statistics that are not those of a fresh layer
        model.train()
        for _ in range(5):
            model.decoder.mlp_layers(model.encoder.mlp_layers(3 * torch.randn(64, DIM) + 1))
        for part in model.modules():
            if isinstance(part, nn.BatchNorm1d):
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    model.eval()
    left = model.encoder.mlp_layers(torch.randn(500, DIM)).detach()
    for number, (level, size) in enumerate(zip(model.rq.vq_layers, SIZES, strict=True)):
        words = left[100 * number :][:size].clone()  # where latents are
        level.embedding.weight.data = words
        left = left - words[torch.cdist(left, words).argmin(dim=1)]
    return model


@torch.no_grad()
def greedy(model, vectors):
    """Codes and reconstruction of their inference: the nearest codeword, level by level."""
    left = latents = model.encoder.mlp_layers(torch.from_numpy(vectors))
    codes = []
    for level in model.rq.vq_layers:
        words = level.embedding.weight
        squares = left.square().sum(1, keepdim=True) + words.square().sum(1) - 2 * left @ words.T
        codes.append(squares.argmin(dim=1))
        left = left - words[codes[-1]]
    return torch.stack(codes, 1).numpy(), model.decoder.mlp_layers(latents - left).numpy()


@pytest.fixture
def vectors(rng):
    return rng.standard_normal((500, DIM)).astype(np.float32)


def as_trained(model):
    """What their training saves, but for ``args``."""
    optimizer = torch.optim.AdamW(model.parameters())
    sum(part.sum() for part in model.parameters()).backward()
    optimizer.step()
    return {
        "epoch": 3,
        "best_loss": 0.5,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def compiled(model):
    return {f"module._orig_mod.{name}": part for name, part in model.state_dict().items()}


WAYS = {
    "bare": lambda model: model.state_dict(),
    "as trained": as_trained,
    "model": lambda model: {"model": model.state_dict(), "epoch": 1},
    "model_state_dict": lambda model: {"model_state_dict": model.state_dict()},
    "nested": lambda model: {"model": {"state_dict": model.state_dict()}},
    "ddp": lambda model: {f"module.{name}": part for name, part in model.state_dict().items()},
    "ddp, compiled": lambda model: {"state_dict": compiled(model)},
    "buffers of training": lambda model: (
        model.state_dict() | {"rq.vq_layers.0.initted": torch.tensor(True)}
    ),
}


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_codes_are_those_of_their_own_inference(tmp_path, vectors, way, batch_norm):
    model = made(batch_norm)
    torch.save(WAYS[way](model), tmp_path / "best_collision_model.pth")
    codes, decoded = greedy(model, vectors)
    loaded = api.load(tmp_path / "best_collision_model.pth")
    assert loaded.dim == DIM
    np.testing.assert_array_equal(api.encode(loaded, vectors), codes)
    np.testing.assert_allclose(api.decode(loaded, codes), decoded, atol=1e-4)
    assert len(np.unique(codes, axis=0)) > 50  # the codes say something


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, "safetensors"])
def test_other_numbers_and_safetensors(tmp_path, vectors, kind):
    model = made()
    path = tmp_path / ("m.safetensors" if kind == "safetensors" else "m.pth")
    if kind == "safetensors":
        save_file(model.state_dict(), path)
    else:
        model = model.to(kind)
        torch.save(model.state_dict(), path)
    codes, _ = greedy(model.float(), vectors)
    np.testing.assert_array_equal(api.encode(api.load(path), vectors), codes)


@pytest.mark.parametrize("wrap", ["ddp", "ddp in state_dict", "model_state_dict", "nested"])
def test_wrapped_checkpoints_of_onerec(tmp_path, rng, wrap):
    books = [rng.standard_normal((size, 4)).astype(np.float32) for size in (8, 6)]
    state = {f"centroids.{level}": torch.from_numpy(book) for level, book in enumerate(books)}
    ddp = {f"module.{name}": part for name, part in state.items()}
    content = {
        "ddp": ddp,
        "ddp in state_dict": {"state_dict": ddp},
        "model_state_dict": {"model_state_dict": state},
        "nested": {"model": {"state_dict": ddp}},
    }[wrap]
    torch.save(content, tmp_path / "m.pt")
    for found in (
        onerec_checkpoint.read(tmp_path / "m.pt"),
        foreign_tokenizers.read(tmp_path / "m.pt").codebooks,
    ):
        assert all(map(np.array_equal, found, books))


class Odd:
    """Any class of theirs."""


CONTENTS = {  # what torch.load with weights_only refuses
    "args": lambda model: as_trained(model) | {"args": argparse.Namespace(lr=1e-3, model="x")},
    "args beside": lambda model: model.state_dict() | {"args": argparse.Namespace(lr=1e-3)},
    "model and args": lambda model: {"model": model.state_dict(), "args": Odd()},
    "args within": lambda model: {"model": as_trained(model) | {"args": Odd()}},
    "args beside ddp": lambda model: {"module": compiled(model), "args": Odd()},
    "a whole model in a module": lambda model: {"module": model},
    "a whole model": lambda model: model,
    "a whole model within": lambda model: {"model": model, "epoch": 2},
}


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "legacy"])
@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_with_objects_is_refused_with_lines_that_convert_it(
    tmp_path, vectors, content, archive
):
    model = made(batch_norm=True)
    path = tmp_path / "it's best.pth"
    (tmp_path / "it's best.tensors.pt").write_text("the user's own")
    torch.save(CONTENTS[content](model), path, _use_new_zipfile_serialization=archive)
    with pytest.raises(SidmillError, match="holds pickled Python objects") as refused:
        api.load(path)
    message, *lines = str(refused.value).splitlines()
    assert len(lines) == 2
    if content == "args":
        assert "(argparse.Namespace)" in message
    exec("\n".join(lines), {})
    assert (tmp_path / "it's best.tensors.pt").read_text() == "the user's own"
    target = re.search(r"[^ ]*\.tensors1\.pt", str(next(tmp_path.glob("*.tensors1.pt"))))
    assert target
    loaded = api.load(next(tmp_path.glob("*.tensors1.pt")))
    np.testing.assert_array_equal(api.encode(loaded, vectors), greedy(model, vectors)[0])


def test_no_code_runs_while_a_file_is_refused(tmp_path):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": {}, "args": Touch()}, tmp_path / "m.pth")
    with pytest.raises(SidmillError, match="two lines of Python"):
        api.load(tmp_path / "m.pth")
    assert not (tmp_path / "ran").exists()


def changed(**parts):
    """The state dict with entries replaced, or left out where None."""
    state = made(batch_norm=True).state_dict()
    for name, part in parts.items():
        name = name.replace("__", ".")
        if part is None:
            state = {key: one for key, one in state.items() if not key.startswith(name)}
        else:
            state[name] = part
    return state


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"rq__vq_layers__1": None}, r"found levels \[0, 2\]"),
        ({"encoder": None}, r"wanted encoder\.mlp_layers"),
        ({"decoder": None}, r"wanted decoder\.mlp_layers"),
        ({"encoder__mlp_layers__1__bias": None}, r"encoder\.mlp_layers\.1 has weight \(8, 10\)"),
        ({"encoder__mlp_layers__5": None}, r"encoder\.mlp_layers\.6 has .*running_mean"),
        ({"encoder__mlp_layers__2__running_var": None}, r"encoder\.mlp_layers\.2 has"),
        ({"encoder__mlp_layers__1__weight": torch.ones(8)}, r"neither a linear layer"),
        ({"encoder__mlp_layers__1__bias": torch.ones(7)}, r"neither a linear layer"),
        ({"encoder__mlp_layers__2__bias": torch.ones(7)}, r"neither a linear layer"),
        ({"encoder__mlp_layers__5__weight": torch.ones(9, 7)}, r"gives 8 dimensions.*takes 7"),
        ({"decoder__mlp_layers__9__weight": torch.ones(11, 8)}, r"neither a linear layer"),
        ({"rq__vq_layers__1__embedding__weight": torch.ones(5, 3)}, r"\(5, 3\), wanted \(K, 4\)"),
        ({"rq__vq_layers__1__embedding__weight": torch.ones(5)}, r"\(5,\), wanted \(K, 4\)"),
        ({"encoder__mlp_layers__1__bias": torch.full((8,), torch.nan)}, "NaN or an infinity"),
        (
            {"encoder__mlp_layers__1__bias": torch.full((8,), 1e300, dtype=torch.float64)},
            "NaN or an infinity",
        ),
        ({"projector__weight": torch.ones(2)}, r"has no projector\.weight, so its codes"),
    ],
)
def test_what_is_not_such_an_rqvae_is_refused_by_name(tmp_path, parts, message):
    torch.save(changed(**parts), tmp_path / "m.pth")
    with pytest.raises(SidmillError, match=message) as refused:
        api.load(tmp_path / "m.pth")
    assert str(tmp_path / "m.pth") in str(refused.value)


def test_a_state_dict_without_the_unknown_tensor_is_read(tmp_path):
    torch.save(changed(projector__weight=None), tmp_path / "m.pth")
    assert api.load(tmp_path / "m.pth").codebook_sizes == SIZES


def test_at_most_twenty_names_are_listed(tmp_path):
    torch.save({f"layer.{n}": torch.ones(1) for n in range(50)}, tmp_path / "m.pth")
    with pytest.raises(SidmillError, match=r"layer\.19 and 30 more") as refused:
        api.load(tmp_path / "m.pth")
    assert "layer.20," not in str(refused.value)
    assert state_dict.names_of({}) == "no tensor"


def test_it_becomes_the_quantizer_of_a_run(tmp_path, vectors):
    model = made()
    torch.save(model.state_dict(), tmp_path / "m.pth")

    def load(n_levels=None, dim=DIM, fingerprint=SPACE):
        settings = Pretrained(path=str(tmp_path / "m.pth"), n_levels=n_levels)
        return pretrained.load(settings, dim=dim, fingerprint=fingerprint)

    loaded = load(n_levels=2)
    assert loaded.fingerprint == SPACE
    quantizer_file.write(tmp_path / "q.safetensors", loaded)
    found = api.encode(quantizer_file.read(tmp_path / "q.safetensors"), vectors)
    np.testing.assert_array_equal(found, greedy(model, vectors)[0][:, :2])
    with pytest.raises(SidmillError, match="has 3 levels"):
        load(n_levels=4)
    with pytest.raises(SidmillError, match="on 10 dimensions, the embeddings have 9"):
        load(dim=9)
    with pytest.raises(SidmillError, match="LSA, which is fitted again to each catalogue"):
        load(fingerprint={"backend": "lsa"})


def test_the_commands_take_it(tmp_path, vectors):
    model = made()
    torch.save(as_trained(model), tmp_path / "m.pth")
    np.save(tmp_path / "v.npy", vectors)
    common = ["--quantizer", tmp_path / "m.pth", "--vectors", tmp_path / "v.npy"]
    for command in (
        ["encode", *common, "--out", tmp_path / "codes.parquet"],
        ["evaluate", *common, "--neighbour-queries", "20"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "sidmill", *command],
            env={"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert "6 x 5 x 7 codes, on 500 x 10 vectors" in done.stdout
    found = pq.read_table(tmp_path / "codes.parquet")["codes"].to_pylist()
    np.testing.assert_array_equal(found, greedy(model, vectors)[0])


@pytest.mark.parametrize("name", ["m.pth", "m.pt", "m.safetensors"])
def test_inspect_names_it(tmp_path, name):
    state = made().state_dict()
    save_file(state, tmp_path / name) if "safe" in name else torch.save(state, tmp_path / name)
    described = inspect.describe(str(tmp_path / name), 2, False)
    assert described.kind == "RQ-VAE checkpoint of LC-Rec"
    assert described.facts["codebooks"] == [[size, LATENT] for size in SIZES]
