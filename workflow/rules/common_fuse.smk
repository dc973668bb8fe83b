"""Which vectors of the items quantizers are given. No rule is defined here."""


def item_vectors():
    """The vectors that quantizers are trained on, encode, and are measured by."""
    if config["fuse"]["method"] == "none":
        return "results/items/vectors.npy"
    return "results/items/fused.npy"


def item_vector_ids():
    """The ids of these vectors."""
    if config["fuse"]["method"] == "none":
        return "results/items/ids.parquet"
    return "results/items/fused_ids.parquet"
