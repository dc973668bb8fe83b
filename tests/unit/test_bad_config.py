"""Every wrong setting is named in one message, before any job and before torch is there."""

import copy
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from snakemake.cli import parse_config
from snakemake.utils import update_config

from sidmill.core.errors import SidmillError
from sidmill.core.listing import some
from sidmill.settings.check import check, read_command_line, refuse_repeats

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
OPEN = {("mixture", "weights"), ("mixture", "test_size"), ("rl", "weights"), ("rl", "test_size")}
KEYS = [
    (section, key)
    for section, keys in CONFIG.items()
    if isinstance(keys, dict)
    for key in keys
]  # fmt: skip
HUGE = 10**30


def refusal(**sections):
    """The lines that refuse the usual config with some settings changed."""
    config = copy.deepcopy(CONFIG)
    for section, keys in sections.items():
        config[section] = (
            config[section] | keys
            if isinstance(config[section], dict) and isinstance(keys, dict)
            else keys
        )
    with pytest.raises(SidmillError) as error:
        check(config)
    head, *lines = str(error.value).split("\n  ")
    assert head == f"{len(lines)} problem(s) in the configuration:"
    return lines


def test_every_key_of_a_wrong_type_is_named_in_one_message():
    wrong = {section: {} for section, _ in KEYS}
    for section, key in KEYS:
        wrong[section][key] = True if isinstance(CONFIG[section][key], dict) else {"x": 1}
    lines = refusal(**wrong, quantizer={})
    for section, key in KEYS:
        assert any(line.startswith(f"{section}.{key}: found ") for line in lines), (section, key)
    assert len(lines) >= len(KEYS) > 200


def test_every_misspelt_key_is_told_the_right_one():
    config = {
        section: {key + "x": value for key, value in keys.items()}
        if isinstance(keys, dict)
        else keys
        for section, keys in CONFIG.items()
    }
    with pytest.raises(SidmillError) as error:
        check(config)
    for section, key in KEYS:
        guess = f"{section}: unknown key '{key}x': did you mean '{key}'?"
        assert guess in str(error.value)


def test_every_missing_key_and_every_misspelt_section_is_named():
    with pytest.raises(SidmillError) as error:
        check({section: {} if isinstance(keys, dict) else keys
               for section, keys in CONFIG.items()})  # fmt: skip
    for section, keys in CONFIG.items():
        if isinstance(keys, dict):
            assert f"{section}: missing {some(keys)}: copy" in str(error.value)
    with pytest.raises(SidmillError) as error:
        check({section + "z": keys for section, keys in CONFIG.items()})
    for section in CONFIG:
        assert f"unknown key '{section}z': did you mean '{section}'?" in str(error.value)


ODD = {
    "a float for an integer": (("opq", "n_iter", 3.0), "opq.n_iter: found 3.0, a float, wanted"),
    "a bool for an integer": (("run", "seed", True), "run.seed: found True, a bool"),
    "a bool for a number": (("bm25", "b", False), "bm25.b: found False, a bool"),
    "not a number": (("rqvae", "lr", float("nan")), "rqvae.lr: found nan, which is not finite"),
    "infinite": (("fusion", "constant", float("inf")), "found inf, which is not finite"),
    "huge": (("demo", "n_items", HUGE), f"found {HUGE}, which does not fit in 64 bits"),
    "YAML 1.1 reads 1e-3 as text": (("dual", "learning_rate", "1e-3"), "found '1e-3', a str"),
    "YAML reads no as false": (("items", "id_field", False), "found False, a bool, wanted string"),
    "a date": (("embedding", "revision", "x"), "embedding.revision"),
    "an enum misspelt": (("faiss", "nprobe", None), "faiss.nprobe: found null, wanted integer"),
    "nearest value": (("h5", "features", "word"), "wanted one of auto, words, model"),
    "nearest guess": (("retrieval", "answer", "croos"), "did you mean 'cross'?"),
    "a bound": (("recommender", "dropout", 1), "found 1, wanted less than 1"),
    "a list too short": (("datasets", "tasks", []), "found [], wanted a list of 1 or more"),
    "twice": (("comparison", "members", ["opq", "opq"]), "wanted no entry twice"),
    "unknown member": (("comparison", "members", ["opqq"]), "did you mean 'opq'?"),
    "a long value": (("explorer", "title", ["x" * 10**6]), "explorer.title: found ["),
    "a section that is a list": (("store", None, [1]), "store: found [1], a list"),
    "a section that is null": (("vocabulary", None, None), "vocabulary: found null"),
    "a task's name": (("datasets", "tasks", ["../x"]), "datasets.tasks.0: found '../x'"),
    "a key that is a number": (("mixture", "weights", {1: "x", "sft_x": "y"}), "weights.1: found"),
}
ODD["a date"] = (("embedding", "revision", __import__("datetime").date(2026, 1, 1)), "a date")


@pytest.mark.parametrize("name", ODD)
def test_an_odd_value_is_named_with_what_is_wanted(name):
    (section, key, value), words = ODD[name]
    lines = refusal(**{section: value if key is None else {key: value}})
    assert words in "\n".join(lines)
    assert max(map(len, lines)) < 600


WARM = {"published": {"path": "versions/1", "refresh": "warm_start"}}
GIVEN = {"quantizer": "given", "given": {"path": "x.json"}}
COMBINATIONS = {
    "rqkmeans.codebook_size: found 2 sizes for 3": {"rqkmeans": {"codebook_size": [4, 4]}},
    "rqkmeans.n_levels: found 26, and collisions": {
        "rqkmeans": {"n_levels": 26},
        "collisions": {"strategy": "suffix"},
    },
    "levels of rqvae.codebook_sizes: found 26": {
        "rqvae": {"codebook_sizes": [2] * 26},
        "quantizer": "rqvae",
        "collisions": {"strategy": "suffix"},
    },
    "rqkmeans.n_levels: found 25, but category_level": {
        "rqkmeans": {"n_levels": 25}, "category_level": {"field": "brand"},
        "collisions": {"strategy": "suffix"},
    },
    "category_level.field: found 'brand', but given SIDs": {
        "category_level": {"field": "brand"}, **GIVEN,
    },
    "category_level.field: found 'brand', but rqvae.data_paths": {
        "category_level": {"field": "brand"}, "rqvae": {"data_paths": ["x.npy"]},
    },
    "published.removed: found reserve, but collisions.strategy: none": {
        "published": {"path": "versions/1"}, "collisions": {"strategy": "none"}
    },
    "published.refresh: found align, but published.path": {"published": {"refresh": "align"}},
    "published.refresh: found align, but quantizer: given": GIVEN | {
        "published": {"path": "versions/1", "refresh": "align"}
    },
    "published.refresh: found warm_start, but the codes of category_level": {
        "category_level": {"field": "brand"}
    } | WARM,
    "published.refresh: found warm_start, but quantizer: opq": {"quantizer": "opq"} | WARM,
    "published.refresh: found warm_start, but rqkmeans.balance": {
        "rqkmeans": {"balance": "capacity"}
    } | WARM,
    "published.refresh: found warm_start, but with rqvae.kmeans_init: none": {
        "quantizer": "rqvae", "rqvae": {"kmeans_init": "none"}
    } | WARM,
    "published.refresh: found warm_start, but rqvae.data_paths": {
        "quantizer": "rqvae", "rqvae": {"data_paths": ["more.npy"]}
    } | WARM,
    "rqvae.sk_epsilons: found 2 numbers for 3": {"rqvae": {"sk_epsilons": [0, 0.1]}},
    "rqvae.warmup_epochs: found 9, wanted less": {
        "rqvae": {"warmup_epochs": 9, "epochs": 9, "autoencoder_epochs": 0}
    },
    "rqvae.autoencoder_epochs: found 12, wanted": {"rqvae": {"epochs": 12, "warmup_epochs": 0}},
    "rqvae.batch_size: found 6 for 4 processes": {"rqvae": {"batch_size": 6, "processes": 4}},
    "which make 9,000,000 codes per level": {"fsq": {"steps": [3000, 3000]}},
    "rqvae.kmeans_init: found first_batch": {
        "rqvae": {"kmeans_init": "first_batch", "batch_size": 64}
    },
    "rqvae.contrastive_weight: pairs are": {
        "rqvae": {"contrastive_weight": 0.1, "data_paths": ["x.npy"]}
    },
    "rqvae.contrastive_weight: needs pairs": {
        "rqvae": {"contrastive_weight": 0.1},
        "interactions": {"path": None},
    },
    "fuse.method: found graph, but interactions.path": {
        "fuse": {"method": "graph", "use": "sids"}, "interactions": {"path": None}
    },
    "fuse.method: found svd, but items.path": {
        "fuse": {"method": "svd", "use": "sids"}, "items": {"path": None}, "quantizer": "given",
        "given": {"path": "index.json"}, "collisions": {"strategy": "none"},
    },
    "fuse.codebook_sizes: found 8, 8": {
        "fuse": {"use": "sids", "codebook_sizes": [8, 8]},
        "interactions": {"path": "log.jsonl"},
    },
    "fuse.folds: found 4, but generative.model tiger": {
        "fuse": {"use": "sids", "folds": 4}, "generative": {"model": "tiger"},
        "interactions": {"path": "log.jsonl"},
    },
    "fuse.folds: found 4, but given SIDs": {
        "fuse": {"use": "sids", "folds": 4}, "generative": {"identifiers": ["given"]},
        "interactions": {"path": "log.jsonl"}, "given": {"path": "x.json"},
    },
    "fuse.folds: found 4, but folds are encoded without category_level": {
        "fuse": {"use": "sids", "folds": 4}, "category_level": {"field": "brand"},
        "interactions": {"path": "log.jsonl"},
    },
    "rqvae.e_dim: found 300": {"rqvae": {"e_dim": 300}, "quantizer": "rqvae"},
    "opq cuts 2 dimensions": {"embedding": {"dim": 2}, "quantizer": "opq"},
    "interactions.fields.history: found 'h'": {
        "interactions": {"format": "events", "fields": CONFIG["interactions"]["fields"]
                         | {"history": "h"}}
    },
    "which is user already": {
        "interactions": {"fields": CONFIG["interactions"]["fields"] | {"user": "u", "item": "u"}}
    },
    "format missrec has no timestamps": {"interactions": {"format": "missrec", "split": "time"}},
    "embedding.path: found 'x.npy', which backend lsa": {"embedding": {"path": "x.npy"}},
    "x.parquet holds its ids": {
        "embedding": {"backend": "precomputed", "model": "m", "path": "x.parquet",
                      "ids_path": "y.txt"}
    },
    "embedding.lsa_features: found 256, wanted more": {"embedding": {"lsa_features": 256}},
    "h5.features: found model": {"h5": {"features": "model"}},
    "retrieval.query_prompt: found 'Q:'": {"retrieval": {"query_prompt": "Q:"}},
    "retrieval.corpus is items": {"retrieval": {"corpus": "items", "corpus_ids": "x.json"}},
    "retrieval.queries is null": {"retrieval": {"query_ids": "x.json"}},
    "faiss.candidates: found 200, wanted at least": {"retrieval": {"index": "hnsw", "top_k": 201}},
    "faiss.code_bytes: found 48, wanted a divisor": {
        "retrieval": {"index": "ivfpq"}, "faiss": {"code_bytes": 48}
    },
    "dual.mini_batch: found 129": {"dual": {"mini_batch": 129}},
    "mining.skip: found 100, wanted less": {"mining": {"skip": 100}},
    "dual.model: found 'bert', but training.dual": {"dual": {"model": "bert"}},
    "cross.model: found 'bert', but training.cross": {"cross": {"model": "bert"}},
    "rerank.revision: found 'main'": {"rerank": {"revision": "main"}},
    "recommender.hidden_dim: found 60": {"recommender": {"hidden_dim": 60, "n_heads": 4}},
    "recommender.mmap_path: found 'm.json'": {"recommender": {"mmap_path": "m.json"}},
    "generative.hidden_dim: found 60": {"generative": {"hidden_dim": 60, "n_heads": 4}},
    "generative.features: found sid+text, but generative.model": {
        "generative": {"model": "tiger", "features": "sid+text"}
    },
    "generative.identifiers: found opq, but generative.model": {
        "generative": {"model": "tiger", "identifiers": ["opq"]}
    },
    "generative.loss: found in_batch": {"generative": {"model": "tiger", "loss": "in_batch"}},
    "generative.features: found sid+text, but items.path": GIVEN | {
        "items": {"path": None}, "generative": {"features": "sid+text"}
    },
    "generative.identifiers: found opq, which is made from items": GIVEN | {
        "items": {"path": None}, "generative": {"identifiers": ["opq"]}
    },
    "given.path: found null, but generative.identifiers": {
        "generative": {"identifiers": ["given"]}
    },
    "given in generative.identifiers has none": {
        "generative": {"identifiers": ["given"]}, "given": {"path": "x.json"},
        "collisions": {"strategy": "sinkhorn"},
    },
    "generative_topk.beam_width: found 20, wanted at least": {
        "generative_topk": {"beam_width": 20, "k": 21, "decoding": "beam"}
    },
    "rl.test_size: found sft_x, which rl.weights": {"rl": {"test_size": {"sft_x": 3}}},
    "pretrained.path: found null": {"quantizer": "pretrained"},
    "index.path: found 'data/i.json', which items.path (data) reads": {
        "index": {"path": "data/i.json"}, "items": {"path": "data"}
    },
    "which retrieval.query_ids (q2qid.json) reads": {
        "index": {"path": "./q2qid.json"},
        "retrieval": {"queries": "q.tsv", "query_ids": "q2qid.json"},
    },
    "given.path: found null, but quantizer: given": {"quantizer": "given"},
    "given.path: found null, but comparison.members": {"comparison": {"members": ["given"]}},
    "collisions.strategy: found sinkhorn": GIVEN | {"collisions": {"strategy": "sinkhorn"}},
    "comparison.downstream: found true, but interactions.path": {
        "comparison": {"downstream": True}, "interactions": {"path": None}
    },
    "comparison.downstream: found true, but with published.path": {
        "comparison": {"downstream": True}, "published": {"path": "versions/1"}
    },
    "member given of comparison.members has none": {
        "comparison": {"members": ["given"], "downstream": True},
        "given": {"path": "x.json"}, "collisions": {"strategy": "sinkhorn"},
    },
    "sweep.shapes: found 26 levels": {
        "sweep": {"shapes": [[2] * 26]}, "collisions": {"strategy": "suffix"}
    },
    "sweep.quantizers: found fsq, which has 256 codes": {
        "sweep": {"quantizers": ["fsq"], "shapes": [[256, 128]]}
    },
    "rqvae with the shape [4, 4] of the sweep": {
        "sweep": {"quantizers": ["rqvae"], "shapes": [[4, 4]]},
        "rqvae": {"sk_epsilons": [0, 0, 0.003]},
    },
    "given.path: found null, but sweep.anchors": {"sweep": {"anchors": ["given"]}},
    "anchor given of sweep.anchors has none": {
        "sweep": {"anchors": ["given"]}, "given": {"path": "x.json"},
        "collisions": {"strategy": "sinkhorn"},
    },
    "vocabulary.init: found codebook": GIVEN | {"vocabulary": {"model": "m"}},
    "items.path: found null, but quantizer: opq": {"items": {"path": None}, "quantizer": "opq"},
    "given.measure_neighbours: found true": GIVEN | {
        "items": {"path": None}, "given": {"path": "x.json", "measure_neighbours": True}
    },
    "collisions.identical_text: found share": GIVEN | {
        "items": {"path": None}, "collisions": {"identical_text": "share"}
    },
    "published.path: needs the texts": GIVEN | {
        "items": {"path": None}, "published": {"path": "versions/1"}
    },
}  # fmt: skip


# What each message tells to do, one entry for each way that it names.
REMEDIES = {
    "sweep.shapes: found 26 levels": [
        {"sweep": {"shapes": [[2] * 25]}}, {"collisions": {"strategy": "reassign"}},
    ],
    "sweep.quantizers: found fsq, which has 256 codes": [
        {"sweep": {"shapes": [[256, 256]]}},
        {"fsq": {"steps": [16, 16]}, "sweep": {"shapes": [[256]]}},
        {"sweep": {"quantizers": ["rqkmeans"]}},
    ],
    "rqvae with the shape [4, 4] of the sweep": [
        {"rqvae": {"sk_epsilons": []}}, {"sweep": {"shapes": [[4, 4, 4]]}},
        {"sweep": {"quantizers": ["opq"]}},
    ],
    "given.path: found null, but sweep.anchors": [
        {"given": {"path": "x.json"}}, {"sweep": {"anchors": []}},
    ],
    "anchor given of sweep.anchors has none": [
        {"collisions": {"strategy": "none"}}, {"collisions": {"strategy": "reassign"}},
        {"collisions": {"strategy": "suffix"}}, {"sweep": {"anchors": []}},
    ],
    "rqkmeans.codebook_size: found 2 sizes for 3": [
        {"rqkmeans": {"codebook_size": [4, 4, 4]}}, {"rqkmeans": {"codebook_size": 4}},
    ],
    "rqkmeans.n_levels: found 26, and collisions": [
        {"rqkmeans": {"n_levels": 25}}, {"collisions": {"strategy": "reassign"}},
    ],
    "levels of rqvae.codebook_sizes: found 26": [
        {"rqvae": {"codebook_sizes": [2] * 25}}, {"collisions": {"strategy": "reassign"}},
    ],
    "rqkmeans.n_levels: found 25, but category_level": [
        {"rqkmeans": {"n_levels": 24}}, {"collisions": {"strategy": "reassign"}},
        {"category_level": {"field": None}},
    ],
    "category_level.field: found 'brand', but given SIDs": [
        {"category_level": {"field": None}}, {"quantizer": "rqkmeans"},
    ],
    "category_level.field: found 'brand', but rqvae.data_paths": [
        {"rqvae": {"data_paths": []}}, {"category_level": {"field": None}},
    ],
    "published.removed: found reserve, but collisions.strategy: none": [
        {"published": {"removed": "release"}}, {"collisions": {"strategy": "suffix"}},
    ],
    "published.refresh: found align, but published.path": [
        {"published": {"path": "versions/1"}}, {"published": {"refresh": "none"}},
    ],
    "published.refresh: found align, but quantizer: given": [{"published": {"refresh": "none"}}],
    "published.refresh: found warm_start, but the codes of category_level": [
        {"published": {"refresh": "none"}}
    ],
    "published.refresh: found warm_start, but quantizer: opq": [
        {"published": {"refresh": "align"}},
        *({"quantizer": name} for name in ("rqkmeans", "rqkmeans_plus", "rqvae")),
    ],
    "published.refresh: found warm_start, but rqkmeans.balance": [
        {"published": {"refresh": "align"}}, {"rqkmeans": {"balance": "none"}},
    ],
    "published.refresh: found warm_start, but with rqvae.kmeans_init: none": [
        {"published": {"refresh": "align"}}, {"rqvae": {"kmeans_init": "full"}},
    ],
    "published.refresh: found warm_start, but rqvae.data_paths": [
        {"published": {"refresh": "align"}}, {"rqvae": {"data_paths": []}},
    ],
    "rqvae.sk_epsilons: found 2 numbers for 3": [
        {"rqvae": {"sk_epsilons": [0, 0, 0.1]}}, {"rqvae": {"sk_epsilons": []}},
    ],
    "rqvae.warmup_epochs: found 9, wanted less": [{"rqvae": {"warmup_epochs": 8}}],
    "rqvae.autoencoder_epochs: found 12, wanted": [{"rqvae": {"autoencoder_epochs": 11}}],
    "rqvae.kmeans_init: found first_batch": [
        {"rqvae": {"batch_size": 256}}, {"rqvae": {"kmeans_init": "full"}},
    ],
    "rqvae.contrastive_weight: pairs are": [
        {"rqvae": {"data_paths": []}, "interactions": {"path": "log.jsonl"}},
        {"rqvae": {"contrastive_weight": 0}},
    ],
    "rqvae.contrastive_weight: needs pairs": [
        {"rqvae": {"pairs_path": "pairs.parquet"}}, {"interactions": {"path": "log.jsonl"}},
        {"rqvae": {"contrastive_weight": 0}},
    ],
    "rqvae.batch_size: found 6 for 4 processes": [
        {"rqvae": {"batch_size": 8}}, {"rqvae": {"processes": 3}},
    ],
    "which make 9,000,000 codes per level": [{"fsq": {"steps": [1024, 1024]}}],
    "fuse.method: found graph, but interactions.path": [
        {"fuse": {"use": "similarity"}}, {"interactions": {"path": "log.jsonl"}},
    ],
    "fuse.method: found svd, but items.path": [
        {"fuse": {"use": "similarity"}}, {"items": {"path": "items.jsonl"}},
    ],
    "fuse.codebook_sizes: found 8, 8": [
        {"fuse": {"codebook_sizes": None}}, {"fuse": {"use": "similarity"}},
    ],
    "fuse.folds: found 4, but generative.model tiger": [
        {"fuse": {"folds": 1}}, {"generative": {"model": "causal"}},
    ],
    "fuse.folds: found 4, but given SIDs": [
        {"fuse": {"folds": 1}}, {"generative": {"identifiers": []}},
    ],
    "fuse.folds: found 4, but folds are encoded without category_level": [
        {"fuse": {"folds": 1}}, {"category_level": {"field": None}},
    ],
    "rqvae.e_dim: found 300": [{"rqvae": {"e_dim": 256}}, {"rqvae": {"skip": "none"}}],
    "opq cuts 2 dimensions": [{"rqkmeans": {"n_levels": 2}}],
    "interactions.fields.history: found 'h'": [{"interactions": {"fields": {"history": None}}}],
    "which is user already": [{"interactions": {"fields": {"item": None}}}],
    "format missrec has no timestamps": [{"interactions": {"split": "leave_last_out"}}],
    "embedding.path: found 'x.npy', which backend lsa": [
        {"embedding": {"path": None}},
        {"embedding": {"backend": "precomputed", "model": "m", "ids_path": "ids.txt"}},
    ],
    "x.parquet holds its ids": [{"embedding": {"ids_path": None}}],
    "embedding.lsa_features: found 256, wanted more": [{"embedding": {"lsa_features": 257}}],
    "h5.features: found model": [{"embedding": {"model": "m"}}, {"h5": {"features": "words"}}],
    "retrieval.query_prompt: found 'Q:'": [{"retrieval": {"query_prompt": ""}}],
    "retrieval.corpus is items": [
        {"retrieval": {"corpus": "c.tsv"}}, {"retrieval": {"corpus_ids": None}},
    ],
    "retrieval.queries is null": [
        {"retrieval": {"queries": "q.tsv"}}, {"retrieval": {"query_ids": None}},
    ],
    "faiss.candidates: found 200, wanted at least": [{"faiss": {"candidates": 201}}],
    "faiss.code_bytes: found 48, wanted a divisor": [{"faiss": {"code_bytes": 32}}],
    "dual.mini_batch: found 129": [{"dual": {"mini_batch": 128}}, {"dual": {"mini_batch": None}}],
    "mining.skip: found 100, wanted less": [{"mining": {"skip": 99}}],
    "dual.model: found 'bert', but training.dual": [
        {"training": {"dual": "d.tsv"}}, {"dual": {"model": None}},
    ],
    "cross.model: found 'bert', but training.cross": [
        {"training": {"cross": "c.tsv"}}, {"cross": {"model": None}},
    ],
    "rerank.revision: found 'main'": [{"rerank": {"revision": None}}],
    "recommender.hidden_dim: found 60": [{"recommender": {"hidden_dim": 64}}],
    "recommender.mmap_path: found 'm.json'": [
        {"recommender": {"train_from": "mmap"}}, {"recommender": {"mmap_path": None}},
    ],
    "generative.hidden_dim: found 60": [{"generative": {"hidden_dim": 64}}],
    "generative.features: found sid+text, but generative.model": [
        {"generative": {"features": "sid"}}, {"generative": {"model": "causal"}},
    ],
    "generative.identifiers: found opq, but generative.model": [
        {"generative": {"identifiers": []}}, {"generative": {"model": "causal"}},
    ],
    "generative.loss: found in_batch": [
        {"generative": {"loss": "full"}}, {"generative": {"model": "causal"}},
    ],
    "generative.features: found sid+text, but items.path": [
        {"generative": {"features": "sid"}}, {"items": {"path": "items.jsonl"}},
    ],
    "generative.identifiers: found opq, which is made from items": [
        {"generative": {"identifiers": []}}, {"items": {"path": "items.jsonl"}},
    ],
    "given.path: found null, but generative.identifiers": [
        {"given": {"path": "index.json"}}, {"generative": {"identifiers": []}},
    ],
    "given in generative.identifiers has none": [
        *({"collisions": {"strategy": name}} for name in ("none", "reassign", "suffix")),
        {"generative": {"identifiers": []}},
    ],
    "generative_topk.beam_width: found 20, wanted at least": [
        {"generative_topk": {"beam_width": 21}},
    ],
    "rl.test_size: found sft_x, which rl.weights": [{"rl": {"test_size": {"sft_video_rec": 3}}}],
    "pretrained.path: found null": [{"pretrained": {"path": "model.pt"}}],
    "index.path: found 'data/i.json', which items.path (data) reads": [
        {"index": {"path": "i.json"}},
    ],
    "given.path: found null, but quantizer: given": [{"given": {"path": "index.json"}}],
    "given.path: found null, but comparison.members": [{"given": {"path": "index.json"}}],
    "collisions.strategy: found sinkhorn": [
        {"collisions": {"strategy": name}} for name in ("none", "reassign", "suffix")
    ],
    "comparison.downstream: found true, but interactions.path": [
        {"comparison": {"downstream": False}}, {"interactions": {"path": "log.jsonl"}},
    ],
    "comparison.downstream: found true, but with published.path": [
        {"comparison": {"downstream": False}}, {"published": {"path": None}},
    ],
    "member given of comparison.members has none": [
        {"comparison": {"members": ["given"], "downstream": False}},
        *({"collisions": {"strategy": name}} for name in ("none", "reassign", "suffix")),
    ],
    "vocabulary.init: found codebook": [
        {"vocabulary": {"init": "mean"}}, {"vocabulary": {"init": "random"}},
    ],
    "items.path: found null, but quantizer: opq": [
        {"items": {"path": "items.jsonl"}},
        {"quantizer": "given", "given": {"path": "index.json"}},
    ],
    "given.measure_neighbours: found true": [
        {"given": {"measure_neighbours": False}}, {"items": {"path": "items.jsonl"}},
    ],
    "collisions.identical_text: found share": [
        {"collisions": {"identical_text": "separate"}}, {"items": {"path": "items.jsonl"}},
    ],
    "published.path: needs the texts": [
        {"published": {"path": None}}, {"items": {"path": "items.jsonl"}},
    ],
    "which retrieval.query_ids (q2qid.json) reads": [{"index": {"path": "i.json"}}],
}  # fmt: skip


@pytest.mark.parametrize("words", COMBINATIONS)
def test_what_a_refusal_tells_to_do_helps(words):
    """Each way that it names; a new refusal says its ways in REMEDIES."""
    for remedy in REMEDIES[words]:
        config = copy.deepcopy(CONFIG)
        update_config(config, copy.deepcopy(COMBINATIONS[words]))
        for section, keys in remedy.items():
            if not isinstance(keys, dict):
                config[section] = keys
                continue
            for key, value in keys.items():
                keeps = isinstance(value, dict) and key == "fields"
                config[section][key] = config[section][key] | value if keeps else value
        check(config)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"collisions": {"strategy": "none"}},
        {"collisions": {"strategy": "suffix"}},
        {"vocabulary": {"model": "m", "init": "mean"}},
        {"items": {"path": None}},
        {"given": {"path": "x.json", "codebook_sizes": [256, 1048576]}},
        {"published": {"path": "v", "removed": "release"}, "collisions": {"strategy": "none"}},
        {"comparison": {"members": ["given", "opq"]}},
    ],
)
def test_settings_that_fit_given_sids_are_taken(settings):
    merged = {
        name: CONFIG[name] | (GIVEN | settings)[name] for name in (GIVEN | settings)
        if name != "quantizer"
    }  # fmt: skip
    check(CONFIG | merged | {"quantizer": "given"})


@pytest.mark.parametrize("words", COMBINATIONS)
def test_settings_that_do_not_fit_are_refused(words):
    lines = refusal(**COMBINATIONS[words])
    assert len(lines) == 1
    assert words in lines[0]


def test_all_that_does_not_fit_stands_beside_what_is_of_a_wrong_type():
    lines = refusal(
        rqkmeans={"codebook_size": [4]}, recommender={"hidden_dim": 3}, mining={"skip": 500},
        opq={"n_iter": "x"}, faiss=3,
    )  # fmt: skip
    assert [line.split(":")[0] for line in lines] == [
        "faiss", "opq.n_iter", "rqkmeans.codebook_size", "mining.skip", "recommender.hidden_dim",
    ]  # fmt: skip


def test_the_workflow_reads_the_config_without_torch():
    helpers = sorted((ROOT / "workflow/rules").glob("common*.smk"))
    text = "\n".join(file.read_text() for file in helpers)
    imports = re.findall(r"(?m)^from sidmill\.[^\n(]+(?:\([^)]*\))?", text)
    assert imports
    probe = "\n".join([*imports, "import sys", "print('torch' in sys.modules)"])
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def on_command_line(*words):
    """The usual config with ``--config`` words, merged as Snakemake merges them."""
    config, given = copy.deepcopy(CONFIG), parse_config(words)
    update_config(config, given)
    read_command_line(config, given)
    return config


def as_overlay(section, text):
    config = copy.deepcopy(CONFIG)
    update_config(config, {section: yaml.safe_load(text)})
    return config


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("rqkmeans", "{n_iter: 6, codebook_size: [8, 8, 4], tolerance: 0.5}"),
        ("embedding", "{dim: 8, normalize: false, prompt: '', revision: null, model: org/name-1}"),
        ("mixture", "{weights: {sft_video_rec: 2.5}, test_size: {sft_video_rec: 3}}"),
        ("rqvae", "{sk_epsilons: [0, 0, 0.003], batch_norm: true}"),
        ("interactions", "{fields: {user: null}}"),
        ("items", "{fields: [title], template: '{title}: {brand}'}"),
        ("published", "{path: null}"),
        ("run", "{seed: 7}"),
    ],
)
def test_braces_on_the_command_line_are_read_as_an_overlay_is(section, text):
    assert on_command_line(f"{section}={text}") == as_overlay(section, text)
    check(on_command_line(f"{section}={text}"))


def test_every_setting_can_be_given_on_the_command_line():
    """In braces, as YAML writes it on one line."""
    for section, key in KEYS:
        text = yaml.safe_dump({key: CONFIG[section][key]}, default_flow_style=True, width=10**6)
        config = on_command_line(f"{section}={text.strip()}")
        assert config[section][key] == CONFIG[section][key], (section, key)


def test_a_text_that_looks_like_a_number_stays_a_text_where_one_is_wanted():
    assert on_command_line("embedding={prompt: 123}")["embedding"]["prompt"] == "123"
    config = on_command_line("rqkmeans={n_iter: many}", "nothing={x: 1}")
    with pytest.raises(SidmillError, match=r"rqkmeans\.n_iter: found 'many', a str"):
        check(config)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: {b: 1}\nc: 2\na: {d: 3}\n", ["a stands on lines 1 and 3,"]),
        ("a:\n  b: 1\n  b: 2\n", ["a.b stands on lines 2 and 3,"]),
        ("x: [{d: 1, d: 1}]\nx: 1", ["x.0.d stands on lines 1 and 1,", "x stands on lines 1 and"]),
        ('{"a": 1,\n "b": 2,\n "a": 1}', ["a stands on lines 1 and 3,"]),
        ("a: 1\n'a': 2", ["a stands on lines 1 and 2,"]),
        ("a: {b: 1}\nb: 1\nc: {b: 1}\n", []),
        ("a: &x {b: 1}\nc: &y {d: 1}\ne:\n  <<: *x\n  <<: *y\n", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_refused_with_its_lines(tmp_path, text, wanted):
    """One line per key; with one of them taken away, as the message says, the file is taken."""
    path = tmp_path / "my.yaml"
    path.write_text(text)
    if not wanted:
        return refuse_repeats([path])
    with pytest.raises(SidmillError) as error:
        refuse_repeats([path])
    lines = str(error.value).splitlines()
    assert len(lines) == len(wanted)
    assert all(any(f"{path}: {words}" in line for line in lines) for words in wanted)
    assert yaml.safe_load(text) is not None
    path.write_text(yaml.safe_dump(yaml.safe_load(text)))
    return refuse_repeats([path])


def test_each_problem_is_listed_once_and_no_list_is_long():
    """An overlay alone, as when config.yaml was not found: all of it is missing."""
    with pytest.raises(SidmillError) as error:
        check({"items": {"path": "x"}, "run": {}})
    head, *lines = str(error.value).split("\n  ")
    assert head == f"{len(lines)} problem(s) in the configuration:"
    assert len(set(lines)) == len(lines) == 3
    for line in lines:
        names = re.search(r"missing (.*?)(?: and [\d,]+ more)?: copy", line)[1].split(", ")
        assert 1 <= len(names) <= 20
    assert " more: copy these lines from config.yaml" in str(error.value)
    assert re.search(r"run: missing seed: copy the line from", str(error.value))
