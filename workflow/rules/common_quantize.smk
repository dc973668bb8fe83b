"""Inputs and params of the rules that train quantizers. No rule is defined here."""

from sidmill.quantize import codebook_sizes

VECTOR_FILES = (".npy", ".h5", ".parquet")


def own_quantizer():
    """The checkpoint of the user, where the quantizer is pretrained."""
    if config["quantizer"] != "pretrained":
        return []
    return expand_one(config["pretrained"]["path"], "pretrained.path")


def pretrained_files(wildcards):
    """The checkpoint, for the rule that reads it."""
    named("pretrained.path", "the quantizer to load")
    return OWN_QUANTIZER


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


def rqkmeans_settings(wildcards):
    """Settings of residual k-means; ``rqkmeans_balanced`` has a balance even where the config has none."""
    found = settings("rqkmeans")
    if wildcards.get("balanced") and found["balance"] == "none":
        found["balance"] = "capacity"
    return found


def tasks_with_work(settings_of):
    """The tasks of a residual k-means with some settings: rqkmeans.processes, but none that would only wait."""

    def tasks(wildcards):
        size = settings_of(wildcards)["codebook_size"]
        return codebook_sizes.processes_at_work(config["rqkmeans"]["processes"], size)

    return tasks


def compared_settings(wildcards):
    """Settings of the residual k-means of codes that are compared and not generated."""
    sizes = config["fuse"]["codebook_sizes"]
    own = {"n_levels": len(sizes), "codebook_size": sizes} if sizes else {}
    return settings("rqkmeans") | own


def compared_sizes():
    """Whether these codes are as many as there are items, where those are fewer: not if they were asked for."""
    return {"is_capped": config["fuse"]["codebook_sizes"] is None}


def balance_in_use(wildcards):
    """The balance of residual k-means."""
    return {"balance": rqkmeans_settings(wildcards)["balance"]}


def learned_in_use(wildcards):
    """Which of the quantizers that are networks is trained."""
    return {"learned": wildcards.learned}


def warm_start(wildcards):
    """The quantizer that ``rqkmeans_plus`` begins at."""
    is_warm = wildcards.learned == "rqkmeans_plus"
    path = f"results/rqkmeans{wildcards.start}/quantizer.safetensors"
    return path if is_warm else []


def known_codes(wildcards):
    """What a training reads that starts from published codes; rqkmeans_plus reads none itself."""
    is_second = getattr(wildcards, "learned", None) == "rqkmeans_plus"
    if not wildcards.start or is_second:
        return {}
    return {
        "ledger": "results/published/ledger.parquet",
        "match": "results/published/match.parquet",
    }


def fsq_settings(wildcards):
    """The steps of finite scalar quantization; none for networks that learn codebooks."""
    is_grid = wildcards.learned == "fsq"
    return settings("fsq") if is_grid else dict.fromkeys(settings("fsq"))


def token_budget():
    """Codes per level that every quantizer of a comparison may use."""
    n_levels, size = (config["rqkmeans"][key] for key in ("n_levels", "codebook_size"))
    return {"codebook_sizes": size if isinstance(size, list) else [size] * n_levels}


OWN_QUANTIZER = or_note(own_quantizer)
LEARNED_FROM = or_note(learned_from)
