"""Inputs and params of the rules that train encoders. No rule is defined here."""


def training_files(wildcards):
    """Training lines of an encoder, and the texts that judgements name."""
    files = {"files": user_files(f"training.{wildcards.kind}")}
    if config["training"]["form"] == "rocketqa":
        return files
    own = config["training"]["queries"] is not None
    asked = "training_queries" if own else "queries"
    return files | {
        "corpus": of_corpus("text.parquet"),
        "queries": f"results/{asked}/text.parquet",
    }


def training_settings(wildcards):
    """The file of a kind, its form, and the treatment of bad lines."""
    return pick("training", wildcards.kind, "form", "on_bad_rows", "max_reject_share")


def dual_inputs(wildcards):
    """Training rows of a round of the dual encoder, and its base model."""
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
    """The files of the base model of a training."""
    if config[section]["model"] is None:
        raise WorkflowError(f"{section}.model is null: name a hub id or a folder")
    return model_files(config[section]["model"])


def cross_inputs(wildcards):
    """Training rows of the cross encoder, and its base model."""
    mined = config["cross"]["source"] == "mined"
    pairs = (
        "results/mining/pairs.parquet" if mined else "results/training/cross.parquet"
    )
    return {"pairs": pairs} | base_model("cross")


def mined_corpus(wildcards):
    """The passages that negatives come from in addition to those of the training file."""
    return of_corpus("text.parquet") if config["mining"]["pool"] == "corpus" else []
