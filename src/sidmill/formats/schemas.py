"""What each file of SIDMill must contain, as data: columns, dtypes, shapes, JSON Schema.

``sidmill check`` holds files against these; ``make docs`` writes them to docs/schemas, one JSON for
each form, for programs of others. Paths are relative to the folder of the results, with the
wildcards of a shell; types are those of Arrow.

Letters: N items, D dimensions, L levels, K_l codes of level l, d dimensions of a codeword.
"""

from typing import Any, NamedTuple

PID = ("int64", "string")
IDS = ("list<int64>", "list<string>")
CODES = ("list<int32>",)
NUMBER = {"type": "number"}
SHARE = {"type": "number", "minimum": 0, "maximum": 1}
COUNT = {"type": "integer", "minimum": 0}


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: of the column.
        types: Arrow types that are allowed; large and fixed-size lists count as lists.
        meaning: in words.
        nullable: whether a row may have none.
        unique: whether values differ from row to row.
        minimum: of numbers, or of the numbers in lists; None: none.
        maximum: the same.
        optional: whether files of earlier versions lack it.
    """

    name: str
    types: tuple[str, ...]
    meaning: str
    nullable: bool = False
    unique: bool = False
    minimum: int | None = None
    maximum: int | None = None
    optional: bool = False


class Table(NamedTuple):
    """A parquet file, or a folder of parts of one."""

    paths: tuple[str, ...]
    meaning: str
    columns: tuple[Column, ...]
    metadata: tuple[str, ...] = ()


class Array(NamedTuple):
    """A .npy file: allowed dtypes, and a letter for each axis."""

    paths: tuple[str, ...]
    meaning: str
    dtypes: tuple[str, ...]
    axes: tuple[str, ...]


class Tensors(NamedTuple):
    """A safetensors file: its tensors with their dtypes, and the keys of its JSON metadata."""

    paths: tuple[str, ...]
    meaning: str
    tensors: dict[str, str]
    metadata: tuple[str, ...] = ()


class Json(NamedTuple):
    """A JSON file, by a JSON Schema (draft 2020-12)."""

    paths: tuple[str, ...]
    meaning: str
    schema: dict[str, Any]


def _object(**properties: Any) -> dict[str, Any]:
    """A JSON object that has at least these keys."""
    return {"type": "object", "required": sorted(properties), "properties": properties}


PID_COLUMN = Column("pid", PID, "id of the item, as in the catalogue", unique=True)
FOLD_PID_COLUMN = PID_COLUMN._replace(unique=False, meaning="id of the item, once for each fold")
CODES_COLUMN = Column("codes", CODES, "codes, level 1 first, in [0, K_l)", minimum=0)
SID_COLUMN = Column("sid", CODES, "tokens of the SID, level 1 first", minimum=0)
TOPK_COLUMNS = (
    Column("user_id", ("string",), "id of the user", unique=True),
    Column("item_ids", IDS, "ids of the items, best first"),
    Column("scores", ("list<float>",), "scores of the items, descending"),
    Column("sids", ("list<list<int32>>",), "SIDs of the items"),
)
INTERVALS = {
    "type": "object",
    "required": ["methods"],
    "properties": {
        "methods": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "required": ["value"],
                    "properties": {"value": NUMBER, "low": NUMBER, "high": NUMBER},
                },
            },
        }
    },
}
SIDE = _object(
    distinct=COUNT, collision_rate=SHARE, colliding_items_rate=SHARE, largest_collision=COUNT
)
SIZES = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
FIGURE = {"type": "object", "required": ["value"], "properties": {"value": SHARE}}
SPLIT = _object(**{"HR@10": FIGURE, "NDCG@10": FIGURE, "cold_HR@10": {"type": "object"}})
COUNTS = _object(read=COUNT, rejected=COUNT, written=COUNT)

CATEGORY_TENSORS = {
    "category.codeword": "float32",
    "category.mean": "float32",
    "category.root": "int32",
    "category.normal": "float32",
    "category.threshold": "float32",
    "category.next": "int32",
}

FORMS: dict[str, Table | Array | Tensors | Json] = {
    "text": Table(
        ("items/text.parquet", "corpus/text.parquet", "queries/text.parquet"),
        "the text of each item",
        (PID_COLUMN, Column("text", ("string",), "one line per field, never empty")),
    ),
    "rejects": Table(
        (
            *("items/rejects.parquet", "corpus/rejects.parquet", "queries/rejects.parquet"),
            *("retrieval/qrels_rejects.parquet", "training/*_rejects.parquet"),
        ),
        "rows that were not accepted",
        (
            Column("pid", ("string",), "id in the row, if it can be read", nullable=True),
            Column("file", ("string",), "name of the file"),
            Column("row", ("int64",), "line or row of the file", minimum=1),
            Column("reason", ("string",), "why it was not accepted"),
        ),
        ("sidmill.rows_read",),
    ),
    "embeddings": Table(
        ("*/embeddings.parquet",),
        "embeddings, in shards that read as one table",
        (PID_COLUMN, Column("embedding", ("list<float>",), "D values, finite")),
    ),
    "ids": Table(
        (
            "*/ids.parquet",
            "items/fused_ids.parquet",
            "items/residual_ids.parquet",
            "sweep/*/fused_ids.parquet",
        ),
        "ids of the rows of vectors.npy, fused.npy or residuals.npy",
        (PID_COLUMN,),
        ("sidmill.shape",),
    ),
    "fold_ids": Table(
        ("items/fused_folds_ids.parquet",),
        "ids of the rows of fused_folds.npy: all items, once for each fold",
        (FOLD_PID_COLUMN,),
        ("sidmill.shape",),
    ),
    "categories": Table(
        ("items/categories.parquet",),
        "the category of each item",
        (PID_COLUMN, Column("category", ("string",), "its category", nullable=True)),
    ),
    "category_level": Tensors(
        ("items/category_level.safetensors",),
        "the category level, as a quantizer of one level",
        {"codebook.0": "float32"} | CATEGORY_TENSORS,
        ("kind", "settings", "fingerprint", "categories"),
    ),
    "vectors": Array(
        (
            "*/vectors.npy",
            "items/fused.npy",
            "items/fused_folds.npy",
            "items/residuals.npy",
            "sweep/*/fused.npy",
        ),
        "vectors in the row order of their ids",
        ("float32", "float16"),
        ("N", "D"),
    ),
    "quantizer": Tensors(
        ("*/quantizer.safetensors", "sweep/*/quantizer.safetensors"),
        "codebooks of a quantizer; SIDs that were given have none",
        {"codebook.*": "float32", "price.*": "float32"},
        ("kind", "settings", "fingerprint"),
    ),
    "codes": Table(
        ("codes.parquet", "*/codes.parquet", "sweep/*/codes.parquet"),
        "codes as quantized, before collisions are resolved",
        (PID_COLUMN, CODES_COLUMN),
        ("sidmill.codebook_sizes",),
    ),
    "fold_codes": Table(
        ("*/fold_codes.parquet",),
        "codes of the vectors of fused_folds.npy, in their row order",
        (FOLD_PID_COLUMN, CODES_COLUMN),
        ("sidmill.codebook_sizes",),
    ),
    "pid2sid": Table(
        ("pid2sid.parquet", "*/pid2sid.parquet", "sweep/*/pid2sid.parquet"),
        "the SID of each item",
        (
            PID_COLUMN,
            SID_COLUMN,
            Column("tokens", ("string",), "the SID as models write it", optional=True),
        ),
        ("sidmill.codebook_sizes",),
    ),
    "index": Json(
        ("index.json",),
        "the SID of each item as tokens, by id",
        {
            "type": "object",
            "additionalProperties": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "string", "pattern": "^<[a-z]+_[0-9]+>$"},
            },
        },
    ),
    "trie": Tensors(
        ("trie.safetensors",),
        "the tree of all SIDs and the items of each",
        {
            "tokens.*": "int32",
            "first_child.*": "int64",
            "sid_of_item": "int64",
            "first_item": "int64",
            "items": "int64",
        },
        ("kind", "version", "sizes", "pid2sid"),
    ),
    "resolution": Json(
        ("resolution.json", "*/resolution.json", "sweep/*/resolution.json"),
        "how collisions were resolved",
        _object(
            strategy={"type": "string"},
            items_moved=COUNT,
            moved_by_level={"type": "array", "items": COUNT},
        ),
    ),
    "quality": Json(
        ("quality.json",),
        "quality of the codes before and of the SIDs after collisions are resolved",
        _object(items=COUNT, before=SIDE, after=SIDE),
    ),
    "evaluation": Json(
        ("*/evaluation.json", "sweep/*/evaluation.json"),
        "quality of the codes of one quantizer, before collisions are resolved",
        _object(
            quantizer={"type": "string"},
            items=COUNT,
            codebook_sizes=SIZES,
            distinct=COUNT,
            collision_rate=SHARE,
            levels={"type": "array", "minItems": 1},
        ),
    ),
    "ledger": Table(
        ("ledger.parquet",),
        "the SIDs of all versions",
        (
            Column("pid", PID, "id of the item"),
            SID_COLUMN,
            Column("codes", CODES, "codes of the item", minimum=0),
            Column("digest", ("fixed_size_binary[16]",), "BLAKE2b of the text"),
            Column(
                "state",
                ("int8",),
                "0 in the catalogue, 1 removed, 2 a former SID of the item",
                minimum=0,
                maximum=2,
            ),
            Column("version", ("int32",), "the version that gave the SID", minimum=1),
            Column("trained", ("bool",), "the quantizer was trained on this text"),
        ),
        ("sidmill.codebook_sizes", "sidmill.version"),
    ),
    "churn": Table(
        ("churn.parquet",),
        "items that are new, changed, returned or removed",
        (
            Column("pid", PID, "id of the item"),
            Column("what", ("string",), "new, returned, changed or removed"),
            Column("sid_before", CODES, "SID in the version before", nullable=True),
            Column("sid_after", CODES, "SID now", nullable=True),
        ),
    ),
    "version": Json(
        ("version.json", "manifest.json"),
        "the manifest of a version: size and SHA-256 of its files",
        _object(
            form=COUNT,
            version=COUNT,
            items=COUNT,
            files={
                "type": "object",
                "additionalProperties": _object(bytes=COUNT, sha256={"type": "string"}),
            },
        ),
    ),
    "sequences": Table(
        ("interactions/sequences.parquet",),
        "the history of each user, oldest interaction first",
        (
            Column("user_id", ("string",), "id of the user", unique=True),
            Column("item_ids", IDS, "ids of the items"),
            Column(
                "splits", ("list<int8>",), "0 train, 1 valid, 2 test, by item", minimum=0, maximum=2
            ),
            Column("timestamps", ("list<int64>",), "times of the interactions", nullable=True),
        ),
    ),
    "topk": Table(
        ("recommender/topk.parquet", "generative/**/topk.parquet"),
        "the best items of each user",
        TOPK_COLUMNS,
    ),
    "users": Table(
        ("generative/**/users.parquet", "sweep/*/valid.parquet", "sweep/*/test.parquet"),
        "metrics of each user of a split, averaged over the seeds",
        (
            Column("user", ("int64",), "row of sequences.parquet", unique=True, minimum=0),
            Column("queries", ("int64",), "interactions of the split", minimum=1),
            Column("HR@10", ("double",), "sum over the queries", minimum=0),
            Column("NDCG@10", ("double",), "sum over the queries", minimum=0),
            Column("cold_queries", ("int64",), "queries for items not in training", minimum=0),
            Column("cold_HR@10", ("double",), "sum over these", minimum=0),
        ),
    ),
    "metrics": Json(
        ("recommender/metrics.json", "generative/**/metrics.json"),
        "metrics of a recommender and of baselines, by split",
        {"type": "object", "required": ["protocol"], "properties": {"valid": {"type": "object"}}},
    ),
    "sweep": Json(
        ("sweep/sweep.json",),
        "tokenizers of a sweep: figures of their codes, metrics of their recommenders, the winner",
        _object(
            metric={"type": "string"},
            seeds={"type": "array", "items": COUNT, "minItems": 1},
            targets=COUNT,
            items=COUNT,
            winner=_object(name={"type": "string"}, metric={"type": "string"}, value=SHARE),
            tokenizers={
                "type": "array",
                "minItems": 1,
                "items": _object(
                    name={"type": "string"},
                    codebook_sizes=SIZES,
                    is_anchor={"type": "boolean"},
                    figures={"type": "object"},
                    valid=SPLIT,
                    test={"anyOf": [{"type": "null"}, SPLIT]},
                ),
            },
        ),
    ),
    "sweep_metrics": Json(
        ("sweep/*/valid.json", "sweep/*/test.json"),
        "metrics of the recommender on one tokenizer of a sweep",
        {**SPLIT, "required": ["split", "targets", *SPLIT["required"]]},
    ),
    "imported_items": Table(
        ("items.parquet", "imported/*/items.parquet"),
        "the catalogue of an imported data set; further columns have its texts",
        (Column("item_id", ("string",), "id of the item", unique=True),),
    ),
    "imported_interactions": Table(
        ("interactions.parquet", "imported/*/interactions.parquet"),
        "the histories of an imported data set",
        (
            Column("user_id", ("string",), "id of the user", unique=True),
            Column("item_ids", ("list<string>",), "ids of the items, oldest first"),
            Column("timestamps", ("list<int64>",), "times of the interactions", nullable=True),
        ),
    ),
    "imported_rejects": Table(
        ("rejects.parquet", "imported/*/rejects.parquet"),
        "rows of an imported data set that gave nothing",
        (
            Column("file", ("string",), "name of the file"),
            Column("row", ("int64",), "line or row of the file", minimum=0),
            Column("interactions", ("int64",), "of the row; 0: a row of the catalogue", minimum=0),
            Column("reason", ("string",), "why the row gave nothing"),
        ),
    ),
    "import": Json(
        ("import.json", "imported/*/import.json"),
        "counts of an import: items and interactions, or passages, queries and judgements",
        {
            "type": "object",
            "required": ["source"],
            "properties": {"source": {"type": "string"}},
            "anyOf": [
                _object(items=COUNTS, interactions=COUNTS, log={"type": "object"}),
                _object(passages=COUNTS, queries={"type": "object"}, judgements={"type": "object"}),
            ],
        },
    ),
    "qrels": Table(
        ("retrieval/qrels.parquet",),
        "judgements: which passages answer which query",
        (
            Column("qid", ("string",), "id of the query"),
            Column("pid", ("string",), "id of the passage"),
            Column("label", ("int64",), "above 0: the passage answers the query"),
        ),
    ),
    "answers": Table(
        ("retrieval/answers.parquet",),
        "the passages found for each query, best first",
        (
            Column("qid", ("string",), "id of the query"),
            Column("pid", ("string",), "id of the passage"),
            Column("rank", ("int64", "int32"), "rank of the passage", minimum=1),
            Column("score", ("float", "double"), "score of the passage"),
        ),
    ),
    "run": Json(
        ("run.json",),
        "what made the results, when, and in what time",
        _object(
            written={"type": "string"},
            settings={"type": "object"},
            seconds=NUMBER,
            rules={"type": "array"},
            stages={"type": "array"},
        ),
    ),
}


def as_json(name: str) -> dict[str, Any]:
    """The schema of one form, for docs/schemas."""
    form = FORMS[name]
    head = {"name": name, "meaning": form.meaning, "paths": list(form.paths)}
    if isinstance(form, Table):
        columns = [{**column._asdict(), "types": list(column.types)} for column in form.columns]
        return {**head, "form": "parquet", "columns": columns, "metadata": list(form.metadata)}
    if isinstance(form, Array):
        return {**head, "form": "npy", "dtypes": list(form.dtypes), "axes": list(form.axes)}
    if isinstance(form, Tensors):
        return {
            **head,
            "form": "safetensors",
            "tensors": form.tensors,
            "metadata": list(form.metadata),
        }
    return {**head, "form": "json", "schema": form.schema}
