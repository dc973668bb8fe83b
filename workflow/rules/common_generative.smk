"""Helpers of the rules of the generative recommender. No rule lives here."""


def sids_of(quantizer):
    """The resolved SIDs of a quantizer: those of the run, where the config chose it."""
    if quantizer == config["quantizer"]:
        return "results/pid2sid.parquet"
    return f"results/{quantizer}/pid2sid.parquet"


def quantizer_of(quantizer):
    """The quantizer behind the SIDs."""
    if quantizer == config["quantizer"]:
        return chosen("quantizer.safetensors")
    return f"results/{quantizer}/quantizer.safetensors"


def where_text(path):
    """A file that is made of texts; none where items.path is null."""
    return path if item_text() else []


def downstream_files(name):
    """A file of the generative recommender of each member of the comparison, where it is asked for."""
    if not config["comparison"]["downstream"]:
        return []
    # Recommenders of results/generative/{quantizer} that compare items by SIDs are the same ones.
    folder = "results/generative"
    if fuses_for("similarity"):
        folder = "results/generative/by_sids"
    return [f"{folder}/{member}/{name}" for member in config["comparison"]["members"]]


def generative_items_by_sids(wildcards):
    """What a generative recommender reads of the items where it compares them by SIDs."""
    generative = config["generative"]
    others = [one for one in generative["identifiers"] if one != wildcards.quantizer]
    identifiers = [wildcards.quantizer, *others]
    files = {
        "sids": [sids_of(one) for one in identifiers],
        "quantizers": [quantizer_of(one) for one in identifiers],
    }
    if generative["features"] == "sid+text":
        files |= {
            "vectors": "results/items/vectors.npy",
            "ids": "results/items/ids.parquet",
        }
    return files


def generative_items(wildcards):
    """What a generative recommender reads of the items: SIDs of each identifier, text if asked."""
    files = generative_items_by_sids(wildcards)
    if fuses_for("similarity"):
        files["similarity"] = compared_files("codes.parquet", "quantizer.safetensors")
    return files


def compared_files(*names):
    """Files of the codes that are compared and not generated."""
    return [f"results/similarity/{name}" for name in names]


def generative_training(wildcards):
    """What training reads of the items: the codes of each fold of users too, where there are folds."""
    files = generative_items(wildcards)
    if config["fuse"]["folds"] == 1:
        return files
    if fuses_for("similarity"):
        return files | {
            "similarity": files["similarity"] + compared_files("fold_codes.parquet")
        }
    if not fuses_for("sids") or wildcards.quantizer == "given":
        return files
    others = [
        one for one in config["generative"]["identifiers"] if one != wildcards.quantizer
    ]
    return files | {
        "folds": [fold_codes_of(one) for one in [wildcards.quantizer, *others]]
    }


def generative_training_by_sids(wildcards):
    """What training reads of the items where they are compared by SIDs."""
    if fuses_for("similarity"):
        return generative_items_by_sids(wildcards)
    return generative_training(wildcards)


def fold_codes_of(quantizer):
    """The codes of a quantizer for each fold of users."""
    if quantizer == config["quantizer"]:
        return chosen("fold_codes.parquet")
    return f"results/{quantizer}/fold_codes.parquet"


def generative_rivals(wildcards):
    """The recommender that a generative one is measured beside; none without text."""
    if not config["generative_evaluation"]["with_recommender"] or not item_text():
        return {}
    files = recommender_items(wildcards)
    return {f"text_{name}": file for name, file in files.items()} | {
        "recommender": "results/recommender/model.safetensors"
    }


def vectors_behind_codes(wildcards):
    """The vectors of the items, for a quantizer with codebooks."""
    return [] if wildcards.quantizer == "given" else item_vectors()


def ids_behind_codes(wildcards):
    """The ids of these vectors."""
    return [] if wildcards.quantizer == "given" else item_vector_ids()


def generator_in_use(wildcards):
    """Which generative model is trained."""
    return {"generator": config["generative"]["model"]}
