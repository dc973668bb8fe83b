"""Inputs and params of the rules that resolve and measure SIDs. No rule is defined here."""


def where_codebooks(path):
    """A file that only SIDs made from codebooks need: given ones have none."""
    return [] if config["quantizer"] == "given" else path


def where_embedded(path):
    """A file of vectors, where figures are made of them: given SIDs are embedded on request."""
    given = config["quantizer"] == "given" and not config["given"]["measure_neighbours"]
    return [] if given else path


def strategy_in_use(wildcards):
    """How collisions are resolved."""
    return {"strategy": config["collisions"]["strategy"]}
