"""Embedding on the device: the vectors of the CPU in every way that a batch can be computed."""

import logging
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from gpu_device import DEVICE, IS_GPU, gpu

from sidmill.settings.embedding import Embedding

pytestmark = gpu

ATOL = 1e-5 if DEVICE == "cpu" else 1e-4  # of unit vectors; attention on CUDA rounds otherwise
TEXTS = [
    "hex bolt",
    "nitrile gloves, powder free, box of one hundred, blue",
    "x",
    "digital caliper with a large display " * 5,
    "哪个网站有湖南卫视直播",
    "",
] * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import tiny_qwen3

    return tiny_qwen3.build(tmp_path_factory.mktemp("models") / "tiny")


def load(model, **changes):
    from sidmill.embed.backends import sentence_transformers

    options = {"dim": None, "batch_tokens": 256, "max_length": 48, "dtype": "float32"}
    return sentence_transformers.load(
        Embedding(
            backend="sentence_transformers",
            model=str(model),
            **{"device": DEVICE, **options, **changes},
        )
    )


def encode(encoder, texts=TEXTS):
    return encoder.encode(list(texts), lambda count: None)


@pytest.fixture(scope="module")
def on_cpu(model):
    return encode(load(model, device="cpu"))


@pytest.mark.parametrize("attention", ["auto", "sdpa", "eager"])
def test_float32_is_as_on_the_cpu(model, on_cpu, attention):
    np.testing.assert_allclose(encode(load(model, attention=attention)), on_cpu, atol=ATOL)


def test_the_second_process_has_the_second_gpu(model, on_cpu):
    from sidmill.embed.backend import DEFAULT_RUN
    from sidmill.embed.backends import sentence_transformers

    if DEVICE == "cpu" or torch.cuda.device_count() < 2:
        pytest.skip("needs two devices, on CUDA alone")
    settings = Embedding(
        backend="sentence_transformers", model=str(model), dim=None, batch_tokens=256,
        max_length=48, dtype="float32", device=DEVICE,
    )  # fmt: skip
    encoder = sentence_transformers.load(settings, DEFAULT_RUN._replace(process=1))
    np.testing.assert_allclose(encode(encoder), on_cpu, atol=ATOL)


def test_chunks_follow_each_other_while_the_device_computes(model, on_cpu):
    """The vectors of a chunk are taken while the first batch of the next one is computed."""
    chunks = [list(TEXTS), [], list(TEXTS[:5]), list(TEXTS)]
    encoded = list(load(model).stream(iter(chunks), lambda count: None))
    for texts, one in zip(chunks, encoded, strict=True):
        np.testing.assert_allclose(one.vectors, on_cpu[: len(texts)], atol=ATOL)
        assert one.work.texts == len(texts)


def test_a_whole_chunk_is_given_before_an_error_of_the_next(model, on_cpu, monkeypatch):
    from sidmill.embed.backends import sentence_transformers

    whole, seen = sentence_transformers._vectors, []

    def vectors(reader, batch, dim):
        seen.append(batch)
        if batch.texts.texts[0] == "broken":
            raise ValueError("broken")
        return whole(reader, batch, dim)

    monkeypatch.setattr(sentence_transformers, "_vectors", vectors)
    stream = load(model).stream(iter([list(TEXTS), ["broken"]]), lambda count: None)
    np.testing.assert_allclose(next(stream).vectors, on_cpu, atol=ATOL)
    with pytest.raises(ValueError, match="broken"):
        next(stream)


def test_batches_of_another_size_move_the_last_bits_alone(model, on_cpu):
    np.testing.assert_allclose(encode(load(model, batch_tokens=None)), on_cpu, atol=ATOL)


def test_bfloat16_is_near(model, on_cpu):
    encoder = load(model, dtype="bfloat16")
    assert (encode(encoder) * on_cpu).sum(axis=1).min() > 0.99  # a tiny model of large weights
    assert encoder.check(TEXTS) > 0.99


def test_packed_batches_are_near(model, on_cpu):
    if not IS_GPU or find_spec("flash_attn") is None:
        pytest.skip("needs the wheel flash-attn, on CUDA")
    encoder = load(model, dtype="bfloat16", attention="flash_attention_2")
    assert (encode(encoder) * on_cpu).sum(axis=1).min() > 0.99


def test_compiled_is_as_on_the_cpu(model, on_cpu, monkeypatch):
    if not IS_GPU:  # the compiler itself takes minutes there
        monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: None)
    some = TEXTS[1:3] * 4  # few shapes, each of which is compiled
    found = encode(load(model, compiled=True), some)
    np.testing.assert_allclose(found, np.tile(on_cpu[1:3], (4, 1)), atol=ATOL)


def test_out_of_memory_halves_batches(model, on_cpu, monkeypatch, caplog):
    from sidmill.embed.backends import sentence_transformers

    whole = sentence_transformers._vectors

    def vectors(reader, batch, dim):
        if batch.features["input_ids"].numel() > 100:
            raise torch.OutOfMemoryError
        return whole(reader, batch, dim)

    monkeypatch.setattr(sentence_transformers, "_vectors", vectors)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(encode(load(model)), on_cpu, atol=ATOL)
    assert "out of memory: batches of at most" in caplog.text


def test_a_batch_that_really_does_not_fit_is_halved(model, on_cpu):
    """The allocator itself refuses: all but a little of the memory is taken away from it."""
    if not IS_GPU:
        pytest.skip("a limit of memory per process exists on CUDA alone")
    encoder = load(model, batch_tokens=10**6, max_length=512)
    long = ["digital caliper with a large display " * 60] * 400
    wanted = encode(encoder, long[:1])
    total = torch.cuda.get_device_properties(0).total_memory
    used = torch.cuda.memory_allocated()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((used + 96 * 2**20) / total)
    try:
        found = encode(encoder, long)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(found, np.repeat(wanted, len(long), axis=0), atol=ATOL)


def test_a_token_costs_what_the_configuration_says(model):
    cost = load(model).cost()
    assert cost.linear_weights > 0
    assert cost.matmul_rate > 1e8
