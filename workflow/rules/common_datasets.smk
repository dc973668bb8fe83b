"""Inputs and params of the rules that write datasets for language models. No rule is defined here."""

from hashlib import sha256

from sidmill.datasets.tasks import load as load_task
from sidmill.datasets.tasks import load_prompts, names_titles

RESOURCES = ROOT / "workflow/resources"
TASKS = config["datasets"]["tasks"]


def own_products():
    """The SIDs of a second domain, where they are named."""
    path = config["datasets"]["product_pid2sid"]
    return expand_one(path, "datasets.product_pid2sid") if path else []


def expanded_model(wildcards):
    """The files of the language model that gets the SID tokens."""
    return model_files(named("vocabulary.model", "the model that gets the SID tokens"))


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
PRODUCTS = or_note(own_products)
