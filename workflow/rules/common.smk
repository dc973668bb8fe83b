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

from sidmill.core import demo_guard, locks
from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand as expand_path
from sidmill.core.paths import expand_one, files_of
from sidmill.core.provenance import source_digest
from sidmill.core.secrets import in_order, shown_settings
from sidmill.datasets.tasks import load as load_task
from sidmill.datasets.tasks import load_prompts, names_titles
from sidmill.formats.catalogue import SUFFIXES
from sidmill.interactions.files import find as find_interactions
from sidmill.items.render import NO_CATALOGUE
from sidmill.settings.base import science_keys
from sidmill.settings.check import check, read_command_line, refuse_repeats
from sidmill.settings.config import SECTIONS
from sidmill.settings.registry import (
    NETWORKS,
    QUANTIZERS,
    settings_read,
    tokenizer_settings,
)

STATE = Path(".snakemake")
VECTOR_FILES = (".npy", ".h5", ".parquet")
FIRST_ROUND = "results/dual/first/model"
SHORT_COLLECTIONS = ("queries", "mining_queries")
PROBLEMS = []


wildcard_constraints:
    asked="queries|training_queries",
    balanced="|_balanced",  # rqkmeans{balanced}
    collection="items|corpus|queries|mining_corpus|mining_queries",
    learned="|".join(NETWORKS),
    encoded="|".join([*(name for name in QUANTIZERS if name != "given"), "published"]),
    quantizer="|".join([*QUANTIZERS, "published"]),
    round="first|second",
    run="dual|bm25|fused|cross",
    kind="dual|cross",
    dataset=r"(pretrain|sft)_[A-Za-z0-9_-]+(\.(valid|test))?",
    mixture="mixture|rl",
    name=r"[\w-]+",
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


def of_workflow(name):
    """The path of a file of the workflow: the same text for every run in one folder."""
    return os.path.relpath(Path(workflow.basedir) / name)


def code_of(script, chosen=None):
    """Name the code behind a rule, for ``params``: a change of it is a reason to rerun.

    Where a setting decides which modules run, ``chosen`` is a function of the wildcards that gives
    it: see ``CHOICES`` of ``sidmill.core.provenance``.
    """
    path = Path(workflow.basedir) / "workflow/scripts" / script
    if chosen is None:
        return {"code": source_digest(path)}

    def code(wildcards):
        return {"code": source_digest(path, chosen(wildcards))}

    return code


def settings(section, *others):
    """What a section says about the result, as sorted keyword arguments: key order is no change.

    Every value of ``params`` is such a dictionary, of the names that the function knows. Snakemake
    compares values as a set, without the names that ``params`` gives them: two bare numbers that
    change places would be no change. Files in an order that matters are named here too, since it
    compares the inputs as a set.

    Left out are ``others``, which the rule does not use, and settings of the machine, which
    scripts read from ``snakemake.config``: a change of those reruns nothing.
    """
    science = [key for key in science_keys(SECTIONS[section]) if key not in others]
    return pick(section, *sorted(science))


def pick(section, *keys):
    """Some keys of a section, for a rule that a change of the others must not rerun."""
    return {key: in_order(config[section][key]) for key in keys}


def own_vectors():
    """The files of the user's own vectors, where the backend is precomputed."""
    embedding = config["embedding"]
    if embedding["backend"] != "precomputed":
        return {}
    ids = embedding["ids_path"]
    for key in ("path", "ids_path"):
        own = Path(embedding[key] or ".").resolve()
        if own.is_relative_to(Path("results").resolve()):
            raise SidmillError(
                f"embedding.{key}: {embedding[key]} lies in results/, which this run writes: move "
                f"your embeddings elsewhere"
            )
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
    return expand_one(config["pretrained"]["path"], "pretrained.path")


def own_sids():
    """The file of SIDs that exist, where the config chooses or compares them."""
    members = config["comparison"]["members"]
    if config["quantizer"] != "given" and "given" not in members:
        return []
    path = config["given"]["path"]
    if Path(path).resolve().is_relative_to(Path("results").resolve()):
        raise SidmillError(
            f"given.path: {path} lies in results/, which this run writes: move it elsewhere, for "
            f"instance to given/{Path(path).name}"
        )
    return expand_one(path, "given.path")


def sids_to_keep():
    """The SIDs outside of which items are left out of the catalogue: file and offset of its ids; or none."""
    if not OWN_SIDS or config["given"]["on_missing_sids"] == "error":
        return {"given_sids": None}
    return {"given_sids": [OWN_SIDS, config["given"]["id_offset"]]}


def where_codebooks(path):
    """A file that only SIDs made from codebooks need: given ones have none."""
    return [] if config["quantizer"] == "given" else path


def where_embedded(path):
    """A file of vectors, where figures are made of them: given SIDs are embedded on request."""
    given = config["quantizer"] == "given" and not config["given"]["measure_neighbours"]
    return [] if given else path


def item_text():
    """The texts of the items; none where items.path is null."""
    return "results/items/text.parquet" if config["items"]["path"] else []


def item_ids():
    """A file with the ids of all items."""
    return item_text() or "results/given/codes.parquet"


def catalogue_files(wildcards):
    """The files of the catalogue; where there is none, nothing that is made of text can be asked for."""
    if config["items"]["path"] is None:
        raise WorkflowError(NO_CATALOGUE)
    return CATALOGUE


def learned_from():
    """What the RQ-VAE is trained on besides results/items: other vectors, and pairs of items."""
    rqvae = config["rqvae"]
    data = [
        expand_path(path, VECTOR_FILES, "rqvae.data_paths")
        for path in rqvae["data_paths"]
    ]
    own = rqvae["pairs_path"]
    pairs = "results/interactions/sequences.parquet"
    if own and rqvae["contrastive_weight"]:
        pairs = expand_one(own, "rqvae.pairs_path")
    return {"data": data, "pairs": pairs if rqvae["contrastive_weight"] else []}


def embedding_of(wildcards):
    """Settings that a collection is embedded with: those that its backend reads."""
    embedding = settings("embedding", "shards", "lsa_sample", "lsa_features")
    if wildcards.collection.startswith("mining_"):
        embedding |= {"backend": "sentence_transformers", "model": FIRST_ROUND}
        embedding |= {"revision": None, "dim": None, "normalize": True}
    if wildcards.collection in SHORT_COLLECTIONS:
        embedding["prompt"] = config["retrieval"]["query_prompt"]
    return settings_read(embedding)


def backend_in_use(wildcards):
    """The backend that embeds a collection."""
    return {"backend": embedding_of(wildcards)["backend"]}


def own_recommender():
    """The checkpoint that training starts from, one file, where one is named."""
    path = config["recommender"]["load"]
    if not path:
        return []
    return expand_one(path, "recommender.load", (".safetensors",), foreign=True)


def own_products():
    """The SIDs of a second domain, where they are named."""
    path = config["datasets"]["product_pid2sid"]
    return expand_one(path, "datasets.product_pid2sid") if path else []


def own_maps():
    """The memory maps that a recommender learns from, where they are made elsewhere."""
    path = config["recommender"]["mmap_path"]
    return expand_one(path, "recommender.mmap_path") if path else None


def recommender_items(wildcards):
    """What a recommender reads of the items: the vectors of this run, or memory maps."""
    recommender = config["recommender"]
    if recommender["train_from"] == "text":
        return {
            "vectors": "results/items/vectors.npy",
            "ids": "results/items/ids.parquet",
        }
    maps = sorted(map(str, Path(OWN_MAPS).parent.glob("mmap_*_*"))) if OWN_MAPS else []
    return {"mmap": OWN_MAPS or "results/mmap/mmap.json", "maps": maps}


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
        return {"weights": files_of(model)}
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


def balance_in_use(wildcards):
    """The balance of residual k-means."""
    return {"balance": rqkmeans_settings(wildcards)["balance"]}


def learned_in_use(wildcards):
    """Which of the quantizers that are networks is trained."""
    return {"learned": wildcards.learned}


def strategy_in_use(wildcards):
    """How collisions are resolved."""
    return {"strategy": config["collisions"]["strategy"]}


def warm_start(wildcards):
    """The quantizer that ``rqkmeans_plus`` begins at."""
    is_warm = wildcards.learned == "rqkmeans_plus"
    return "results/rqkmeans/quantizer.safetensors" if is_warm else []


def grid_steps(wildcards):
    """The grid of finite scalar quantization; none for networks that learn codebooks."""
    steps = config["fsq"]["steps"] if wildcards.learned == "fsq" else None
    return {"grid_steps": steps}


def training_costs():
    """The benchmark files of the members of the comparison that are trained, in their order."""
    members = config["comparison"]["members"]
    return [training_cost(member) for member in members if member != "given"]


def training_cost(quantizer):
    """The benchmark file of the rule that trains a quantizer."""
    name = f"rqvae.{quantizer}" if quantizer in NETWORKS else quantizer
    return f"results/benchmarks/train_{name}.tsv"


def token_budget():
    """Codes per level that every quantizer of a comparison may use."""
    n_levels, size = (config["rqkmeans"][key] for key in ("n_levels", "codebook_size"))
    return {"codebook_sizes": size if isinstance(size, list) else [size] * n_levels}


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
    """A file of the quantizer that the config chose, or of the published one; given SIDs come first."""
    quantizer = config["quantizer"]
    if config["published"]["path"] and quantizer != "given":
        quantizer = "published"
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
    digest = sha256(b"\n".join(file.read_bytes() for file in files)).hexdigest()[:12]
    return {"task": digest}


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


if workflow.is_main_process:
    or_stop(refuse_repeats, workflow.configfiles)
read_command_line(config, dict(workflow.config_settings.config or {}))
or_stop(check, config)
if workflow.is_main_process:
    locks.enter(STATE)
    or_stop(
        demo_guard.refuse_demo,
        STATE,
        config["items"]["path"] or config["given"]["path"],
    )

# Looked up here and not in the rules: Snakemake lets a rule with a missing input pass in silence while its output exists.
CATALOGUE = (
    or_note(expand_path, config["items"]["path"], SUFFIXES, "items.path")
    if config["items"]["path"]
    else []
)
INTERACTIONS = or_note(find_interactions, config["interactions"]["path"])
OWN_VECTORS = or_note(own_vectors)
OWN_QUANTIZER = or_note(own_quantizer)
OWN_SIDS = or_note(own_sids)
HISTORIES = or_note(histories)
LEARNED_FROM = or_note(learned_from)
OWN_RECOMMENDER = or_note(own_recommender)
OWN_MAPS = or_note(own_maps)
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
PRODUCTS = or_note(own_products)

if PROBLEMS:
    raise WorkflowError("\n".join(PROBLEMS))


onsuccess:
    demo_guard.end(STATE, is_recorded)


onerror:
    demo_guard.end(STATE, is_recorded)
