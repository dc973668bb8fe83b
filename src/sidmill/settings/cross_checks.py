"""Settings that are valid each by itself and contradict each other, which no JSON Schema can say.

A check is a function whose parameters are sections of the configuration, found by their name. It
yields a line per problem: the key, what was found, what is expected. It runs where all of its
sections are sound. What depends on the data is checked where the data are read.
"""

import dataclasses
import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sidmill.core.listing import some
from sidmill.settings import base
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.config import SECTIONS
from sidmill.settings.datasets import Mixture, Rl, Vocabulary
from sidmill.settings.embedding import Embedding
from sidmill.settings.fuse import Fuse
from sidmill.settings.generative import Generative, GenerativeTopk
from sidmill.settings.interactions import H5, Interactions
from sidmill.settings.items import Items
from sidmill.settings.quantize import Fsq, Pretrained, Rqkmeans, Rqvae
from sidmill.settings.recommend import Recommender
from sidmill.settings.registry import NETWORKS, STARTED, STRATEGIES
from sidmill.settings.retrieval import (
    Cross,
    Dual,
    Faiss,
    Mining,
    Rerank,
    Retrieval,
    Training,
)
from sidmill.settings.sids import (
    Collisions,
    Comparison,
    Given,
    Index,
    Published,
)
from sidmill.settings.sweep import Sweep, tokenizers

Lines = Iterator[str]

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
    "imported": ("path",),
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


def find(config: Mapping[str, Any], broken: set[str]) -> list[str]:
    """List the contradictions between settings of a configuration.

    Args:
        config: the merged configuration.
        broken: sections that break the schema; checks that read them do not run.
    """
    sound = {
        name: base.read(SECTIONS[name], value) if name in SECTIONS else value
        for name, value in config.items()
        if name not in broken and (name in SECTIONS or name == "quantizer")
    }

    # A choice that lacks a setting it needs breaks its section, since other checks rely on it.
    lines = []
    for section, check in NEEDS.items():
        lacking = _run(check, sound)
        lines += lacking
        if lacking:
            del sound[section]

    lines += [line for check in CHECKS for line in _run(check, sound)]
    if "index" in sound:
        inputs = {name: sound[name] for name in INPUTS if name in sound}
        lines += overwritten_inputs(sound["index"], inputs)
    return lines


def _run(check: Callable[..., Lines], sound: Mapping[str, Any]) -> list[str]:
    """Lines of a check; none where one of its sections is not sound."""
    names = inspect.signature(check).parameters
    if not names.keys() <= sound.keys():
        return []
    return list(check(**{name: sound[name] for name in names}))


def backend_inputs(embedding: Embedding) -> Lines:
    """Check settings that the chosen backend needs, or cannot read."""
    backend = embedding.backend
    for key, why in NEEDED_BY_BACKEND[backend].items():
        if getattr(embedding, key) is None:
            yield f"embedding.{key}: found null, wanted one ({why})"
    if backend in PROMPTLESS and embedding.prompt:
        yield (
            f"embedding.prompt: found {embedding.prompt!r}, wanted '' (backend {backend} "
            f"takes no prompt)"
        )
    is_npy = backend == "precomputed" and str(embedding.path).lower().endswith(".npy")
    if is_npy and embedding.rows == "ids" and embedding.ids_path is None:
        yield (
            "embedding.ids_path: found null, wanted one (a .npy holds no ids: name the file of "
            "its ids, or set embedding.rows: catalogue)"
        )


def pretrained_file(quantizer: str, pretrained: Pretrained) -> Lines:
    """The file of a quantizer that is trained elsewhere."""
    if quantizer == "pretrained" and pretrained.path is None:
        yield (
            "pretrained.path: found null, wanted one (quantizer: pretrained needs the file of a "
            "quantizer)"
        )


def rqkmeans_sizes(rqkmeans: Rqkmeans) -> Lines:
    """Check the settings of residual k-means: one codebook size per level."""
    size, levels = rqkmeans.codebook_size, rqkmeans.n_levels
    if isinstance(size, list) and len(size) != levels:
        yield (
            f"rqkmeans.codebook_size: found {len(size)} sizes for {levels} levels: give one size "
            f"per level, or one number for all"
        )


def added_levels(
    rqkmeans: Rqkmeans,
    rqvae: Rqvae,
    quantizer: str,
    collisions: Collisions,
    category_level: CategoryLevel,
) -> Lines:
    """Check the levels that strategy suffix and the category level add to a SID."""
    if quantizer in ("pretrained", "given"):
        return
    key, levels = "rqkmeans.n_levels", rqkmeans.n_levels
    if quantizer in ("rqvae", "fsq"):
        key, levels = "levels of rqvae.codebook_sizes", len(rqvae.codebook_sizes)
    has_suffix = collisions.strategy == "suffix"
    if has_suffix and levels == MAX_LEVELS:
        yield (
            f"{key}: found {levels}, and collisions.strategy: suffix adds one: SIDs have at most "
            f"{MAX_LEVELS}: take a level off, or another strategy"
        )
    elif category_level.field is not None and levels + 1 + has_suffix > MAX_LEVELS:
        behind = ", and collisions.strategy: suffix one behind" if has_suffix else ""
        yield (
            f"{key}: found {levels}, but category_level.field adds a level before them{behind}: "
            f"SIDs have at most {MAX_LEVELS}: lower it to at most {MAX_LEVELS - 1 - has_suffix}"
        )


def category_inputs(
    category_level: CategoryLevel, quantizer: str, comparison: Comparison, rqvae: Rqvae
) -> Lines:
    """Check what cannot have a category level. Where items.path is null, all SIDs are given."""
    if category_level.field is None:
        return
    found = f"category_level.field: found {category_level.field!r}, but"
    if quantizer == "given" or "given" in comparison.members:
        yield (
            f"{found} given SIDs have the levels that they have: set category_level.field: null, "
            f"or take given out of quantizer and comparison.members"
        )
    if rqvae.data_paths:
        yield (
            f"{found} rqvae.data_paths names vectors of items without a category: empty it, or set "
            f"category_level.field: null"
        )


def given_file(given: Given, quantizer: str, comparison: Comparison) -> Lines:
    """Check the settings of given SIDs: the file."""
    is_chosen = quantizer == "given"
    if given.path is None and (is_chosen or "given" in comparison.members):
        what = "quantizer: given" if is_chosen else "comparison.members with given"
        yield f"given.path: found null, but {what} needs the file of the SIDs: name it"


def missing_catalogue(
    given: Given, quantizer: str, items: Items, published: Published, collisions: Collisions
) -> Lines:
    """Check settings that need the texts of a catalogue, where there is no catalogue."""
    if items.path is not None:
        return

    # Codes and neighbours are made from embeddings of texts.
    if quantizer != "given":
        yield (
            f"items.path: found null, but quantizer: {quantizer} is made from items: "
            f"name the catalogue, or set quantizer: given"
        )
    if given.measure_neighbours:
        yield (
            "given.measure_neighbours: found true, but items.path is null, so there is no text to "
            "embed: set it to false, or name the catalogue"
        )

    # Texts are compared with published and with each other.
    if published.path is not None:
        yield (
            "published.path: needs the texts of the items, and items.path is null: name the "
            "catalogue, or set published.path: null"
        )
    if quantizer == "given" and collisions.identical_text == "share":
        yield (
            "collisions.identical_text: found share, but items.path is null, so items have no "
            "text: set separate, or name the catalogue"
        )


def without_codebooks(quantizer: str, collisions: Collisions, vocabulary: Vocabulary) -> Lines:
    """Check settings that need codebooks, which given SIDs have none of."""
    if quantizer != "given":
        return
    if collisions.strategy == "sinkhorn":
        yield (
            "collisions.strategy: found sinkhorn, which spreads items by their distances to "
            "codewords, and given SIDs have none: set none (the SIDs stay as they are), reassign "
            "or suffix"
        )
    if vocabulary.model is not None and vocabulary.init == "codebook":
        yield (
            "vocabulary.init: found codebook, but given SIDs have no codebooks: set mean or random"
        )


def downstream_comparison(
    comparison: Comparison, interactions: Interactions, published: Published, collisions: Collisions
) -> Lines:
    """Check the settings that a recommender of every member of the comparison needs."""
    if not comparison.downstream:
        return
    if interactions.path is None:
        yield (
            "comparison.downstream: found true, but interactions.path is null, so there is nothing "
            "to train a recommender on: name the log, or set comparison.downstream: false"
        )
    if published.path is not None:
        yield (
            "comparison.downstream: found true, but with published.path the SIDs of the run are "
            "those of the published quantizer and of no member: set published.path: null, or "
            "comparison.downstream: false"
        )
    if "given" in comparison.members and STRATEGIES[collisions.strategy].needs_codebooks:
        yield (
            f"collisions.strategy: found {collisions.strategy}, which needs codebooks, and the "
            f"member given of comparison.members has none: set reassign, suffix or none, or set "
            f"comparison.downstream: false"
        )


def sweep_shapes(sweep: Sweep, rqvae: Rqvae, fsq: Fsq, collisions: Collisions) -> Lines:
    """Check the shapes of a sweep against what its quantizers can have."""
    # A level for each letter.
    most = MAX_LEVELS - STRATEGIES[collisions.strategy].extra_tokens
    for sizes in sweep.shapes:
        if len(sizes) > most:
            yield (
                f"sweep.shapes: found {len(sizes)} levels, wanted at most {most} "
                f"(collisions.strategy: {collisions.strategy}): shorten it"
            )

    # Networks have settings with an entry per level, or codes that follow from others.
    for tokenizer in tokenizers(sweep):
        shape, quantizer = tokenizer.shape, tokenizer.quantizer
        if quantizer == "fsq" and set(shape) != {math.prod(fsq.steps)}:
            yield (
                f"sweep.quantizers: found fsq, which has {math.prod(fsq.steps)} codes on each "
                f"level (fsq.steps), and the shape {list(shape)}: change one of them, or take fsq "
                f"out"
            )
        if quantizer in NETWORKS and len(rqvae.sk_epsilons) not in (0, len(shape)):
            yield (
                f"rqvae.sk_epsilons: found {len(rqvae.sk_epsilons)} numbers, but {quantizer} with "
                f"the shape {list(shape)} of the sweep has {len(shape)} levels: set [], or take "
                f"one of them out of the sweep"
            )


def sweep_anchors(sweep: Sweep, given: Given, collisions: Collisions) -> Lines:
    """Check the anchor of given SIDs: their file, and that collisions need no codebooks."""
    if "given" not in sweep.anchors:
        return
    if given.path is None:
        yield (
            "given.path: found null, but sweep.anchors with given needs the file of the SIDs: name "
            "it, or take given out"
        )
    if STRATEGIES[collisions.strategy].needs_codebooks:
        yield (
            f"collisions.strategy: found {collisions.strategy}, which needs codebooks, and the "
            f"anchor given of sweep.anchors has none: set reassign, suffix or none, or take given "
            f"out"
        )


def reserved_sids(published: Published, collisions: Collisions) -> Lines:
    """Check the settings of removed items, whose SIDs strategy none cannot keep free."""
    is_reserved = published.path is not None and published.removed == "reserve"
    if is_reserved and collisions.strategy == "none":
        yield (
            "published.removed: found reserve, but collisions.strategy: none gives every new item "
            "the SID of its codes, even the SID of a removed item: set published.removed: "
            "release, which frees them, or another strategy"
        )


def refreshed_categories(published: Published, category_level: CategoryLevel) -> Lines:
    """Check that no level of categories is trained again: its codes belong to names."""
    if published.refresh != "none" and category_level.field is not None:
        yield (
            f"published.refresh: found {published.refresh}, but the codes of category_level.field: "
            f"{category_level.field} belong to categories and cannot be renamed: set "
            f"published.refresh: none"
        )


def refreshed_quantizer(
    published: Published, quantizer: str, rqkmeans: Rqkmeans, rqvae: Rqvae
) -> Lines:
    """Check the settings of codebooks that are trained again for a published version."""
    refresh = published.refresh
    if refresh == "none":
        return
    if published.path is None:
        yield (
            f"published.refresh: found {refresh}, but published.path is null, so no SID can stay: "
            f"name a version, or set published.refresh: none"
        )
    if quantizer == "given":
        yield (
            f"published.refresh: found {refresh}, but quantizer: given trains nothing: set "
            f"published.refresh: none"
        )
    if refresh == "align" or quantizer == "given":
        return

    # A start from codes needs k-means over the items.
    if quantizer not in STARTED:
        yield (
            f"published.refresh: found warm_start, but quantizer: {quantizer} cannot start from "
            f"codes ({some(STARTED)} can): set published.refresh: align"
        )
    if quantizer in ("rqkmeans", "rqkmeans_plus") and rqkmeans.balance != "none":
        yield (
            f"published.refresh: found warm_start, but rqkmeans.balance: {rqkmeans.balance} moves "
            f"most items from the codes that it starts from: set published.refresh: align, or "
            f"rqkmeans.balance: none"
        )
    if quantizer == "rqvae" and rqvae.kmeans_init != "full":
        yield (
            f"published.refresh: found warm_start, but with rqvae.kmeans_init: "
            f"{rqvae.kmeans_init} most items have no part in the first codebooks: set full, or "
            f"published.refresh: align"
        )
    if quantizer == "rqvae" and rqvae.data_paths:
        yield (
            "published.refresh: found warm_start, but rqvae.data_paths names other vectors, which "
            "have no codes: empty it, or set published.refresh: align"
        )


def rqvae_training(rqvae: Rqvae, quantizer: str) -> Lines:
    """Check the settings of the RQ-VAE: levels, epochs and batches."""
    levels, largest = len(rqvae.codebook_sizes), max(rqvae.codebook_sizes)
    if len(rqvae.sk_epsilons) not in (0, levels):
        yield (
            f"rqvae.sk_epsilons: found {len(rqvae.sk_epsilons)} numbers for {levels} levels: "
            f"give one per level (0 for the nearest codeword), or [] for none"
        )
    for key in ("warmup_epochs", "autoencoder_epochs"):
        if getattr(rqvae, key) >= rqvae.epochs:
            yield (
                f"rqvae.{key}: found {getattr(rqvae, key)}, wanted less than rqvae.epochs "
                f"({rqvae.epochs})"
            )

    # Each process needs 2 rows of a batch, and the first batch may have to start a codebook.
    if rqvae.batch_size < 2 * rqvae.processes:
        yield (
            f"rqvae.batch_size: found {rqvae.batch_size} for {rqvae.processes} processes, "
            f"each of which needs 2 rows of a batch: wanted at least {2 * rqvae.processes}"
        )
    starts_codebooks = (
        quantizer not in ("rqkmeans_plus", "fsq") and rqvae.kmeans_init == "first_batch"
    )
    if starts_codebooks and rqvae.batch_size < largest:
        yield (
            f"rqvae.kmeans_init: found first_batch, but a batch of {rqvae.batch_size} cannot "
            f"start {largest} codewords: raise rqvae.batch_size, or set full"
        )


def fsq_size(fsq: Fsq) -> Lines:
    """Check the settings of the FSQ: codes of a level."""
    steps = fsq.steps
    if math.prod(steps) > MAX_CODES:
        yield (
            f"fsq.steps: found {steps}, which make {math.prod(steps):,} codes per level, wanted at "
            f"most {MAX_CODES:,}: lower them, or divide them among more levels "
            f"(rqvae.codebook_sizes has one entry for each)"
        )


def contrastive_pairs(rqvae: Rqvae, interactions: Interactions) -> Lines:
    """Check the settings of the contrastive loss: pairs of items."""
    if not rqvae.contrastive_weight:
        return
    if rqvae.data_paths:
        yield (
            "rqvae.contrastive_weight: pairs are of the catalogue's items, but rqvae.data_paths "
            "names other vectors: empty it, or set the weight to 0"
        )
    if rqvae.pairs_path is None and interactions.path is None:
        yield (
            "rqvae.contrastive_weight: needs pairs of items: name them in rqvae.pairs_path or "
            "interactions.path, or set it to 0"
        )


def fused_interactions(fuse: Fuse, interactions: Interactions, items: Items) -> Lines:
    """Check the interactions and texts that the vectors of SIDs are fused from.

    With ``use: similarity`` what needs neither is made without a fusion.
    """
    if fuse.method == "none" or fuse.use != "sids":
        return
    if interactions.path is None:
        yield (
            f"fuse.method: found {fuse.method}, but interactions.path is null, so there is nothing "
            f"to fuse the text vectors with: name the log, or set fuse.use: similarity"
        )
    if items.path is None:
        yield (
            f"fuse.method: found {fuse.method}, but items.path is null, so there are no text "
            f"vectors: set fuse.use: similarity, or name the catalogue"
        )


def compared_sizes(fuse: Fuse) -> Lines:
    """Check that sizes of compared codes are those of codes that are made."""
    if fuse.codebook_sizes is not None and fuse.use != "similarity":
        yield (
            f"fuse.codebook_sizes: found {some(fuse.codebook_sizes)}, which only codes that are "
            f"compared have: set null, or fuse.use: similarity"
        )


def fused_folds(fuse: Fuse, generative: Generative, category_level: CategoryLevel) -> Lines:
    """Check what reads SIDs that were fused without some of the users."""
    if fuse.method == "none" or fuse.folds == 1 or fuse.use != "sids":
        return
    if generative.model != "causal":
        yield (
            f"fuse.folds: found {fuse.folds}, but generative.model {generative.model} reads the "
            f"SIDs of all users: set fuse.folds: 1, or generative.model: causal"
        )
    if "given" in generative.identifiers:
        yield (
            f"fuse.folds: found {fuse.folds}, but given SIDs have no quantizer that encodes the "
            f"folds: set fuse.folds: 1, or take given out of generative.identifiers"
        )
    if category_level.field is not None:
        yield (
            f"fuse.folds: found {fuse.folds}, but folds are encoded without category_level.field: "
            f"{category_level.field}: set fuse.folds: 1, or category_level.field: null"
        )


def quantizer_dimensions(
    quantizer: str, embedding: Embedding, fuse: Fuse, rqkmeans: Rqkmeans, rqvae: Rqvae
) -> Lines:
    """Check dimensions of the item vectors that the chosen quantizer cannot take."""
    dim = embedding.dim
    name = "embedding.dim"
    reads_fused = fuse.method != "none" and fuse.use == "sids"
    appended = fuse.dim if fuse.method == "svd" else 0
    kept = fuse.whiten_dim if reads_fused and fuse.whiten else None
    if kept is not None and (dim is None or kept < dim + appended):
        name, dim = "fuse.whiten_dim", kept
    elif dim is None or (reads_fused and appended):
        return
    if quantizer == "rqvae" and rqvae.skip == "pca" and rqvae.e_dim > dim:
        yield (
            f"rqvae.e_dim: found {rqvae.e_dim}, but {name} is {dim}: lower it, or set "
            f"rqvae.skip: none"
        )
    if quantizer == "opq" and dim < rqkmeans.n_levels:
        yield (
            f"rqkmeans.n_levels: found {rqkmeans.n_levels}, but opq cuts {dim} dimensions into "
            f"that number of parts: lower it to at most {dim}"
        )


def interaction_fields(interactions: Interactions) -> Lines:
    """Check settings that name columns of the log, which its format must have."""
    form = interactions.format
    fields = dataclasses.asdict(interactions.fields)
    named = {role: name for role, name in fields.items() if name is not None}
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
    if interactions.split == "time" and form in TIMELESS:
        yield f"interactions.split: found time, but format {form} has no timestamps: take another"


def embedding_inputs(embedding: Embedding) -> Lines:
    """Check settings of files and sizes that the backend does not read, or that contradict."""
    backend, dim = embedding.backend, embedding.dim
    for key in ("path", "ids_path") if backend != "precomputed" else ():
        if getattr(embedding, key) is not None:
            yield (
                f"embedding.{key}: found {getattr(embedding, key)!r}, which backend {backend} does "
                f"not read: set embedding.backend: precomputed, or null"
            )

    # Ids in a file of their own, where the order or the file itself already gives them.
    if backend == "precomputed" and embedding.ids_path:
        if embedding.rows == "catalogue":
            yield (
                f"embedding.ids_path: found {embedding.ids_path!r}, but embedding.rows: catalogue "
                f"takes the order of the catalogue: set embedding.rows: ids, or ids_path to null"
            )
        if embedding.path is not None and embedding.path.endswith(".parquet"):
            yield (
                f"embedding.ids_path: found {embedding.ids_path!r}, but {embedding.path} "
                f"holds its ids: set it to null"
            )

    for key in ("lsa_sample", "lsa_features") if backend == "lsa" else ():
        size = getattr(embedding, key)
        if dim is not None and dim >= size:
            yield f"embedding.{key}: found {size}, wanted more than embedding.dim ({dim})"


def h5_model(h5: H5, embedding: Embedding) -> Lines:
    """The model whose tokens make the features of items."""
    if h5.features == "model" and embedding.model is None:
        yield "h5.features: found model, but embedding.model is null: name it, or set words"


def retrieval_inputs(retrieval: Retrieval, embedding: Embedding) -> Lines:
    """Check settings of prompts and ids that belong to another backend or corpus."""
    backend = embedding.backend
    if retrieval.query_prompt and backend not in PROMPTED:
        yield (
            f"retrieval.query_prompt: found {retrieval.query_prompt!r}, but backend {backend} "
            f'takes no prompt: set it to ""'
        )
    if retrieval.topk_names == "dureader" and retrieval.corpus == "items":
        yield (
            "retrieval.topk_names: found dureader, which names passages by their lines, but "
            "retrieval.corpus is items: set ids"
        )
    for key, source in (("corpus_ids", "corpus"), ("query_ids", "queries")):
        ids, lines = getattr(retrieval, key), getattr(retrieval, source)
        if ids is not None and lines in (None, "items"):
            yield (
                f"retrieval.{key}: found {ids!r}, the ids of lines, but retrieval.{source} is "
                f"{lines or 'null'}: name the file of these lines, or set null"
            )


def faiss_search(faiss: Faiss, retrieval: Retrieval, embedding: Embedding) -> Lines:
    """Check the settings of an approximate index: candidates and code size."""
    if retrieval.index == "flat":
        return
    least = retrieval.top_k + retrieval.exclude_own
    if faiss.candidates < least:
        one_more = ", and one more with retrieval.exclude_own" * retrieval.exclude_own
        yield (
            f"faiss.candidates: found {faiss.candidates}, wanted at least retrieval.top_k "
            f"({retrieval.top_k}){one_more}"
        )
    dim = embedding.dim
    if retrieval.index in CUT_INDEXES and dim is not None and dim % faiss.code_bytes:
        yield (
            f"faiss.code_bytes: found {faiss.code_bytes}, wanted a divisor of embedding.dim ({dim})"
        )


def dual_batches(dual: Dual) -> Lines:
    """A mini-batch within its batch."""
    mini, batch = dual.mini_batch, dual.batch_size
    if mini is not None and mini > batch:
        yield f"dual.mini_batch: found {mini}, wanted at most dual.batch_size ({batch}), or null"


def mining_depth(mining: Mining) -> Lines:
    """Ranks that negatives are mined from."""
    if mining.skip >= mining.depth:
        yield f"mining.skip: found {mining.skip}, wanted less than mining.depth ({mining.depth})"


def training_files(training: Training, dual: Dual, cross: Cross) -> Lines:
    """Check the settings of a model to train: the file that it learns from."""
    cross_file = "dual" if cross.source == "mined" else "cross"
    for section, model, file in (("dual", dual.model, "dual"), ("cross", cross.model, cross_file)):
        if model is not None and getattr(training, file) is None:
            yield (
                f"{section}.model: found {model!r}, but training.{file} is null: name what it "
                f"learns from, or set {section}.model: null"
            )


def revisions(embedding: Embedding, dual: Dual, cross: Cross, rerank: Rerank) -> Lines:
    """Check settings that name a hub commit for a model that this workflow trains."""
    sections: dict[str, Embedding | Dual | Cross | Rerank] = {
        "embedding": embedding,
        "dual": dual,
        "cross": cross,
        "rerank": rerank,
    }
    for name, section in sections.items():
        model, revision = section.model, section.revision
        if revision is not None and model is not None and model.startswith("results/"):
            yield f"{name}.revision: found {revision!r}, but {model} is no hub model: set null"


def recommender_model(recommender: Recommender) -> Lines:
    """Check the settings of the recommender: width of attention heads, memory maps."""
    width, heads = recommender.hidden_dim, recommender.n_heads
    if width % (2 * heads):
        yield (
            f"recommender.hidden_dim: found {width}, which does not give each of {heads} heads "
            f"(recommender.n_heads) an even number: wanted a multiple of {2 * heads}"
        )
    if recommender.train_from == "text" and recommender.mmap_path is not None:
        yield (
            f"recommender.mmap_path: found {recommender.mmap_path!r}, which train_from: text does "
            f"not read: set recommender.train_from: mmap, or null"
        )


def generative_model(generative: Generative) -> Lines:
    """Check the settings of the generative recommender: heads, and what its model reads."""
    width, heads = generative.hidden_dim, generative.n_heads
    if generative.model == "causal" and width % (2 * heads):
        yield (
            f"generative.hidden_dim: found {width}, which does not give each of {heads} heads "
            f"(generative.n_heads) an even number: wanted a multiple of {2 * heads}"
        )
    if generative.model != "tiger":
        return

    # The encoder-decoder reads the tokens of one quantizer, and its softmax is over tokens.
    if generative.features != "sid":
        yield (
            f"generative.features: found {generative.features}, but generative.model: tiger reads "
            f"tokens alone: set sid, or generative.model: causal"
        )
    if generative.identifiers:
        yield (
            f"generative.identifiers: found {some(generative.identifiers)}, but generative.model: "
            f"tiger reads the SIDs of one quantizer: set [], or generative.model: causal"
        )
    if generative.loss != "full":
        yield (
            f"generative.loss: found {generative.loss}, but the softmax of generative.model: tiger "
            f"is over tokens, not items: set full, or generative.model: causal"
        )


def generative_inputs(
    generative: Generative, quantizer: str, given: Given, items: Items, collisions: Collisions
) -> Lines:
    """Check that the files exist that the generative recommender reads of items."""
    if items.path is None and generative.features == "sid+text":
        yield (
            "generative.features: found sid+text, but items.path is null, so items have no text: "
            "set sid, or name the catalogue"
        )
    for name in generative.identifiers:
        if items.path is None and name != "given":
            yield (
                f"generative.identifiers: found {name}, which is made from items, but items.path "
                f"is null: remove it, or name the catalogue"
            )

    # SIDs from a file beside those of the run.
    if "given" not in generative.identifiers or quantizer == "given":
        return
    if given.path is None:
        yield (
            "given.path: found null, but generative.identifiers with given needs the file of the "
            "SIDs: name it, or remove given from generative.identifiers"
        )
    if STRATEGIES[collisions.strategy].needs_codebooks:
        yield (
            f"collisions.strategy: found {collisions.strategy}, which needs codebooks, and given "
            f"in generative.identifiers has none: set reassign, suffix or none, or remove given "
            f"from generative.identifiers"
        )


def generative_lists(generative: Generative, generative_topk: GenerativeTopk) -> Lines:
    """Check the settings of lists of the generative recommender: beams for all of a list."""
    decoding, width = generative_topk.decoding, generative_topk.beam_width
    uses_beams = decoding == "beam" or (decoding == "auto" and generative.model == "tiger")
    if uses_beams and width < generative_topk.k:
        yield (
            f"generative_topk.beam_width: found {width}, wanted at least generative_topk.k "
            f"({generative_topk.k})"
        )


def mixture_shares(mixture: Mixture, rl: Rl) -> Lines:
    """Check the settings of test sizes of datasets that a mixture does not have."""
    sections: dict[str, Mixture | Rl] = {"mixture": mixture, "rl": rl}
    for name, section in sections.items():
        for unknown in sorted(set(section.test_size) - set(section.weights)):
            yield (
                f"{name}.test_size: found {unknown}, which {name}.weights does not name: wanted "
                f"some of {some(sorted(section.weights))}"
            )


def overwritten_inputs(index: Index, inputs: Mapping[str, Any]) -> Lines:
    """Check settings that name an output: it must replace no input, nor lie inside one.

    Args:
        index: names the output.
        inputs: the sound sections of ``INPUTS``, by name.
    """
    # Links are not resolved: what counts is the name that is written to.
    output = Path(os.path.abspath(index.path))  # noqa: PTH100
    for section, settings in inputs.items():
        for key in INPUTS[section]:
            value = getattr(settings, key)
            for path in value if isinstance(value, list) else [value]:
                if path and Path(os.path.abspath(path)) in (output, output.parent):  # noqa: PTH100
                    yield (
                        f"index.path: found {index.path!r}, which {section}.{key} "
                        f"({path}) reads: name a file elsewhere"
                    )


# What a choice needs, by the section that lacks it.
NEEDS: dict[str, Callable[..., Lines]] = {
    "embedding": backend_inputs,
    "pretrained": pretrained_file,
}
CHECKS: list[Callable[..., Lines]] = [
    rqkmeans_sizes,
    added_levels,
    category_inputs,
    given_file,
    missing_catalogue,
    without_codebooks,
    downstream_comparison,
    sweep_shapes,
    sweep_anchors,
    reserved_sids,
    refreshed_categories,
    refreshed_quantizer,
    rqvae_training,
    fsq_size,
    contrastive_pairs,
    fused_interactions,
    compared_sizes,
    fused_folds,
    quantizer_dimensions,
    interaction_fields,
    embedding_inputs,
    h5_model,
    retrieval_inputs,
    faiss_search,
    dual_batches,
    mining_depth,
    training_files,
    revisions,
    recommender_model,
    generative_model,
    generative_inputs,
    generative_lists,
    mixture_shares,
]
