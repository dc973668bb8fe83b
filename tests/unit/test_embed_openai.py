"""An OpenAI-compatible server with faults: each vector at its text, or a message; nothing told."""

import logging
import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import numpy as np
import pyarrow as pa
import pytest
from embedding_server import FAULTS, INDEXES, SHAPES, WIDTH, serving, vector

from sidmill.core.errors import SidmillError
from sidmill.embed import retry, shard
from sidmill.embed.backend import Run
from sidmill.embed.backends import openai
from sidmill.formats import embedding_shards, item_text
from sidmill.io import json_report
from sidmill.settings import base, registry
from sidmill.settings.embedding import Embedding, Openai

KEY = "sk-very-secret-word"
TEXTS = [f"text number {n}" for n in range(50)]
PLAIN = {"backend": "openai", "model": "m", "dim": None, "normalize": False}
ASKED = {"requests": 4, "texts_per_request": 7, "timeout_s": 5.0, "retries": 3, "wait_s": 0.01}


def load(**changes):
    """Load the backend; changes are of the embedding and of the section openai."""
    of_server = {key: changes.pop(key) for key in {*base.defaults(Openai)} & {*changes}}
    return openai.load(Embedding(**PLAIN | changes), Run(Openai(**ASKED | of_server)))


@pytest.fixture
def server(monkeypatch):
    with serving() as server:
        address = f"http://127.0.0.1:{server.server_port}/tenant-secret/v1"
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield server


def encode(texts=TEXTS, **changes):
    loaded = load(**changes)
    done = []
    found = next(loaded.stream(iter([list(texts)]), done.append))
    assert sum(done) == len(texts)
    return found, loaded.fingerprint


def expected(texts=TEXTS):
    return np.array([vector(line) for line in texts], np.float32)


def test_every_text_gets_its_vector_in_few_bounded_requests(server):
    found, facts = encode()
    np.testing.assert_array_equal(found.vectors, expected())
    assert found.work.texts == 50
    assert found.work.tokens == 150
    assert len(server.asked) == 1 + 8
    assert server.most <= 4
    _, path, headers, body = server.asked[1]
    assert path == "/tenant-secret/v1/embeddings"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["encoding_format"]) == ("m", "float")
    assert facts == {
        "backend": "openai",
        "model": "m",
        "revision": None,
        "pooling": "",
        "prompt": "",
        "normalize": False,
        "dim": WIDTH,
        "dtype": "",
        "max_length": None,
    }


@pytest.mark.parametrize(
    "fault",
    ["cut", "torn", "half", *sorted({*FAULTS} - {*SHAPES} - {*INDEXES})]
    + [(status, {}) for status in (408, 409, 425, 429, 500, 503)],
    ids=str,
)
def test_a_fault_that_passes_changes_nothing(server, fault, caplog):
    server.faults = ["permuted", fault, None, fault]
    timeout = 0.3 if fault == "slow" else 5.0
    found, _ = encode(timeout_s=timeout)
    np.testing.assert_array_equal(found.vectors, expected())
    assert ("try 1 of 4" in caplog.text) == (fault != "permuted")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ("x", 0),
        ([1], 0),
        (None, 0),
        (7, 0),
        ({}, 0),
        ({"prompt_tokens": "x"}, 0),
        ({"prompt_tokens": -1}, 0),
        ({"prompt_tokens": [4]}, 0),
        ({"prompt_tokens": float("inf")}, 0),
        ({"prompt_tokens": float("nan")}, 0),
        ({"prompt_tokens": 4.0}, 8 * 4),
    ],
    ids=str,
)
def test_usage_of_any_shape_costs_no_vector(server, monkeypatch, usage, tokens):
    monkeypatch.setitem(FAULTS, "usage", lambda rows, answer: answer.update(usage=usage))
    server.faults = ["usage"] * 8
    found, _ = encode(retries=0)
    np.testing.assert_array_equal(found.vectors, expected())
    assert found.work.tokens == tokens


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((500, {}), "failed 4 times, last with: 500"),
        ("count", "last with: 6 vectors, wanted those of 7 texts"),
        ("nan", "a NaN, a null or an infinity, first that of the text 'text number [07]"),
        ("null", "a NaN, a null or an infinity, first that of the text 'text number [07]"),
        ("busy", "rate limit"),
        ("cut", "failed 4 times, last with: "),
        ("half", "JSON is cut short"),
    ],
    ids=str,
)
def test_a_fault_that_stays_is_told(server, fault, message):
    server.faults = [fault] * 99
    with pytest.raises(SidmillError, match=message) as error:
        encode(texts=TEXTS[:21])
    assert "what is done is kept" in str(error.value) or "another request" in str(error.value)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"refuses the key \(401\): check OPENAI_API_KEY"),
        (403, r"refuses the key \(403\)"),
        (404, r"answers 404 .*check embedding\.model \(m\)"),
        (302, "answers 302"),
    ],
)
def test_what_no_second_try_helps_is_asked_once(server, status, message):
    server.faults = [(status, {"Location": "http://127.0.0.1:1/"})] * 99
    with pytest.raises(SidmillError, match=message):
        encode(texts=TEXTS[:5])
    assert len(server.asked) == 2


@pytest.mark.parametrize("fault", [*SHAPES, "page"])
def test_an_answer_of_another_shape_is_asked_for_once(server, fault):
    server.faults = [fault] * 99
    message = "no JSON .<html>" if fault == "page" else SHAPES[fault][1]
    with pytest.raises(SidmillError, match=message) as error:
        encode(texts=TEXTS[:5])
    assert len(server.asked) == 2
    assert "check that OPENAI_BASE_URL" in str(error.value)


def test_a_key_that_may_spend_no_more_is_not_tried_again(server):
    server.faults = ["spent"] * 99
    with pytest.raises(SidmillError, match="may spend is used up: raise it and run again"):
        encode(texts=TEXTS[:5])
    assert len(server.asked) == 2


@pytest.mark.parametrize("fault", INDEXES)
def test_every_way_to_number_vectors(server, fault):
    server.faults = [fault] * 8
    found, _ = encode(retries=0)
    np.testing.assert_array_equal(found.vectors, expected())


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("takes", [1, 10, 32])
def test_the_texts_that_a_server_takes_are_learnt(server, caplog, takes, status):
    server.takes, server.refuses = takes, status
    texts = [f"text {n}" for n in range(150)]
    found, _ = encode(texts, texts_per_request=64, requests=2, retries=0)
    np.testing.assert_array_equal(found.vectors, expected(texts))
    assert found.work.tokens == 3 * 150
    assert "openai.texts_per_request" in caplog.text
    # Learnt once: what is too much is not asked again and again.
    sizes = [len(body["input"]) for *_, body in server.asked]
    assert sum(size > takes for size in sizes) <= 2 * 3 * 7
    server.asked.clear()
    caplog.clear()
    encode(texts, texts_per_request=takes, requests=2, retries=0)  # the remedy
    assert "refuses" not in caplog.text


def test_a_text_that_is_too_long_is_shown(server):
    server.longest = 40
    texts = [*TEXTS[:20], "long " * 20, *TEXTS[20:]]
    with pytest.raises(
        SidmillError, match=r"answers 400 .* length of the text 'long long"
    ) as error:
        encode(texts)
    assert len(str(error.value)) < 600
    encode(TEXTS)


def test_a_query_prompt_goes_before_every_text(server):
    found, facts = encode(prompt="Instruct: find\nQuery:")
    np.testing.assert_array_equal(
        found.vectors, expected([f"Instruct: find\nQuery:{line}" for line in TEXTS])
    )
    assert facts["prompt"] == "Instruct: find\nQuery:"


@pytest.mark.parametrize("around", ["\n", " ", "\r\n", "\t", "\n\n"])
def test_white_space_around_key_and_address_is_no_part_of_them(server, monkeypatch, around):
    monkeypatch.setenv("OPENAI_API_KEY", f"{around}{KEY}{around}")
    address = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{around}{address}{around}")
    encode(retries=0)
    _, path, headers, _ = server.asked[1]
    assert (path, headers["Authorization"]) == ("/v1/embeddings", f"Bearer {KEY}")


def test_user_and_password_are_sent_where_there_is_no_key(server, monkeypatch):
    port = server.server_port
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://me:pass-word@127.0.0.1:{port}/v1")
    with pytest.raises(SidmillError, match="take user and password out of the address, or") as told:
        encode()
    assert server.asked == []
    assert not any(word in str(told.value) for word in (KEY, "pass-word"))
    monkeypatch.delenv("OPENAI_API_KEY")  # each of the two remedies
    encode()
    assert server.asked[-1][2]["Authorization"].startswith("Basic ")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    encode()
    assert server.asked[-1][2]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_holds_back_all_requests(server, form):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    server.faults = [(429, {"Retry-After": "1" if form == "seconds" else date})]
    encode(requests=1)
    refused, after = server.asked[1][0], server.asked[2][0]
    assert after - refused >= 0.99
    server.asked.clear()
    server.faults = [(429, {"Retry-After": "1"})]
    encode(requests=3)
    refused = server.asked[1][0]
    late = [moment for moment, *_ in server.asked if moment > refused + 0.3]
    assert min(late) - refused >= 0.99
    assert len(late) >= 5


def test_a_server_that_wants_a_day_is_left_alone(server):
    server.faults = [(429, {"Retry-After": "86400"})]
    with pytest.raises(SidmillError, match="left alone for 86400 s: run again after that"):
        encode(requests=1)


@pytest.mark.parametrize("told", ["soon", "", "nan", "Mon, 99 Foo"])
def test_a_retry_after_that_says_nothing_is_passed_over(told):
    assert retry.seconds_of(told) is None


def test_waits_grow(monkeypatch):
    waits = []
    retries = retry.Retries(4, 1.0)
    monkeypatch.setattr(retries._stopped, "wait", waits.append)

    def ask():
        raise retry.AgainError("no")

    with pytest.raises(SidmillError, match="failed 5 times, last with: no"):
        retries.call(ask)
    assert [0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits)] == [True] * 4


def test_the_host_stands_in_no_message(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://embeddings.internal:8443/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    wrong = "certificate is not valid for 'embeddings.internal', nor embeddings.internal:8443"

    def refuse(*arguments, **options):
        raise httpx2.ConnectError(wrong)

    monkeypatch.setattr(httpx2.Client, "post", refuse)
    with pytest.raises(SidmillError, match="certificate is not valid for '\\*") as error:
        encode(retries=0)
    assert "internal" not in str(error.value)


@pytest.mark.parametrize("fault", [(500, {}), (400, {}), (401, {}), "cut"], ids=str)
def test_no_secret_in_logs_messages_fingerprint_or_files(
    server, fault, tmp_path, caplog, monkeypatch
):
    caplog.set_level(logging.DEBUG)
    table = pa.table({"pid": pa.array(range(50), pa.int64()), "text": TEXTS})
    item_text.write(tmp_path / "text.parquet", pa.int64(), [table])
    server.faults = [fault, fault]
    told = []
    for _ in range(3):
        try:
            embed(tmp_path)
        except SidmillError as error:
            told.append(str(error))
    assert (tmp_path / "e/part.parquet").exists()
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("sidmill")]
    messages += [r.getMessage() for r in caplog.records if r.levelno >= logging.INFO]
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    for secret in (KEY, "tenant-secret"):
        assert secret not in " ".join([*told, *messages])
        assert not any(secret.encode() in content for content in written)


def embed(folder, **changes):
    names = ("text.parquet", "e/part.parquet", "speed.json")
    files = shard.ShardFiles(*(str(folder / name) for name in names))
    settings = Embedding(backend="openai", model="m", dim=None, prompt="p: ", processes=2)
    server = Openai(**ASKED | changes)
    return shard.embed_shard(files, settings, server, shard=0, shards=1, code="1")


def test_a_shard_that_the_server_broke_goes_on_and_asks_for_no_text_twice(
    server, tmp_path, monkeypatch
):
    entry = registry.BACKENDS["openai"]._replace(chunk_rows=14)
    monkeypatch.setitem(registry.BACKENDS, "openai", entry)
    table = pa.table({"pid": pa.array(range(50), pa.int64()), "text": TEXTS})
    item_text.write(tmp_path / "text.parquet", pa.int64(), [table])
    server.faults = [None, None, (404, {})]  # the second chunk
    with pytest.raises(SidmillError, match="answers 404"):
        embed(tmp_path, requests=1)
    server.asked.clear()
    assert embed(tmp_path, requests=1) == 50
    asked = [line for *_, body in server.asked for line in body["input"]][1:]
    assert asked == [f"p: {line}" for line in TEXTS[14:]]
    assert json_report.read(tmp_path / "speed.json")["texts_kept"] == 14
    [(_, found)] = embedding_shards.read(tmp_path / "e/part.parquet")
    wanted = expected([f"p: {line}" for line in TEXTS])
    np.testing.assert_allclose(
        found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6
    )


def test_fewer_dimensions_are_cut_and_made_unit(server):
    found, facts = encode(dim=4, normalize=True)
    cut = expected()[:, :4]
    np.testing.assert_allclose(
        found.vectors, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6
    )
    assert facts["dim"] == 4
    with pytest.raises(SidmillError, match=r"embedding\.dim is 7, m gives 6"):
        encode(dim=7)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OPENAI_BASE_URL": "http://example.org/v1"}, "is not https"),
        ({"OPENAI_BASE_URL": "file:///etc"}, "is not https"),
        ({"OPENAI_BASE_URL": "https://example.org", "OPENAI_API_KEY": ""}, "KEY is not set"),
        ({"OPENAI_BASE_URL": "http://[::1", "OPENAI_API_KEY": "x"}, "is no address"),
        ({"OPENAI_BASE_URL": "https://example.org/v1?version=1"}, "holds a . or a #"),
        ({"OPENAI_API_KEY": "sk-é\n"}, "characters that no key has"),
        ({"OPENAI_API_KEY": "Bearer sk-word"}, "characters that no key has"),
        ({"OPENAI_API_KEY": "sk-one\nsk-two"}, "characters that no key has"),
    ],
)
def test_an_environment_that_does_not_fit(server, monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SidmillError, match=message) as error:
        encode()
    assert not any(value and value in str(error.value) for value in variables.values())
    assert server.asked == []


def test_no_model_name():
    with pytest.raises(SidmillError, match=r"embedding\.model is null"):
        load(model=None)


def test_a_certificate_that_nobody_signed_is_refused(server, monkeypatch, tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    words += " -addext subjectAltName=DNS:localhost -keyout key.pem -out certificate.pem"
    subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    monkeypatch.setenv("OPENAI_BASE_URL", f"https://localhost:{server.server_port}/v1")
    with pytest.raises(SidmillError, match=r"(?i)certificate"):
        encode(retries=0)
    assert server.asked == []
