"""Helpers shared by the rule files. No rule lives here."""

import os
import sys
from hashlib import sha256
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

from sidmill.core import locks, origin
from sidmill.core.config import check
from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand as expand_path
from sidmill.core.provenance import source_digest
from sidmill.core.secrets import shown_settings
from sidmill.datasets.tasks import load as load_task
from sidmill.datasets.tasks import load_prompts, names_titles
from sidmill.formats.catalogue import SUFFIXES
from sidmill.interactions.files import find as find_interactions

STATE = Path(".snakemake")
VECTOR_FILES = (".npy", ".h5", ".parquet")
FIRST_ROUND = "results/dual/first/model"
SHORT_COLLECTIONS = ("queries", "mining_queries")
PROBLEMS = []
LEARNED = ("rqvae", "rqkmeans_plus", "fsq")  # networks, all trained by one rule
MACHINE_SETTINGS = (
    "attention",
    "batch_tokens",
    "compiled",
    "device",
    "memory_mb",
    "processes",
    "search_batch",
)


wildcard_constraints:
    asked="queries|training_queries",
    balanced="|_balanced",  # rqkmeans{balanced}
    collection="items|corpus|queries|mining_corpus|mining_queries",
    learned="|".join(LEARNED),
    quantizer="rqkmeans|rqkmeans_balanced|rqkmeans_plus|rqvae|fsq|opq|pca_grid|pretrained|published",
    round="first|second",
    run="dual|bm25|fused|cross",
    kind="dual|cross",
    dataset=r"(pretrain|sft)_[A-Za-z0-9_-]+(\.(valid|test))?",
    mixture="mixture|rl",
    shard=r"\d{5}",
    shards=r"\d{5}",


def or_stop(function, *arguments):
    """Call a library function; show a user's mistake as Snakemake shows its own."""
    try:
        return function(*arguments)
    except SidmillError as error:
        raise WorkflowError(str(error)) from None


def or_note(function, *arguments):
    """Call a library function; keep a user's mistake for the end of this file, which names all."""
    try:
        return function(*arguments)
    except SidmillError as error:
        return PROBLEMS.append(str(error))


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


def learned_from():
    """What the RQ-VAE is trained on besides results/items: other vectors, and pairs of items."""
    rqvae = config["rqvae"]
    data = [
        expand_path(path, VECTOR_FILES, "rqvae.data_paths")
        for path in rqvae["data_paths"]
    ]
    pairs = rqvae["pairs_path"] or "results/interactions/sequences.parquet"
    return {"data": data, "pairs": pairs if rqvae["contrastive_weight"] else []}


def embedding_of(wildcards):
    """Settings that a collection is embedded with: queries have a prompt of their own."""
    embedding = settings("embedding", "shards", "lsa_sample", "lsa_features")
    if wildcards.collection.startswith("mining_"):
        embedding |= {"backend": "sentence_transformers", "model": FIRST_ROUND}
        embedding |= {"revision": None, "dim": None, "normalize": True}
    if wildcards.collection in SHORT_COLLECTIONS:
        embedding["prompt"] = config["retrieval"]["query_prompt"]
    return embedding


def own_recommender():
    """The checkpoint that training starts from, where one is named."""
    path = config["recommender"]["load"]
    return expand_path(path, (), "recommender.load") if path else []


def recommender_items(wildcards):
    """What a recommender reads of the items: the vectors of this run, or memory maps."""
    recommender = config["recommender"]
    if recommender["train_from"] == "text":
        return {
            "vectors": "results/items/vectors.npy",
            "ids": "results/items/ids.parquet",
        }
    own = recommender["mmap_path"]
    maps = sorted(map(str, Path(own).parent.glob("mmap_*_*"))) if own else []
    return {"mmap": own or "results/mmap/mmap.json", "maps": maps}


def embedder_files(wildcards):
    """What a shard needs besides its text: the fitted LSA, the folder of a model, or the user's vectors."""
    embedding = embedding_of(wildcards)
    if embedding["backend"] == "lsa":
        if wildcards.collection == "queries":
            return {"model": fitted_lsa(corpus_collection())}
        return {"model": fitted_lsa(wildcards.collection)}
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


def expanded_model(wildcards):
    """The files of the language model that gets the SID tokens."""
    model = config["vocabulary"]["model"]
    return model_files(model) if model else {}


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


def speed_files(wildcards):
    """What each shard took, in order."""
    return [
        file.replace("embeddings.parquet", "speed").replace(".parquet", ".json")
        for file in shard_files(wildcards)
    ]


def rqkmeans_settings(wildcards):
    """Settings of residual k-means; ``rqkmeans_balanced`` has a balance even where the config has none."""
    found = settings("rqkmeans")
    if wildcards.balanced and found["balance"] == "none":
        found["balance"] = "capacity"
    return found


def warm_start(wildcards):
    """The quantizer that ``rqkmeans_plus`` begins at."""
    is_warm = wildcards.learned == "rqkmeans_plus"
    return "results/rqkmeans/quantizer.safetensors" if is_warm else []


def grid_steps(wildcards):
    """The grid of finite scalar quantization; none for networks that learn codebooks."""
    return config["fsq"]["steps"] if wildcards.learned == "fsq" else None


def training_cost(quantizer):
    """The benchmark file of the rule that trains a quantizer."""
    name = f"rqvae.{quantizer}" if quantizer in LEARNED else quantizer
    return f"results/benchmarks/train_{name}.tsv"


def token_budget():
    """Codes per level that every quantizer of a comparison may use, as a list."""
    n_levels, size = (config["rqkmeans"][key] for key in ("n_levels", "codebook_size"))
    return size if isinstance(size, list) else [size] * n_levels


def default_target(wildcards):
    """What a plain run makes."""
    return list(rules.all.input)


def histories():
    """Who consumed what, where the config names it."""
    sequences = config["evaluation"]["sequences"]
    if sequences == "results/interactions/sequences.parquet":
        return sequences  # a rule makes it
    return expand_path(sequences, (), "evaluation.sequences") if sequences else []


def chosen(name):
    """A file of the quantizer that the config chose, or of the published one."""
    quantizer = "published" if config["published"]["path"] else config["quantizer"]
    return f"results/{quantizer}/{name}"


def task_file(dataset):
    """The YAML of a dataset's task."""
    return RESOURCES / f"tasks/{dataset.partition('.')[0]}.yaml"


def task_inputs(wildcards):
    """The parquet files that a task reads."""
    task = or_stop(load_task, task_file(wildcards.dataset))
    return USERS if task.reads == "users" else CAPTIONS


def task_texts(wildcards):
    """Texts of items, for a task that names items by title."""
    task = or_stop(load_task, task_file(wildcards.dataset))
    return CAPTIONS if names_titles(task) else []


def task_digest(wildcards):
    """What a task and its prompts say, both checked: a change of them is a reason to rerun."""
    task = or_stop(load_task, task_file(wildcards.dataset))
    prompts = RESOURCES / f"prompts/{task.prompts}.yaml"
    or_stop(load_prompts, prompts, config["datasets"]["language"], task)
    files = [task_file(wildcards.dataset), prompts]
    return sha256(b"\n".join(file.read_bytes() for file in files)).hexdigest()[:12]


def mixture_settings(wildcards):
    """The section of a mixture."""
    return settings(wildcards.mixture)


def mixture_inputs(wildcards):
    """The datasets of a mixture, in the order of their names."""
    return [
        f"results/datasets/{name}"
        for name in sorted(config[wildcards.mixture]["weights"])
    ]


def other_test_sizes(wildcards):
    """What the other mixture holds out: rows by dataset."""
    other = {"mixture": "rl", "rl": "mixture"}[wildcards.mixture]
    sizes = config[other]["test_size"]
    return {name: sizes[name] for name in sorted(sizes) if sizes[name]}


def other_test_datasets(wildcards):
    """The datasets that the other mixture holds rows out of, in the order of their names."""
    return [f"results/datasets/{name}" for name in other_test_sizes(wildcards)]


def all_shards(name):
    """Every shard of one pass of a dataset."""
    count = config["datasets"]["shards"]
    return [
        name.replace("{shard}-of-{shards}", f"{shard:05d}-of-{count:05d}")
        for shard in range(count)
    ]


or_stop(check, config, Path(workflow.basedir) / "workflow/schemas/config.schema.yaml")
if workflow.is_main_process:
    locks.enter(STATE)
    or_stop(origin.refuse_demo, STATE, config["items"]["path"])

# Looked up here and not in the rules: Snakemake lets a rule with a missing input pass in silence while its output exists.
CATALOGUE = or_note(expand_path, config["items"]["path"], SUFFIXES, "items.path")
INTERACTIONS = or_note(find_interactions, config["interactions"]["path"])
OWN_VECTORS = or_note(own_vectors)
OWN_QUANTIZER = or_note(own_quantizer)
HISTORIES = or_note(histories)
LEARNED_FROM = or_note(learned_from)
OWN_RECOMMENDER = or_note(own_recommender)
USERS = (
    or_note(expand_path, config["datasets"]["users"], (".parquet",), "datasets.users")
    if config["datasets"]["users"]
    else ["results/interactions/sequences.parquet"]
)
CAPTIONS = (
    or_note(
        expand_path, config["datasets"]["captions"], (".parquet",), "datasets.captions"
    )
    if config["datasets"]["captions"]
    else ["results/items/text.parquet"]
)
RESOURCES = Path(workflow.basedir) / "workflow/resources"
TASKS = config["datasets"]["tasks"]
PRODUCTS = config["datasets"]["product_pid2sid"] or []

if PROBLEMS:
    raise WorkflowError("\n".join(PROBLEMS))
