"""Helpers shared by the rule files. No rule lives here."""

import os
import sys
from pathlib import Path

# Every job reads this file first, on a cluster node too: it finds the library without an installation.
LIBRARY = str(Path(workflow.basedir) / "src")
sys.path.insert(0, LIBRARY)
os.environ.update(
    PYTHONPATH=os.pathsep.join(filter(None, [LIBRARY, os.getenv("PYTHONPATH")]))
)

# Threads that spin while they wait make jobs that share a machine up to 100 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from snakemake.exceptions import WorkflowError

from sidmill.core.config import check
from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand as expand_path
from sidmill.core.provenance import source_digest
from sidmill.formats.catalogue import SUFFIXES

FIRST_ROUND = "results/dual/first/model"
SHORT_COLLECTIONS = ("queries", "mining_queries")
MACHINE_SETTINGS = ("batch_tokens", "device", "memory_mb", "search_batch")


wildcard_constraints:
    collection="items|corpus|queries|mining_corpus|mining_queries",
    quantizer="rqkmeans|pretrained",
    round="first|second",
    run="dual|bm25|fused|cross",
    kind="dual|cross",
    shard=r"\d{5}",
    shards=r"\d{5}",


def or_stop(function, *arguments):
    """Call a library function; show a user's mistake as Snakemake shows its own."""
    try:
        return function(*arguments)
    except SidmillError as error:
        raise WorkflowError(str(error)) from None


def code_of(script):
    """Name the code behind a rule, for ``params``: a change of it is a reason to rerun."""
    return source_digest(Path(workflow.basedir) / "workflow/scripts" / script)


def settings(section, *others):
    """What a section says about the result, as sorted keyword arguments: key order is no change.

    Left out are ``others``, which the rule does not use, and settings of the machine, which
    scripts read from ``snakemake.config``: a change of those reruns nothing.
    """
    left_out = {*MACHINE_SETTINGS, *others}
    return {
        key: value
        for key, value in sorted(config[section].items())
        if key not in left_out
    }


def pick(section, *keys):
    """Some keys of a section, for a rule that a change of the others must not rerun."""
    return {key: config[section][key] for key in keys}


def own_vectors():
    """The files of the user's own vectors, where the backend is precomputed."""
    embedding = config["embedding"]
    if embedding["backend"] != "precomputed":
        return {}
    if Path(embedding["path"]).resolve().is_relative_to(Path("results").resolve()):
        raise SidmillError(
            f"embedding.path: {embedding['path']} lies in results/, which this run writes: move "
            f"your embeddings elsewhere"
        )
    ids = embedding["ids_path"]
    return {
        "vectors": expand_path(
            embedding["path"], (".parquet", ".npy"), "embedding.path"
        ),
        "ids": expand_path(ids, (), "embedding.ids_path") if ids else [],
    }


def own_quantizer():
    """The checkpoint of the user, where the quantizer is pretrained."""
    if config["quantizer"] != "pretrained":
        return []
    return expand_path(config["pretrained"]["path"], (), "pretrained.path")


def embedding_of(wildcards):
    """Settings that a collection is embedded with: queries have a prompt of their own."""
    embedding = settings("embedding", "shards", "lsa_sample", "lsa_features")
    if wildcards.collection.startswith("mining_"):
        embedding |= {"backend": "sentence_transformers", "model": FIRST_ROUND}
        embedding |= {"revision": None, "dim": None, "normalize": True}
    if wildcards.collection in SHORT_COLLECTIONS:
        embedding["prompt"] = config["retrieval"]["query_prompt"]
    return embedding


def embedder_files(wildcards):
    """What a shard needs besides its text: the fitted LSA, the folder of a model, or the user's vectors."""
    embedding = embedding_of(wildcards)
    if embedding["backend"] == "lsa":
        if wildcards.collection == "queries":
            return {"model": of_corpus("lsa.safetensors")}
        return {"model": f"results/{wildcards.collection}/lsa.safetensors"}
    if embedding["backend"] == "sentence_transformers":
        return model_files(embedding["model"])
    return OWN_VECTORS


def model_files(model):
    """The files of a model: of a folder of the user, or of one that this workflow trains; none of the hub's."""
    if Path(model).parts[:1] == ("results",):
        return {"weights": model}
    if Path(model).is_dir():
        files = (file for file in Path(model).rglob("*") if file.is_file())
        return {"weights": sorted(map(str, files))}
    return {}


def shard_files(wildcards):
    """All shards of a collection, in order; queries are short and make one."""
    shards = (
        1
        if wildcards.collection in SHORT_COLLECTIONS
        else config["embedding"]["shards"]
    )
    folder = f"results/{wildcards.collection}/embeddings.parquet"
    return [
        f"{folder}/part-{shard:05d}-of-{shards:05d}.parquet" for shard in range(shards)
    ]


def of_corpus(*names):
    """A file of the passages that are searched: the catalogue's, or those of retrieval.corpus."""
    collection = "items" if config["retrieval"]["corpus"] == "items" else "corpus"
    return f"results/{collection}/{names[0]}"


def user_files(setting):
    """The files behind a setting such as retrieval.corpus, or an error that asks for it."""
    section, _, key = setting.partition(".")
    if config[section][key] is None:
        raise WorkflowError(f"{setting} is null: name a file (docs/retrieval.md)")
    return or_stop(expand_path, config[section][key], ("",), setting)


def corpus_files(wildcards):
    """Passages, and the map of their ids."""
    return user_files("retrieval.corpus") + optional("retrieval", "corpus_ids")


def query_files(wildcards):
    """Queries, and the map of their ids."""
    return user_files("retrieval.queries") + optional("retrieval", "query_ids")


def qrels_files(wildcards):
    """Judgements."""
    return user_files("retrieval.qrels")


def optional(section, key):
    """The file of a setting, or none where it is null."""
    path = config[section][key]
    return or_stop(expand_path, path, ("",), f"{section}.{key}") if path else []


def index_file(wildcards):
    """The faiss index, unless the search is exact."""
    return (
        []
        if config["retrieval"]["index"] == "flat"
        else "results/retrieval/corpus.faiss"
    )


def effort(wildcards):
    """How hard an index looks; exact search has no such setting, so a change of it reruns nothing."""
    names = ("nprobe", "ef_search", "candidates")
    if config["retrieval"]["index"] == "flat":
        return dict.fromkeys(names, 0)
    return pick("faiss", *names)


def found_shards(wildcards):
    """All shards of the search: one where an index answers."""
    exact = config["retrieval"]["index"] == "flat"
    shards = config["retrieval"]["shards"] if exact else 1
    return [
        f"results/retrieval/shards/part-{shard:05d}-of-{shards:05d}.safetensors"
        for shard in range(shards)
    ]


def training_files(wildcards):
    """Lines that an encoder learns from."""
    return user_files(f"training.{wildcards.kind}")


def training_settings(wildcards):
    """Where these lines are."""
    training = config["training"]
    return {"path": training[wildcards.kind], "on_bad_rows": training["on_bad_rows"]}


def dual_inputs(wildcards):
    """What a round of the dual encoder learns from, and the model it starts from."""
    if wildcards.round == "second":
        return {"triples": "results/mining/triples.parquet", "weights": FIRST_ROUND}
    return {"triples": "results/training/dual.parquet"} | base_model("dual")


def dual_settings(wildcards):
    """Settings of a round: the second starts from the model of the first."""
    start = (
        {"model": FIRST_ROUND, "revision": None, "pooling": None}
        if wildcards.round == "second"
        else {}
    )
    return settings("dual") | start


def base_model(section):
    """The files of the model that a training starts from."""
    if config[section]["model"] is None:
        raise WorkflowError(f"{section}.model is null: name a hub id or a folder")
    return model_files(config[section]["model"])


def cross_inputs(wildcards):
    """What the cross encoder learns from, and the model it starts from."""
    mined = config["cross"]["source"] == "mined"
    pairs = (
        "results/mining/pairs.parquet" if mined else "results/training/cross.parquet"
    )
    return {"pairs": pairs} | base_model("cross")


def mined_corpus(wildcards):
    """The passages that negatives may come from besides those of the training file."""
    return of_corpus("text.parquet") if config["mining"]["pool"] == "corpus" else []


def fused_runs(wildcards):
    """The runs that are fused."""
    return [f"results/retrieval/{run}/res.topk" for run in config["fusion"]["runs"]]


def reader_files(wildcards):
    """The files of the cross encoder that reranks."""
    return model_files(config["rerank"]["model"])


def measured_runs(wildcards):
    """The runs that are compared, the baseline first."""
    return [f"results/retrieval/{run}/res.topk" for run in config["evaluation"]["runs"]]


def chosen(name):
    """A file of the quantizer that the config chose."""
    return f"results/{config['quantizer']}/{name}"


or_stop(check, config, Path(workflow.basedir) / "workflow/schemas/config.schema.yaml")

# Looked up here and not in the rules: Snakemake lets a rule with a missing input pass in silence while its output exists.
CATALOGUE = or_stop(expand_path, config["items"]["path"], SUFFIXES, "items.path")
OWN_VECTORS = or_stop(own_vectors)
OWN_QUANTIZER = or_stop(own_quantizer)
