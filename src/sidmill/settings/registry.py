"""What a configuration chooses by name: quantizers, embedding backends, collision strategies.

Each entry names the section that holds its settings and the function that does the work, as
``module:function``. Only names are stored here, so that the workflow can read the registry without
importing a stage. ``tests/unit/test_quantizer_contract.py`` runs over every quantizer.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple


class Quantizer(NamedTuple):
    """One way to get codes.

    Attributes:
        section: key of its settings in config.yaml; its type is the one of that section.
        function: fits or reads it, as ``module:function``.
        rule: the rule of the workflow that makes it.
        is_trained: whether it is fitted to the vectors of the run; otherwise a file holds it.
        is_network: whether it is an encoder with codebooks.
        is_compared: whether a comparison may take it.
        resumes: whether an interrupted training continues, and ends in the same bytes.
        needs_row_per_code: whether fewer rows than codewords are refused.
        needs_distinct_rows: whether rows that are all equal are refused.
        starts_from_codes: whether a training can start from codes that items have.
    """

    section: str
    function: str
    rule: str
    is_trained: bool = True
    is_network: bool = False
    is_compared: bool = True
    resumes: bool = False
    needs_row_per_code: bool = False
    needs_distinct_rows: bool = False
    starts_from_codes: bool = False


def _network(
    section: str, *, needs_row_per_code: bool = True, starts_from_codes: bool = False
) -> Quantizer:
    """Return an entry of a network, which ``train_rqvae`` trains."""
    return Quantizer(
        section,
        "sidmill.quantize.rqvae.fit:fit",
        "train_rqvae",
        is_network=True,
        resumes=True,
        needs_row_per_code=needs_row_per_code,
        needs_distinct_rows=True,
        starts_from_codes=starts_from_codes,
    )


_RQKMEANS = Quantizer(
    "rqkmeans",
    "sidmill.quantize.rqkmeans:fit",
    "train_rqkmeans",
    resumes=True,
    needs_row_per_code=True,
)

GIVEN = "given"  # SIDs that exist: the only quantizer without codebooks
QUANTIZERS = {
    "rqkmeans": _RQKMEANS._replace(starts_from_codes=True),
    "rqkmeans_balanced": _RQKMEANS,
    "rqkmeans_plus": _network("rqvae", needs_row_per_code=False, starts_from_codes=True),
    "rqvae": _network("rqvae", starts_from_codes=True),
    "fsq": _network("fsq", needs_row_per_code=False),
    "opq": Quantizer("opq", "sidmill.quantize.opq:fit", "train_opq", needs_row_per_code=True),
    "pca_grid": Quantizer("pca_grid", "sidmill.quantize.pca_grid:fit", "train_pca_grid"),
    "pretrained": Quantizer(
        "pretrained",
        "sidmill.quantize.pretrained:load",
        "import_pretrained",
        is_trained=False,
        is_compared=False,
    ),
    "given": Quantizer("given", "sidmill.sids.given:load", "import_given", is_trained=False),
}
TRAINED = [name for name, entry in QUANTIZERS.items() if entry.is_trained]
NETWORKS = [name for name, entry in QUANTIZERS.items() if entry.is_network]
STARTED = [name for name, entry in QUANTIZERS.items() if entry.starts_from_codes]
COMPARED = [name for name, entry in QUANTIZERS.items() if entry.is_compared]


class Backend(NamedTuple):
    """One way to come to vectors.

    Attributes:
        function: makes the backend, from :class:`sidmill.settings.embedding.Embedding` and
            :class:`sidmill.embed.backend.Run`.
        reads: science settings of ``embedding`` that can change its vectors. Jobs of the backend
            have no other, so that a change of one reruns nothing.
        chunk_rows: rows of a chunk, whose vectors are kept on disk until the shard is whole. 0: no
            chunks, for a backend that is faster than its disk.
    """

    function: str
    reads: tuple[str, ...]
    chunk_rows: int = 0


BACKENDS = {
    "lsa": Backend("sidmill.embed.backends.lsa:load", ("dim", "normalize")),
    "sentence_transformers": Backend(
        "sidmill.embed.backends.sentence_transformers:load",
        (
            *("model", "revision", "dim", "max_length", "dtype", "attention", "compiled"),
            *("prompt", "normalize"),
        ),
        chunk_rows=8192,
    ),
    "openai": Backend(
        "sidmill.embed.backends.openai:load",
        ("model", "revision", "dim", "prompt", "normalize"),
        chunk_rows=1024,
    ),
    "precomputed": Backend(
        "sidmill.embed.backends.precomputed:load",
        ("model", "revision", "path", "ids_path", "fields", "rows", "dim", "normalize"),
    ),
}


class Strategy(NamedTuple):
    """One way to resolve collisions.

    Attributes:
        function: what places items: takes ``Unresolved`` items and ``Collisions``.
        is_distinct: whether every item gets a SID of its own.
        extra_tokens: tokens that a SID has beyond the codes.
        needs_codebooks: whether given SIDs, which have no codebooks, cannot have it.
    """

    function: str
    is_distinct: bool = True
    extra_tokens: int = 0
    needs_codebooks: bool = False


STRATEGIES = {
    "reassign": Strategy("sidmill.sids.strategies:move_to_free_codes"),
    "sinkhorn": Strategy("sidmill.sids.strategies:spread_by_transport", needs_codebooks=True),
    "suffix": Strategy("sidmill.sids.strategies:append_suffix", extra_tokens=1),
    "none": Strategy("sidmill.sids.strategies:keep_codes", is_distinct=False),
}


# What makes a generative model, from its constants and the section generative.
GENERATIVE_MODELS = {
    "causal": "sidmill.recommend.generative.causal:build",
    "tiger": "sidmill.recommend.generative.tiger:build",
}


class DataSource(NamedTuple):
    """A published form of data that can be imported.

    Attributes:
        module: has the function ``open_source``.
        reads: the files, for messages and for ``sidmill import --list``.
        published: address of the publisher.
        licence: of the data, as the publisher says it.
        is_collection: whether it has passages and queries, not items and interactions.
    """

    module: str
    reads: str
    published: str
    licence: str
    is_collection: bool = False


SOURCES = {
    "movielens": DataSource(
        "sidmill.imports.sources.movielens",
        "ml-1m.zip (movies.dat, ratings.dat), ml-32m.zip (movies.csv, ratings.csv), or ml-100k, "
        "10m, 20m, 25m, latest",
        "https://grouplens.org/datasets/movielens/",
        "research only, no redistribution, no commercial use without permission (README)",
    ),
    "amazon-2023": DataSource(
        "sidmill.imports.sources.amazon_2023",
        "meta_CATEGORY.jsonl.gz, and CATEGORY.jsonl.gz (reviews), CATEGORY.csv.gz (ratings) or "
        "CATEGORY.train.csv.gz, .valid, .test (benchmark)",
        "https://amazon-reviews-2023.github.io/",
        "none is stated; citation asked for",
    ),
    "amazon-2018": DataSource(
        "sidmill.imports.sources.amazon_2018",
        "meta_CATEGORY.json.gz, and CATEGORY.json.gz, CATEGORY_5.json.gz (reviews) or "
        "CATEGORY.csv (ratings); also those of 2014",
        "https://nijianmo.github.io/amazon/",
        "none is stated; citation asked for",
    ),
    "mind": DataSource(
        "sidmill.imports.sources.mind",
        "MINDsmall_train.zip and MINDsmall_dev.zip, or MINDlarge (news.tsv, behaviors.tsv)",
        "https://msnews.github.io/",
        "Microsoft Research License Terms, research only",
    ),
    "yelp": DataSource(
        "sidmill.imports.sources.yelp",
        "yelp_dataset.tar, or yelp_academic_dataset_business.json and _review.json",
        "https://business.yelp.com/data/resources/open-dataset/",
        "Yelp Dataset Terms of Use, academic use only",
    ),
    "steam": DataSource(
        "sidmill.imports.sources.steam",
        "steam_games.json.gz and steam_reviews.json.gz",
        "https://cseweb.ucsd.edu/~jmcauley/datasets.html",
        "none is stated; citation asked for",
    ),
    "goodreads": DataSource(
        "sidmill.imports.sources.goodreads",
        "goodreads_books.json.gz and goodreads_interactions_dedup.json.gz, or those of a genre",
        "https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html",
        "academic use only, no redistribution, no commercial use",
    ),
    "kuairec": DataSource(
        "sidmill.imports.sources.kuairec",
        "KuaiRec.zip (big_matrix.csv) and kuairec_caption_category.csv",
        "https://kuairec.com",
        "CC BY-SA 4.0",
    ),
    "onerec": DataSource(
        "sidmill.imports.sources.onerec",
        "pid2caption.parquet and onerec_bench_release.parquet",
        "https://huggingface.co/datasets/OpenOneRec/OpenOneRec-RecIF",
        "Apache-2.0",
    ),
    "recbole": DataSource(
        "sidmill.imports.sources.recbole",
        "X.item and X.inter (atomic files)",
        "https://recbole.io/dataset_list.html",
        "that of the data set",
    ),
    "lc-rec": DataSource(
        "sidmill.imports.sources.lc_rec",
        "X.item.json and X.inter.json; X.emb-NAME.npy and X.index.json if there are any",
        "https://github.com/zhengbw0324/LC-Rec",
        "none is stated",
    ),
    "beir": DataSource(
        "sidmill.imports.sources.beir",
        "DATASET.zip (corpus.jsonl, queries.jsonl, qrels/test.tsv)",
        "https://github.com/beir-cellar/beir",
        "that of the data set",
        is_collection=True,
    ),
    "msmarco": DataSource(
        "sidmill.imports.sources.msmarco",
        "collectionandqueries.tar.gz (collection.tsv, queries.dev.small.tsv, qrels.dev.small.tsv)",
        "https://microsoft.github.io/msmarco/Datasets",
        "non-commercial research only",
        is_collection=True,
    ),
}


def load_function(name: str) -> Callable[..., Any]:
    """Import the function that an entry names as ``module:function``."""
    module, _, function = name.partition(":")
    loaded: Callable[..., Any] = getattr(import_module(module), function)
    return loaded


def settings_read(embedding: Mapping[str, Any]) -> dict[str, Any]:
    """The backend, and of the section ``embedding`` the values that it reads."""
    keys = ("backend", *BACKENDS[embedding["backend"]].reads)
    return {key: value for key, value in embedding.items() if key in keys}


def tokenizer_settings(embedding: Mapping[str, Any], features: str) -> dict[str, Any]:
    """The values of ``embedding`` that name a tokenizer; none where words of the text are taken.

    Args:
        embedding: the section.
        features: ``h5.features``.
    """
    auto = "model" if embedding["backend"] == "sentence_transformers" else "words"
    if (auto if features == "auto" else features) == "words":
        return {}
    return {key: embedding[key] for key in ("backend", "model", "revision")}
