"""OneRec checkpoints in and out, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sidmill import api
from sidmill.core.errors import SidmillError
from sidmill.formats import onerec_checkpoint, quantizer_file
from sidmill.quantize import pretrained
from sidmill.settings.quantize import Pretrained

SPACE = {"backend": "sentence_transformers", "dim": 4}


@pytest.fixture
def books(rng):
    return [rng.standard_normal((size, 4)).astype(np.float32) for size in (8, 6)]


def state(books):
    return {f"centroids.{level}": torch.from_numpy(book) for level, book in enumerate(books)}


def same(mine, theirs):
    return len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs))


def test_what_is_written_is_a_bare_state_dict_that_torch_loads(tmp_path, books):
    onerec_checkpoint.write(tmp_path / "model.pt", books)
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(loaded) == ["centroids.0", "centroids.1"]
    assert same([tensor.numpy() for tensor in loaded.values()], books)


def test_equal_codebooks_give_equal_bytes(tmp_path, books):
    for name in ("a.pt", "other.pt"):
        onerec_checkpoint.write(tmp_path / name, books)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "other.pt").read_bytes()


class Tokenizer(torch.nn.Module):
    """The published layout: a list of centroids as parameters."""

    def __init__(self, books):
        super().__init__()
        self.centroids = torch.nn.ParameterList(map(torch.from_numpy, books))


@pytest.mark.parametrize(
    "wrap", ["bare", "model", "state_dict", "module", "safetensors", "float16"]
)
def test_every_accepted_layout_is_read(tmp_path, books, wrap):
    path = tmp_path / ("m.safetensors" if wrap == "safetensors" else "m.pt")
    if wrap == "safetensors":
        save_file(state(books), path)
    elif wrap == "module":
        torch.save(Tokenizer(books).state_dict(), path)
    elif wrap == "float16":
        books = [book.astype(np.float16).astype(np.float32) for book in books]
        torch.save({name: tensor.half() for name, tensor in state(books).items()}, path)
    else:
        torch.save(state(books) if wrap == "bare" else {wrap: state(books), "epoch": 3}, path)
    assert same(onerec_checkpoint.read(path), books)


class Bomb:
    def __reduce__(self):
        return (open, ("/tmp/never", "w"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda books: Tokenizer(books), "pickled Python objects"),
        (lambda books: {"centroids.0": Bomb()}, "pickled Python objects"),
        (lambda books: {"weight": torch.ones(2, 2)}, "wanted centroids.0, .* found weight"),
        (lambda books: {"centroids.1": torch.ones(2, 2)}, "found centroids.1"),
        (lambda books: [torch.ones(2)], "found <class 'list'>"),
        (lambda books: {"centroids.0": torch.ones(2)}, r"centroids\.0 is torch.float32 \(2,\)"),
        (lambda books: {"centroids.0": torch.ones(2, 2, dtype=torch.int64)}, "int64"),
        (
            lambda books: {"centroids.0": torch.ones(2, 2), "centroids.1": torch.ones(2, 3)},
            r"centroids\.1 .* wanted float \(K, 2\)",
        ),
        (lambda books: {"centroids.0": torch.full((2, 2), torch.nan)}, "NaN"),
    ],
)
def test_other_checkpoints_are_refused_with_the_reason(tmp_path, books, content, message):
    torch.save(content(books), tmp_path / "m.pt")
    with pytest.raises(SidmillError, match=message):
        onerec_checkpoint.read(tmp_path / "m.pt")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut short", pickle.dumps([1, 2])])
def test_damaged_files_are_refused(tmp_path, data):
    for name in ("m.pt", "m.safetensors"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SidmillError, match=r"m\.(pt|safetensors): "):
            onerec_checkpoint.read(tmp_path / name)


def load(path, n_levels=None, dim=4, fingerprint=SPACE):
    settings = Pretrained(path=str(path), n_levels=n_levels)
    return pretrained.load(settings, dim=dim, fingerprint=fingerprint)


def test_a_checkpoint_becomes_a_quantizer_of_these_embeddings(tmp_path, books):
    onerec_checkpoint.write(tmp_path / "m.pt", books)
    assert load(tmp_path / "m.pt").fingerprint == SPACE
    assert same(load(tmp_path / "m.pt", n_levels=1).codebooks, books[:1])


def test_a_quantizer_of_another_run_keeps_its_own_facts(tmp_path, books):
    fitted = quantizer_file.Quantizer("rqkmeans", books, {"seed": 1}, SPACE)
    quantizer_file.write(tmp_path / "q.safetensors", fitted)
    assert load(tmp_path / "q.safetensors")[2:] == fitted[2:]
    with pytest.raises(SidmillError, match="was trained on other embeddings"):
        load(tmp_path / "q.safetensors", fingerprint={"backend": "other"})


def test_a_checkpoint_cannot_belong_to_a_space_that_is_fitted_anew(tmp_path, books):
    onerec_checkpoint.write(tmp_path / "m.pt", books)
    with pytest.raises(SidmillError, match="LSA, which is fitted again to each catalogue"):
        load(tmp_path / "m.pt", fingerprint={"backend": "lsa", "dim": 4})


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"n_levels": 3}, "has 2 levels"), ({"dim": 5}, "on 4 dimensions, the embeddings have 5")],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, books, settings, message):
    onerec_checkpoint.write(tmp_path / "m.pt", books)
    with pytest.raises(SidmillError, match=message):
        load(tmp_path / "m.pt", **settings)


def test_python_interface_takes_numpy_and_torch(tmp_path, rng):
    vectors = rng.standard_normal((200, 8)).astype(np.float32)
    fitted = api.fit(torch.from_numpy(vectors), n_levels=2, codebook_size=[8, 4])
    codes = api.encode(fitted, vectors)
    np.testing.assert_array_equal(codes, api.encode(fitted, torch.from_numpy(vectors)))
    for name in ("q.safetensors", "q.pt"):
        api.save(tmp_path / name, fitted)
        np.testing.assert_array_equal(api.encode(api.load(tmp_path / name), vectors), codes)
    words = fitted.codebooks
    np.testing.assert_allclose(
        api.decode(fitted, codes), words[0][codes[:, 0]] + words[1][codes[:, 1]], rtol=1e-6
    )
    assert api.encode(fitted, vectors[:0]).shape == (0, 2)


def test_the_example_in_the_docstring_is_true():
    import doctest

    results = doctest.testmod(api)
    assert results.attempted > 4
    assert results.failed == 0
