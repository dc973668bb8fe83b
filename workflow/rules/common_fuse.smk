"""Which vectors of the items quantizers are given. No rule is defined here."""


def fuses_for(use):
    """Whether vectors are fused, and for this use: ``sids`` or ``similarity``, where it is read."""
    fuse = config["fuse"]
    if fuse["method"] == "none" or fuse["use"] != use:
        return False
    return use == "sids" or compares_fused()


def compares_fused():
    """Whether the generative recommender compares items by codes of the fused vectors."""
    generative = config["generative"]
    return (
        generative["model"] == "causal"
        and generative["similarity"]
        and generative["features"] == "sid"
        and config["items"]["path"] is not None
    )


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
