"""Inputs of the rules that train and use a recommender. No rule is defined here."""


def own_recommender():
    """The checkpoint that training starts from, one file, where one is named."""
    path = config["recommender"]["load"]
    if not path:
        return []
    return expand_one(path, "recommender.load", (".safetensors",), foreign=True)


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


OWN_RECOMMENDER = or_note(own_recommender)
OWN_MAPS = or_note(own_maps)
