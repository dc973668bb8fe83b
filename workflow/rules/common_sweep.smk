"""Tokenizers of the sweep: their files and settings, by wildcards. No rule is defined here."""

from sidmill.settings import sweep as sweeps
from sidmill.settings.sweep import Sweep

SHUFFLED = "shuffled"


def swept_tokenizers():
    """Names of all tokenizers of the sweep, the reference first, the anchors last."""
    sweep = Sweep(**config["sweep"])
    trained = [tokenizer.name for tokenizer in sweeps.tokenizers(sweep)]
    return [*trained, *config["sweep"]["anchors"]]


def swept_tokenizer(wildcards, quantizer):
    """The tokenizer of a quantizer with the shape and the vectors that the wildcards name."""
    return sweeps.read_name(f"{quantizer}.{wildcards.shape}.{wildcards.fusion}")


def swept_fuse(wildcards):
    """Settings of a fusion, with the method and the weight of its name."""
    tokenizer = sweeps.read_name(f"rqkmeans.1.{wildcards.fusion}")
    return (
        settings("fuse", "folds", "use", "codebook_sizes")
        | sweeps.overlay(tokenizer)["fuse"]
    )


def swept_network(wildcards):
    """Settings of a network, with the codes per level of its name."""
    tokenizer = swept_tokenizer(wildcards, wildcards.learned)
    return settings("rqvae") | sweeps.overlay(tokenizer)["rqvae"]


def swept_budget(wildcards):
    """Codes per level of a quantizer that has no setting for them."""
    return {"codebook_sizes": list(swept_tokenizer(wildcards, "opq").shape)}


def swept_balance(wildcards):
    """Settings of residual k-means; ``rqkmeans_balanced`` has a balance even where the config has none."""
    own = sweeps.overlay(swept_tokenizer(wildcards, "rqkmeans"))["rqkmeans"]
    return rqkmeans_settings(wildcards) | own


def swept_vectors(wildcards):
    """The vectors that a tokenizer is trained on and measured by, and their ids."""
    fusion = wildcards.get("fusion")
    if fusion is None:
        name = swept_source(wildcards.tokenizer)
        fusion = "none" if name == "given" else sweeps.read_name(name).fusion
    if fusion == "none":
        return {
            "vectors": "results/items/vectors.npy",
            "ids": "results/items/ids.parquet",
        }
    folder = f"results/sweep/{fusion}"
    return {"vectors": f"{folder}/fused.npy", "ids": f"{folder}/fused_ids.parquet"}


def swept_source(tokenizer):
    """The tokenizer whose quantizer and codes are taken: shuffled SIDs are those of the first."""
    return swept_tokenizers()[0] if tokenizer == SHUFFLED else tokenizer


def swept_quantizer(wildcards):
    """The quantizer behind the codes of a tokenizer."""
    name = swept_source(wildcards.tokenizer)
    folder = "given" if name == "given" else f"sweep/{name}"
    return f"results/{folder}/quantizer.safetensors"


def swept_codes(wildcards):
    """The codes of a tokenizer."""
    name = wildcards.tokenizer
    return f"results/{name if name == 'given' else f'sweep/{name}'}/codes.parquet"


def swept_latents(wildcards):
    """The vectors by which collisions are resolved; given SIDs have no codebooks to compare them with."""
    return (
        {"vectors": [], "ids": []}
        if wildcards.tokenizer == "given"
        else swept_vectors(wildcards)
    )


def swept_warm_start(wildcards):
    """The quantizer that ``rqkmeans_plus`` begins at."""
    shape, fusion = wildcards.shape, wildcards.fusion
    folder = f"results/sweep/rqkmeans.{shape}.{fusion}"
    is_warm = wildcards.learned == "rqkmeans_plus"
    return f"{folder}/quantizer.safetensors" if is_warm else []


def swept_items(wildcards):
    """What the recommender of a tokenizer reads of the items."""
    if config["category_level"]["field"]:
        raise WorkflowError(
            f"category_level.field: {config['category_level']['field']}, but the tokenizers of a "
            f"sweep have no level of categories: set it to null"
        )
    if config["interactions"]["path"] is None:
        raise WorkflowError(
            "interactions.path is null, so there is nothing to train the recommenders of a sweep "
            "on: name the log"
        )
    text = {"vectors": "results/items/vectors.npy", "ids": "results/items/ids.parquet"}
    return {
        "sids": [f"results/sweep/{wildcards.tokenizer}/pid2sid.parquet"],
        "quantizers": [swept_quantizer(wildcards)],
    } | (text if config["generative"]["features"] == "sid+text" else {})


def swept_recommender(wildcards):
    """Settings of one recommender: a seed is a job of its own, and reads the SIDs of one tokenizer."""
    return settings("generative") | {"seeds": 1, "identifiers": []}


def swept_seeds():
    """Seeds of the recommenders of a tokenizer."""
    first = config["run"]["seed"]
    return {"seeds": list(range(first, first + config["generative"]["seeds"]))}


def swept_models(wildcards):
    """The recommenders of a tokenizer, one per seed."""
    folder = f"results/sweep/{wildcards.tokenizer}/generative"
    return [f"{folder}/{seed}/model.safetensors" for seed in swept_seeds()["seeds"]]


def swept_figures(wildcards):
    """The files of all tokenizers that the table is made of, in the order of their names."""
    names = swept_tokenizers()
    splits = ["valid", "test"] if config["sweep"]["test"] else ["valid"]
    files = {
        name: [f"results/sweep/{tokenizer}/{name}.json" for tokenizer in names]
        for name in ("evaluation", "resolution", *splits)
    }
    costs = [swept_costs(tokenizer) for tokenizer in names]
    return files | {
        "users": [f"results/sweep/{tokenizer}/valid.parquet" for tokenizer in names],
        "trainings": [cost for one in costs for cost in one["tokenizer"]],
        "recommenders": [cost for one in costs for cost in one["recommenders"]],
    }


def swept_costs(tokenizer):
    """Benchmark files of the training of a tokenizer, none for an anchor, and of its recommenders."""
    recommenders = [
        f"results/benchmarks/sweep_train_generative.{tokenizer}.{seed}.tsv"
        for seed in swept_seeds()["seeds"]
    ]
    if tokenizer in config["sweep"]["anchors"]:
        return {"tokenizer": [], "recommenders": recommenders}
    network = sweeps.read_name(tokenizer).quantizer in NETWORKS
    job = "sweep_train_rqvae." if network else "sweep_train_"
    return {
        "tokenizer": [f"results/benchmarks/{job}{tokenizer}.tsv"],
        "recommenders": recommenders,
    }


def seed_in_use(wildcards):
    """The seed of one recommender."""
    return {"seed": int(wildcards.seed)}
