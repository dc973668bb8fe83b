"""Settings that are right each for itself and do not fit each other, which no JSON Schema can say.

A check reads the sections that it names, and yields a line per problem: the key, what was found,
what is wanted. What depends on the data is checked where the data are.
"""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from sidmill.core.listing import some

MAX_LEVELS = 26  # levels of a SID are lettered from a
MAX_CODES = 2**20  # of a level, as the schema has it
CUT_INDEXES = ("ivfpq", "opq")  # which cut the dimensions into parts of one size
ROLES = {
    "missrec": ("user", "item"),
    "sequences": ("user", "item", "time", "split"),
    "events": ("user", "item", "time", "split"),
    "onerec": ("user", "split", "history", "target"),
}
# Settings that an embedding backend cannot do without, and why.
NEEDED_BY_BACKEND = {
    "lsa": {"dim": "backend lsa needs a number of dimensions"},
    "sentence_transformers": {"model": "backend sentence_transformers needs a hub id or a folder"},
    "openai": {"model": "backend openai needs the server's name of the model"},
    "precomputed": {
        "path": "backend precomputed needs the file or folder of your embeddings",
        "model": "backend precomputed needs a name for the embedding space",
    },
}
PROMPTLESS = ("lsa", "precomputed")
TIMELESS = ("missrec", "onerec")
PROMPTED = ("sentence_transformers", "openai")  # backends that put a prompt before texts


# Settings that name files or folders of the user.
INPUTS = {
    "items": ("path",),
    "interactions": ("path",),
    "embedding": ("path", "ids_path", "model"),
    "pretrained": ("path",),
    "published": ("path",),
    "rqvae": ("data_paths", "pairs_path"),
    "evaluation": ("sequences",),
    "retrieval": ("corpus", "corpus_ids", "queries", "query_ids", "qrels"),
    "training": ("dual", "cross", "queries"),
    "recommender": ("mmap_path", "load"),
    "datasets": ("users", "captions", "product_pid2sid"),
    "vocabulary": ("model",),
}


class Check(NamedTuple):
    """``lines`` takes the config, where every one of ``sections`` is as the schema wants it."""

    sections: tuple[str, ...]
    lines: Callable[[dict], Iterator[str]]


def find(config: dict, broken: set[str]) -> list[str]:
    """List what does not fit.

    Args:
        config: the merged configuration.
        broken: sections that break the schema: what reads them is passed over.
    """
    # What a choice needs comes first: the other checks rely on it.
    lines, lacking = [], set()
    for section, line in _needs(config, broken):
        lines.append(line)
        lacking.add(section)
    broken = broken | lacking
    return lines + [
        line
        for check in CHECKS
        if broken.isdisjoint(check.sections)
        for line in check.lines(config)
    ]


def _needs(config: dict, broken: set[str]) -> Iterator[tuple[str, str]]:
    """Sections in which a choice lacks the setting that it needs, each with its line."""
    if "embedding" not in broken:
        section = config["embedding"]
        backend = section["backend"]
        for key, why in NEEDED_BY_BACKEND[backend].items():
            if section[key] is None:
                yield "embedding", f"embedding.{key}: found null, wanted one ({why})"
        if backend in PROMPTLESS and section["prompt"]:
            yield (
                "embedding",
                f"embedding.prompt: found {section['prompt']!r}, wanted '' (backend {backend} "
                f"takes no prompt)",
            )
        is_npy = backend == "precomputed" and str(section["path"]).lower().endswith(".npy")
        if is_npy and section["rows"] == "ids" and section["ids_path"] is None:
            yield (
                "embedding",
                "embedding.ids_path: found null, wanted one (a .npy holds no ids: name the file of "
                "its ids, or set embedding.rows: catalogue)",
            )
    is_pretrained = config.get("quantizer") == "pretrained" and "pretrained" not in broken
    if is_pretrained and config["pretrained"]["path"] is None:
        yield (
            "pretrained",
            "pretrained.path: found null, wanted one (quantizer: pretrained needs the file of a "
            "quantizer)",
        )


def _rqkmeans(config: dict) -> Iterator[str]:
    size, levels = config["rqkmeans"]["codebook_size"], config["rqkmeans"]["n_levels"]
    if isinstance(size, list) and len(size) != levels:
        yield (
            f"rqkmeans.codebook_size: found {len(size)} sizes for {levels} levels: give one size "
            f"per level, or one number for all"
        )


def _levels(config: dict) -> Iterator[str]:
    key, levels = "rqkmeans.n_levels", config["rqkmeans"]["n_levels"]
    if config["quantizer"] in ("rqvae", "fsq"):
        key, levels = "levels of rqvae.codebook_sizes", len(config["rqvae"]["codebook_sizes"])
    if config["quantizer"] in ("pretrained", "given"):
        return
    if config["collisions"]["strategy"] == "suffix" and levels == MAX_LEVELS:
        yield (
            f"{key}: found {levels}, and collisions.strategy: suffix adds one: SIDs have at most "
            f"{MAX_LEVELS}: take a level off, or another strategy"
        )


def _given(config: dict) -> Iterator[str]:
    chosen = config["quantizer"] == "given"
    given, items = config["given"], config["items"]["path"]
    compared = "given" in config["comparison"]["members"]
    if given["path"] is None and (chosen or compared):
        what = "quantizer: given" if chosen else "comparison.members with given"
        yield f"given.path: found null, but {what} needs the file of the SIDs: name it"
    if items is None and not chosen:
        yield (
            f"items.path: found null, but quantizer: {config['quantizer']} is made from items: "
            f"name the catalogue, or set quantizer: given"
        )
    if items is None and given["measure_neighbours"]:
        yield (
            "given.measure_neighbours: found true, but items.path is null, so there is no text to "
            "embed: set it to false, or name the catalogue"
        )
    if items is None and config["published"]["path"] is not None:
        yield (
            "published.path: needs the texts of the items, and items.path is null: name the "
            "catalogue, or set published.path: null"
        )
    if not chosen:
        return
    strategy = config["collisions"]["strategy"]
    if strategy == "sinkhorn":
        yield (
            "collisions.strategy: found sinkhorn, which spreads items by their distances to "
            "codewords, and given SIDs have none: set none (the SIDs stay as they are), reassign "
            "or suffix"
        )
    if items is None and config["collisions"]["identical_text"] == "share":
        yield (
            "collisions.identical_text: found share, but items.path is null, so items have no "
            "text: set separate, or name the catalogue"
        )
    if config["vocabulary"]["model"] is not None and config["vocabulary"]["init"] == "codebook":
        yield (
            "vocabulary.init: found codebook, but given SIDs have no codebooks: set mean or random"
        )


def _published(config: dict) -> Iterator[str]:
    section, strategy = config["published"], config["collisions"]["strategy"]
    if section["path"] is not None and section["removed"] == "reserve" and strategy == "none":
        yield (
            "published.removed: found reserve, but collisions.strategy: none gives every new item "
            "the SID of its codes, though it be that of a removed one: set published.removed: "
            "release, which frees them, or another strategy"
        )


def _rqvae(config: dict) -> Iterator[str]:
    rqvae = config["rqvae"]
    levels, largest = len(rqvae["codebook_sizes"]), max(rqvae["codebook_sizes"])
    if len(rqvae["sk_epsilons"]) not in (0, levels):
        yield (
            f"rqvae.sk_epsilons: found {len(rqvae['sk_epsilons'])} numbers for {levels} levels: "
            f"give one per level (0 for the nearest codeword), or [] for none"
        )
    for key in ("warmup_epochs", "autoencoder_epochs"):
        if rqvae[key] >= rqvae["epochs"]:
            most = rqvae["epochs"]
            yield f"rqvae.{key}: found {rqvae[key]}, wanted less than rqvae.epochs ({most})"
    if rqvae["batch_size"] < 2 * rqvae["processes"]:
        yield (
            f"rqvae.batch_size: found {rqvae['batch_size']} for {rqvae['processes']} processes, "
            f"each of which needs 2 rows of a batch: wanted at least {2 * rqvae['processes']}"
        )
    starts = (
        config["quantizer"] not in ("rqkmeans_plus", "fsq")
        and rqvae["kmeans_init"] == "first_batch"
    )
    if starts and rqvae["batch_size"] < largest:
        yield (
            f"rqvae.kmeans_init: found first_batch, but a batch of {rqvae['batch_size']} cannot "
            f"start {largest} codewords: raise rqvae.batch_size, or set full"
        )


def _fsq(config: dict) -> Iterator[str]:
    steps = config["fsq"]["steps"]
    if math.prod(steps) > MAX_CODES:
        yield (
            f"fsq.steps: found {steps}, which make {math.prod(steps):,} codes per level, wanted at "
            f"most {MAX_CODES:,}: lower them, or divide them among more levels "
            f"(rqvae.codebook_sizes has one entry for each)"
        )


def _pairs(config: dict) -> Iterator[str]:
    rqvae, log = config["rqvae"], config["interactions"]["path"]
    if not rqvae["contrastive_weight"]:
        return
    if rqvae["data_paths"]:
        yield (
            "rqvae.contrastive_weight: pairs are of the catalogue's items, but rqvae.data_paths "
            "names other vectors: empty it, or set the weight to 0"
        )
    if rqvae["pairs_path"] is None and log is None:
        yield (
            "rqvae.contrastive_weight: needs pairs of items: name them in rqvae.pairs_path or "
            "interactions.path, or set it to 0"
        )


def _quantizer(config: dict) -> Iterator[str]:
    """What the chosen quantizer cannot do with the dimensions that the embeddings have."""
    dim, chosen = config["embedding"]["dim"], config["quantizer"]
    rqvae, levels = config["rqvae"], config["rqkmeans"]["n_levels"]
    if dim is None:
        return
    if chosen == "rqvae" and rqvae["skip"] == "pca" and rqvae["e_dim"] > dim:
        yield (
            f"rqvae.e_dim: found {rqvae['e_dim']}, but embedding.dim is {dim}: lower it, or set "
            f"rqvae.skip: none"
        )
    if chosen == "opq" and dim < levels:
        yield (
            f"rqkmeans.n_levels: found {levels}, but opq cuts {dim} dimensions into so many parts: "
            f"lower it to at most {dim}"
        )


def _interactions(config: dict) -> Iterator[str]:
    section = config["interactions"]
    form = section["format"]
    named = {role: name for role, name in section["fields"].items() if name is not None}
    for role in named if form in ROLES else ():
        if role not in ROLES[form]:
            yield (
                f"interactions.fields.{role}: found {named[role]!r}, but format {form} has only "
                f"{', '.join(ROLES[form])}: set it to null"
            )
    for role, name in named.items():
        first = next(other for other in named if named[other] == name)
        if first != role:
            yield f"interactions.fields.{role}: found {name!r}, which is {first} already"
    if section["split"] == "time" and form in TIMELESS:
        yield f"interactions.split: found time, but format {form} has no timestamps: take another"


def _embedding(config: dict) -> Iterator[str]:
    section = config["embedding"]
    backend, dim = section["backend"], section["dim"]
    for key in ("path", "ids_path") if backend != "precomputed" else ():
        if section[key] is not None:
            yield (
                f"embedding.{key}: found {section[key]!r}, which backend {backend} does not read: "
                f"set embedding.backend: precomputed, or null"
            )
    if backend == "precomputed" and section["rows"] == "catalogue" and section["ids_path"]:
        yield (
            f"embedding.ids_path: found {section['ids_path']!r}, but embedding.rows: catalogue "
            f"takes the order of the catalogue: set embedding.rows: ids, or ids_path to null"
        )
    if backend == "precomputed" and section["ids_path"] and section["path"].endswith(".parquet"):
        yield (
            f"embedding.ids_path: found {section['ids_path']!r}, but {section['path']} "
            f"holds its ids: set it to null"
        )
    for key in ("lsa_sample", "lsa_features") if backend == "lsa" else ():
        if dim >= section[key]:
            yield f"embedding.{key}: found {section[key]}, wanted more than embedding.dim ({dim})"


def _h5(config: dict) -> Iterator[str]:
    if config["h5"]["features"] == "model" and config["embedding"]["model"] is None:
        yield "h5.features: found model, but embedding.model is null: name it, or set words"


def _retrieval(config: dict) -> Iterator[str]:
    section, backend = config["retrieval"], config["embedding"]["backend"]
    if section["query_prompt"] and backend not in PROMPTED:
        yield (
            f"retrieval.query_prompt: found {section['query_prompt']!r}, but backend {backend} "
            f'takes no prompt: set it to ""'
        )
    if section["topk_names"] == "dureader" and section["corpus"] == "items":
        yield (
            "retrieval.topk_names: found dureader, which names passages by their lines, but "
            "retrieval.corpus is items: set ids"
        )
    for key, source in (("corpus_ids", "corpus"), ("query_ids", "queries")):
        if section[key] is not None and section[source] in (None, "items"):
            yield (
                f"retrieval.{key}: found {section[key]!r}, the ids of lines, but retrieval."
                f"{source} is {section[source] or 'null'}: name the file of these lines, or set "
                f"null"
            )


def _faiss(config: dict) -> Iterator[str]:
    faiss, retrieval, dim = config["faiss"], config["retrieval"], config["embedding"]["dim"]
    if retrieval["index"] == "flat":
        return
    least = retrieval["top_k"] + retrieval["exclude_own"]
    if faiss["candidates"] < least:
        one_more = ", and one more with retrieval.exclude_own" * retrieval["exclude_own"]
        yield (
            f"faiss.candidates: found {faiss['candidates']}, wanted at least retrieval.top_k "
            f"({retrieval['top_k']}){one_more}"
        )
    if retrieval["index"] in CUT_INDEXES and dim is not None and dim % faiss["code_bytes"]:
        yield (
            f"faiss.code_bytes: found {faiss['code_bytes']}, wanted a divisor of embedding.dim "
            f"({dim})"
        )


def _dual(config: dict) -> Iterator[str]:
    mini, batch = config["dual"]["mini_batch"], config["dual"]["batch_size"]
    if mini is not None and mini > batch:
        yield f"dual.mini_batch: found {mini}, wanted at most dual.batch_size ({batch}), or null"


def _mining(config: dict) -> Iterator[str]:
    skip, depth = config["mining"]["skip"], config["mining"]["depth"]
    if skip >= depth:
        yield f"mining.skip: found {skip}, wanted less than mining.depth ({depth})"


def _training(config: dict) -> Iterator[str]:
    """A model to train without the file that it learns from."""
    training, cross = config["training"], config["cross"]
    kinds = {"dual": "dual", "cross": "dual" if cross["source"] == "mined" else "cross"}
    for section, file in kinds.items():
        if config[section]["model"] is not None and training[file] is None:
            yield (
                f"{section}.model: found {config[section]['model']!r}, but training.{file} is "
                f"null: name what it learns from, or set {section}.model: null"
            )


def _revisions(config: dict) -> Iterator[str]:
    """A commit of the hub for a model that this workflow trains."""
    for section in ("embedding", "dual", "cross", "rerank"):
        model, revision = config[section]["model"], config[section]["revision"]
        if revision is not None and model is not None and model.startswith("results/"):
            yield f"{section}.revision: found {revision!r}, but {model} is no hub model: set null"


def _recommender(config: dict) -> Iterator[str]:
    section = config["recommender"]
    width, heads = section["hidden_dim"], section["n_heads"]
    if width % (2 * heads):
        yield (
            f"recommender.hidden_dim: found {width}, which does not give each of {heads} heads "
            f"(recommender.n_heads) an even number: wanted a multiple of {2 * heads}"
        )
    if section["train_from"] == "text" and section["mmap_path"] is not None:
        yield (
            f"recommender.mmap_path: found {section['mmap_path']!r}, which train_from: text does "
            f"not read: set recommender.train_from: mmap, or null"
        )


def _index(config: dict) -> Iterator[str]:
    """An output whose name the user chose: it must not replace an input, or lie among some."""
    written = Path(os.path.abspath(config["index"]["path"]))  # noqa: PTH100 - links stay as they are
    for section, keys in INPUTS.items():
        for key in keys:
            value = config[section][key]
            for path in value if isinstance(value, list) else [value]:
                if path and Path(os.path.abspath(path)) in (written, written.parent):  # noqa: PTH100
                    yield (
                        f"index.path: found {config['index']['path']!r}, which {section}.{key} "
                        f"({path}) reads: name a file elsewhere"
                    )


def _mixtures(config: dict) -> Iterator[str]:
    for name in ("mixture", "rl"):
        weights, held = config[name]["weights"], config[name]["test_size"]
        for stray in sorted(set(held) - set(weights)):
            yield (
                f"{name}.test_size: found {stray}, which {name}.weights does not name: wanted "
                f"some of {some(sorted(weights))}"
            )


CHECKS = [
    Check(("rqkmeans",), _rqkmeans),
    Check(("rqkmeans", "rqvae", "quantizer", "collisions"), _levels),
    Check(
        ("given", "quantizer", "items", "comparison", "published", "collisions", "vocabulary"),
        _given,
    ),
    Check(("published", "collisions"), _published),
    Check(("rqvae", "quantizer"), _rqvae),
    Check(("fsq",), _fsq),
    Check(("rqvae", "interactions"), _pairs),
    Check(("quantizer", "embedding", "rqkmeans", "rqvae"), _quantizer),
    Check(("interactions",), _interactions),
    Check(("embedding",), _embedding),
    Check(("h5", "embedding"), _h5),
    Check(("retrieval", "embedding"), _retrieval),
    Check(("faiss", "retrieval", "embedding"), _faiss),
    Check(("dual",), _dual),
    Check(("mining",), _mining),
    Check(("training", "dual", "cross"), _training),
    Check(("embedding", "dual", "cross", "rerank"), _revisions),
    Check(("recommender",), _recommender),
    Check(("mixture", "rl"), _mixtures),
    Check(("index", *INPUTS), _index),
]
