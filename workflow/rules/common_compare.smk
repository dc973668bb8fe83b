"""Inputs of the rules that compare quantizers. No rule is defined here."""


def histories():
    """Who consumed what, where the config names it."""
    sequences = config["evaluation"]["sequences"]
    if sequences == "results/interactions/sequences.parquet":
        return sequences  # a rule makes it
    return expand_path(sequences, (), "evaluation.sequences") if sequences else []


def training_costs():
    """The benchmark files of the members of the comparison that are trained, in their order."""
    members = config["comparison"]["members"]
    return [training_cost(member) for member in members if member != "given"]


def training_cost(quantizer):
    """The benchmark file of the rule that trains a quantizer."""
    name = f"rqvae.{quantizer}" if quantizer in NETWORKS else quantizer
    return f"results/benchmarks/train_{name}.tsv"


def compared_budget():
    """Codes per level of a member: those of the category level, if any, then the token budget."""
    level = where_categories([config["category_level"]["size"]])
    return {"codebook_sizes": [*level, *token_budget()["codebook_sizes"]]}


HISTORIES = or_note(histories)
