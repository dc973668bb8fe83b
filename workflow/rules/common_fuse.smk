"""Which vectors of the items quantizers are given. No rule is defined here."""


def fuses_for(use):
    """Whether vectors are fused, and for this use: ``sids`` or ``similarity``."""
    return config["fuse"]["method"] != "none" and config["fuse"]["use"] == use


def item_vectors():
    """The vectors that quantizers of SIDs are trained on, encode, and are measured by."""
    if fuses_for("sids"):
        return "results/items/fused.npy"
    return "results/items/vectors.npy"


def item_vector_ids():
    """The ids of these vectors."""
    if fuses_for("sids"):
        return "results/items/fused_ids.parquet"
    return "results/items/ids.parquet"
