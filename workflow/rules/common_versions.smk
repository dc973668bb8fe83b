"""What a run takes from the published version that it continues. No rule is defined here."""

from math import prod

from sidmill.core.listing import differences
from sidmill.formats.version_folder import check_sizes
from sidmill.formats.version_folder import find as find_version
from sidmill.formats.version_folder import read as read_version


def own_version():
    """The files of the published version, by name; none where the config names no version."""
    path = config["published"]["path"]
    if path is None:
        return {}
    if Path(path).resolve().is_relative_to(Path("results").resolve()):
        raise SidmillError(
            f"published.path: {path} lies in results/, which this run writes: move it elsewhere"
        )
    version = find_version(path, "published.path")
    manifest = read_version(version["all"][0], "")
    given = manifest["quantizer"] == "given"
    if given and config["quantizer"] != "given":
        raise SidmillError(
            f"published.path: the SIDs of {path} were given, and no codebooks can make SIDs for "
            f"other items: set quantizer: given, and name in given.path a file with the SIDs of all"
        )
    if config["published"]["refresh"] != "none":
        check_levels(version["ledger"][0], manifest["collisions"]["strategy"])
    or_note(check_published_level, path, version)
    return version


def version_files(wildcards):
    """All files of the published version."""
    named("published.path", "a version that `sidmill publish` made")
    return VERSION["all"]


def check_levels(ledger, strategy):
    """Refuse codebooks that the SIDs of a version do not fit; a pretrained quantizer is checked in its job."""
    from sidmill.formats.ledger_file import token_sizes

    quantizer = config["quantizer"]
    if quantizer in ("pretrained", "given"):
        return
    sizes = token_budget()["codebook_sizes"]
    if quantizer in ("rqvae", "fsq"):
        sizes = config["rqvae"]["codebook_sizes"]
    if quantizer == "fsq":
        sizes = [prod(config["fsq"]["steps"])] * len(sizes)
    published = token_sizes(ledger)
    check_sizes(sizes, published[: len(published) - STRATEGIES[strategy].extra_tokens])


def check_published_level(path, version):
    """Refuse another category level than that of the published quantizer."""
    published = read_version(version["all"][0], "").get("category_level") or {}
    keys = ("field", "path_separator", "depth")
    wanted = {key: config["category_level"][key] for key in keys}
    if not published and not wanted["field"]:
        return
    own = {key: published.get(key) for key in keys}
    differing = differences(own, wanted, ("in that version", "in the configuration"))
    if differing:
        raise SidmillError(
            f"category_level: found another category level than that of published.path: {path} "
            f"({differing}): set it as it was when the version was published, or set "
            f"published.path: null to train again"
        )


def fitted_lsa(collection):
    """The LSA of a collection: the published one, for the catalogue of a version made with LSA."""
    if collection == "items" and "lsa" in VERSION:
        return VERSION["lsa"][0]
    return f"results/{collection}/lsa.safetensors"


def reused_vectors(wildcards):
    """What a shard of the catalogue takes from a published version."""
    if wildcards.collection != "items" or "embeddings" not in VERSION:
        return {}
    return {
        "match": "results/published/match.parquet",
        "published": VERSION["embeddings"],
    }


def own_lsa():
    """The LSA that the catalogue is embedded with, where it is."""
    is_lsa = config["embedding"]["backend"] == "lsa"
    return where_embedded(fitted_lsa("items")) if is_lsa else []


def all_embeddings():
    """All shards of the catalogue; none where it is not embedded."""
    if not where_embedded("vectors"):
        return []
    shards = config["embedding"]["shards"]
    folder = "results/items/embeddings.parquet"
    return [
        f"{folder}/part-{shard:05d}-of-{shards:05d}.parquet" for shard in range(shards)
    ]


def where_published(path):
    """A file that there is only with a published version."""
    return path if VERSION else []


def trained_again(name):
    """A file of the quantizer that is trained again for a published version."""
    is_warm = config["published"]["refresh"] == "warm_start"
    return f"results/{config['quantizer']}{'_warm_start' * is_warm}/{name}"


def from_scratch(name):
    """A file of the quantizer that is trained without the version, where a refresh is compared with it."""
    refresh = config["published"]["refresh"]
    if (
        not VERSION
        or refresh == "none"
        or (refresh == "warm_start" and not config["churn"]["compare_retraining"])
    ):
        return []
    return f"results/{config['quantizer']}/{name}"


VERSION = or_note(own_version) or {}
PARENT = VERSION["all"][0] if VERSION else []
