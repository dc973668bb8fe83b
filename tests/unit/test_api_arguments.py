"""The Python interface takes what the configuration takes, and says what is wrong in its words."""

import numpy as np
import pytest
import torch

from sidmill import api
from sidmill.core.errors import SidmillError
from sidmill.settings import base, check
from sidmill.settings.config import Config

GOOD = {"n_levels": 2, "codebook_size": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def quantizer(vectors):
    return api.fit(vectors, **GOOD)


BAD = {
    "n_levels": [0, -1, 27, 2.0, "2", True, None],
    "codebook_size": [0, -4, 2**21, [], [4, 0], [4, 4.0], "4", True, None, np.float64(4)],
    "n_iter": [0, -1, 1.5, None, False],
    "tolerance": [-0.1, 1, 2, "0", float("nan"), None],
    "max_points_per_centroid": [0, -1, 2.5, "all"],
    "balance": ["cap", "", None, True, "Capacity"],
    "max_load": [1, 0.5, 0, -2, float("inf"), float("nan"), None, "1.5"],
    "seed": [-1, 2**32, 1.0, None, "7"],
    "device": ["gpu", "", "cuda:x", "cpu,cuda", None, 0],
    "memory_mb": [0, 15, -1, 64.0, None, "64"],
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_schema_refuses_fit_refuses(name, vectors):
    for value in BAD[name]:
        with pytest.raises(SidmillError, match=rf"arguments of sidmill\.api\.fit:\n  {name}[:.]"):
            api.fit(vectors, **GOOD | {name: value})
        # and so does the workflow, by the same rule
        schema = base.schema(Config)
        section = schema["properties"]["run" if name == "seed" else "rqkmeans"]["properties"]
        plain = value.item() if isinstance(value, np.generic) else value
        assert list(check.Validator(section[name]).iter_errors(plain))


@pytest.mark.parametrize("name", ["device", "memory_mb"])
def test_encode_refuses_it_too(name, vectors, quantizer, tmp_path):
    np.save(tmp_path / "v.npy", vectors)
    for value in BAD[name]:
        with pytest.raises(SidmillError, match=rf"api\.encode:\n  {name}: found"):
            api.encode(quantizer, vectors, **{name: value})
        with pytest.raises(SidmillError, match=rf"api\.encode_file:\n  {name}: found"):
            api.encode_file(quantizer, tmp_path / "v.npy", tmp_path / "c", **{name: value})
    assert not (tmp_path / "c").exists()


def test_all_mistakes_are_listed_at_once(vectors):
    with pytest.raises(SidmillError, match="3 problem"):
        api.fit(vectors, **GOOD | {"balance": "capazity", "max_load": 0.5, "seed": -1})


@pytest.mark.parametrize(
    "settings",
    [
        {"codebook_size": (4, 4)},
        {"codebook_size": np.array([4, 4])},
        {"codebook_size": np.int64(4), "n_levels": np.int32(2), "seed": np.uint8(42)},
        {"tolerance": np.float32(0.0004), "max_load": np.float64(1.5)},
    ],
)
def test_numbers_of_numpy_are_numbers(settings, vectors, quantizer):
    fitted = api.fit(vectors, **GOOD | settings)
    np.testing.assert_array_equal(api.encode(fitted, vectors), api.encode(quantizer, vectors))


def kinds(vectors):
    """The same values, exact in every type, in many forms."""
    half = vectors.astype(np.float16)
    tensor = torch.from_numpy(half.astype(np.float32))
    return {
        "float32": half.astype(np.float32),
        "float16": half,
        "float64": half.astype(np.float64),
        "longdouble": half.astype(np.longdouble),
        "big-endian": half.astype(">f4"),
        "Fortran order": np.asfortranarray(half.astype(np.float32)),
        "every other row": np.repeat(half.astype(np.float32), 2, axis=0)[::2],
        "read-only": np.frombuffer(half.astype(np.float32).tobytes(), "f4").reshape(half.shape),
        "tensor": tensor,
        "tensor float64": tensor.double(),
        "tensor float16": tensor.half(),
        "tensor with gradient": tensor.clone().requires_grad_(),
        "tensor turned": tensor.T.contiguous().T,
        "parameter": torch.nn.Parameter(tensor),
    }


@pytest.mark.parametrize("name", kinds(np.zeros((1, 1))))
def test_floats_of_every_kind_give_the_same_codes(name, vectors, quantizer):
    given = kinds(vectors)
    wanted = api.encode(quantizer, given["float32"])
    np.testing.assert_array_equal(api.encode(quantizer, given[name]), wanted)
    fitted = api.fit(given[name], **GOOD)
    for ours, theirs in zip(
        fitted.codebooks, api.fit(given["float32"], **GOOD).codebooks, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_floats_that_numpy_lacks_count_as_float32(vectors, quantizer):
    for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        tensor = torch.from_numpy(vectors).to(dtype)
        wanted = api.encode(quantizer, tensor.float())
        np.testing.assert_array_equal(api.encode(quantizer, tensor), wanted)


REFUSED = {
    "list": lambda v: v.tolist(),
    "none": lambda v: None,
    "integers": lambda v: v.astype(np.int64),
    "integer tensor": lambda v: torch.from_numpy(v).long(),
    "booleans": lambda v: v > 0,
    "complex": lambda v: v.astype(np.complex64),
    "complex tensor": lambda v: torch.from_numpy(v).to(torch.complex64),
    "objects": lambda v: v.astype(object),
    "strings": lambda v: v.astype(str),
    "one axis": lambda v: v[0],
    "three axes": lambda v: v[None],
    "no axis": lambda v: np.float32(1) + np.zeros((), np.float32),
    "no dimensions": lambda v: v[:, :0],
    "masked": lambda v: np.ma.masked_array(v, mask=v > 1),
    "sparse tensor": lambda v: torch.from_numpy(v).to_sparse(),
    "beyond float32": lambda v: v.astype(np.float64) * 1e300,
    "tensor beyond float32": lambda v: torch.from_numpy(v).double() * 1e300,
}


@pytest.mark.filterwarnings("ignore:Casting complex")
@pytest.mark.parametrize("name", REFUSED)
def test_other_kinds_are_refused_with_a_message(name, vectors, quantizer):
    given = REFUSED[name](vectors)
    for call in (lambda: api.fit(given, **GOOD), lambda: api.encode(quantizer, given)):
        with pytest.raises(SidmillError, match=r"vectors are .*(convert|divide)"):
            call()


@pytest.mark.parametrize("kind", [float, bool, complex, str, object])
def test_codes_are_integers(kind, quantizer):
    with pytest.raises(SidmillError, match="wanted integers"):
        api.decode(quantizer, np.zeros((3, 2)).astype(kind))


def test_codes_of_every_integer_type_decode_alike(vectors, quantizer):
    codes = api.encode(quantizer, vectors)
    wanted = api.decode(quantizer, codes)
    for given in (
        codes.astype(np.uint8),
        codes.astype(np.int64),
        torch.from_numpy(codes),
        codes.tolist(),
    ):
        np.testing.assert_array_equal(api.decode(quantizer, given), wanted)


@pytest.fixture(scope="module")
def shared(quantizer, vectors):
    """Codes of which some are shared: two levels of four codes for 16 rows, two of them twice."""
    rows = np.concatenate([vectors[:10], vectors[:2]])
    return rows, api.encode(quantizer, rows)


@pytest.mark.parametrize("strategy", ["reassign", "sinkhorn"])
def test_sids_are_unique_and_most_stay_as_the_codes(strategy, quantizer, shared):
    rows, codes = shared
    sids = api.resolve(quantizer, rows, codes, strategy=strategy)
    assert len(np.unique(codes, axis=0)) < len(rows) == len(np.unique(sids, axis=0))
    assert sids.dtype == np.int32
    np.testing.assert_array_equal(
        sids, api.resolve(quantizer, torch.from_numpy(rows), codes, strategy=strategy)
    )
    # Items that share their code with none keep it, with the strategy that moves the fewest.
    _, inverse, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    if strategy == "reassign":
        kept = (sids == codes).all(axis=1)
        assert kept[counts[inverse.ravel()] == 1].all()
        assert kept.sum() == len(counts)


def test_other_strategies_number_the_items_of_a_code_or_do_nothing(quantizer, shared):
    rows, codes = shared
    np.testing.assert_array_equal(api.resolve(quantizer, rows, codes, strategy="none"), codes)
    sids = api.resolve(quantizer, rows, codes, strategy="suffix")
    np.testing.assert_array_equal(sids[:, :2], codes)
    assert len(np.unique(sids, axis=0)) == len(rows)
    # The first item of a code has number 0.
    firsts = np.unique(codes, axis=0, return_index=True)[1]
    assert set(sids[firsts, 2]) == {0}


def test_sids_of_codes_that_are_not_of_these_vectors_are_refused(quantizer, shared, tmp_path):
    rows, codes = shared
    for wrong, message in (
        (codes[:-1], r"codes are int32 \(11, 2\), wanted integers \(12, 2\)"),
        (codes.astype(float), "codes are float64"),
        (codes + 4, "codes of level 1 lie between"),
    ):
        with pytest.raises(SidmillError, match=message):
            api.resolve(quantizer, rows, wrong)
    with pytest.raises(SidmillError, match=r"api\.resolve:\n  strategy"):
        api.resolve(quantizer, rows, codes, strategy="hope")
    np.save(tmp_path / "v.npy", np.random.default_rng(1).standard_normal((17, 5)).astype("f4"))
    many = np.load(tmp_path / "v.npy", mmap_mode="r")
    with pytest.raises(SidmillError, match="17"):  # 16 SIDs
        api.resolve(quantizer, many, api.encode(quantizer, many))


@pytest.mark.parametrize("strategy", ["reassign", "sinkhorn", "suffix", "none"])
def test_what_encode_takes_and_refuses_resolve_does_too(strategy, quantizer, shared):
    rows, codes = shared
    for wrong in (rows[:, :3], np.hstack([rows, rows])):
        with pytest.raises(SidmillError, match="do not fit a quantizer of dimension 5"):
            api.resolve(quantizer, wrong, codes, strategy=strategy)
    n_tokens = 2 + (strategy == "suffix")
    empty = api.resolve(quantizer, rows[:0], codes[:0], strategy=strategy)
    assert (empty.shape, empty.dtype) == ((0, n_tokens), np.int32)
    np.testing.assert_array_equal(
        api.resolve(quantizer, rows, torch.from_numpy(codes), strategy=strategy),
        api.resolve(quantizer, rows, codes, strategy=strategy),
    )
