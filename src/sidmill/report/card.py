"""README.md of a published version: a dataset card of the Hugging Face hub.

https://huggingface.co/docs/hub/datasets-cards

The YAML at its head names the tables, so that ``datasets.load_dataset(FOLDER, "sids")`` opens them.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from sidmill.formats import quantizer_file
from sidmill.formats.version_folder import SHARDS
from sidmill.io import json_report
from sidmill.report.runs import CODES, Figure

CARD, QUANTIZER = "README.md", "quantizer.safetensors"
NOT_STATED = "not stated"
TAGS = ["semantic-ids", "generative-recommendation", "recommender-systems"]
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"),
         (10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"),
         (10**11, "10B<n<100B"), (10**12, "100B<n<1T"))  # fmt: skip
# Tables by the name of their configuration, with what a row is; the first is the default.
TABLES = {
    "sids": (
        "pid2sid.parquet",
        "the semantic ID of each item (`pid`), as numbers (`sid`) and as text (`tokens`)",
    ),
    "codes": ("codes.parquet", "codes as quantized, before collisions were resolved"),
    "text": ("text.parquet", "the text that was embedded"),
    "embeddings": (f"{SHARDS}/*.parquet", "the embedding of each item"),
    "ledger": ("ledger.parquet", "the semantic IDs of all versions, of removed items too"),
    "churn": ("churn.parquet", "items that are new, changed or removed in this version"),
}
OTHERS = {
    QUANTIZER: "codebooks, and the network of a learned quantizer",
    "lsa.safetensors": "the LSA model that made the embeddings",
    "manifest.json": "size and SHA-256 of every file",
    "quality.json": "quality of the codes and of the semantic IDs",
    "resolution.json": "how collisions were resolved",
    "churn.json": "what changed since the version before",
}


def render(
    folder: str | Path,
    manifest: dict[str, Any],
    figures: dict[str, Figure],
    *,
    title: str,
    license_id: str | None,
) -> str:
    """Write the card of a version.

    Args:
        folder: with the files of the version.
        manifest: of the version.
        figures: of the run (:func:`sidmill.report.runs.describe`); those of recommenders are shown.
        title: heading, and ``pretty_name`` of the hub.
        license_id: an identifier of the hub such as cc-by-4.0; None: the card says that it is not
            stated.
    """
    folder = Path(folder)
    files = [name for name in manifest["files"] if not name.startswith(f"{SHARDS}/")]
    tables = {
        name: pattern
        for name, (pattern, _) in TABLES.items()
        if pattern in files or (name == "embeddings" and len(files) < len(manifest["files"]))
    }

    # The head is YAML, by the types of the hub's own library.
    head = DatasetCardData(
        pretty_name=title,
        license=license_id,
        tags=TAGS,
        size_categories=[_size(manifest["items"])],
        configs=[
            {
                "config_name": name,
                "data_files": pattern,
                **({"default": True} if not number else {}),
            }
            for number, (name, pattern) in enumerate(tables.items())
        ],
    )
    quality = folder / "quality.json"
    parts = [
        f"---\n{head.to_yaml()}\n---\n\n# {title}",
        _summary(manifest, license_id),
        _files(tables, files),
        _load(manifest, tables, _category_field(folder, files)),
        _embedding(manifest),
        _tokenizer(manifest, json_report.read(quality) if "quality.json" in files else {}),
        _downstream(figures),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _size(n_items: int) -> str:
    return next((name for most, name in SIZES if n_items < most), "n>1T")


def _summary(manifest: dict[str, Any], license_id: str | None) -> str:
    follows = (
        "It continues the version before it: items keep their IDs." if manifest["parent"] else ""
    )
    return (
        f"Semantic IDs of {manifest['items']:,} items: each item has a few tokens, and items that "
        f"share the first tokens are alike. Version {manifest['version']}. {follows}".rstrip()
        + f"\n\nLicence: {license_id or NOT_STATED}."
        + " Made with SIDMill."
    )


def _files(tables: dict[str, str], files: list[str]) -> str:
    rows = [f"| `{name}` | `{pattern}` | {TABLES[name][1]} |" for name, pattern in tables.items()]
    rows += [f"| | `{name}` | {what} |" for name, what in OTHERS.items() if name in files]
    rows.append(f"| | `manifest.json` | {OTHERS['manifest.json']} |")
    return "\n".join(["## Files", "", "| configuration | file | content |", "|---|---|---|", *rows])


def _category_field(folder: Path, files: list[str]) -> str | None:
    """The field of the catalogue that the first codes follow from; None: no such level."""
    if QUANTIZER not in files:
        return None
    categories = quantizer_file.read(folder / QUANTIZER, without_codebooks=True).categories
    return categories.field if categories else None


def _load(manifest: dict[str, Any], tables: dict[str, str], field: str | None) -> str:
    # The tables, in Python.
    lines = [
        "## Loading",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'sids = load_dataset("FOLDER_OR_OWNER/NAME", "sids", split="train")',
        'sids[0]  # {"pid": ..., "sid": [12, 7, 201], "tokens": "<|sid_begin|><s_a_12>..."}',
        "```",
    ]

    # Codes of new items, in a shell. SIDs that were given have no codebooks.
    if manifest.get("quantizer") != "given" and "embeddings" in tables:
        command = f"sidmill encode --quantizer {QUANTIZER} --vectors new.npy --out new.parquet"
        if field:
            # Its ids are those of the vectors, and the .npy has none of its own.
            command = (
                f"sidmill encode --quantizer {QUANTIZER} --vectors new.npy --ids ids.txt "
                "\\\n    --categories categories.parquet --out new.parquet"
            )
        lines += [
            "",
            "New items get codes from the same codebooks:",
            "",
            "```sh",
            command,
            "```",
        ]
        if field:
            lines += [
                "",
                f"The first code follows from the category of an item, `{_cell(field)}` of the "
                "catalogue: `categories.parquet` has the columns `pid` and `category`.",
            ]
    return "\n".join(lines)


def _embedding(manifest: dict[str, Any]) -> str:
    """The embedding space, one row per entry of the fingerprint."""
    entries = manifest.get("fingerprint") or {}
    if not entries:
        return ""
    rows = [f"| {key} | {_cell(value)} |" for key, value in sorted(entries.items())]
    return "\n".join(["## Embeddings", "", "| | |", "|---|---|", *rows])


def _tokenizer(manifest: dict[str, Any], quality: dict[str, Any]) -> str:
    # Settings of the manifest, then figures of quality.json.
    rows = [("quantizer", manifest.get("quantizer", NOT_STATED))]
    if manifest.get("collisions"):
        rows.append(("collisions", manifest["collisions"].get("strategy", NOT_STATED)))
    if quality:
        before, after = quality["before"], quality["after"]
        rows += [
            (
                "codes per level",
                ", ".join(str(level["codebook_size"]) for level in after["levels"]),
            ),
            ("codes in use", ", ".join(str(level["used"]) for level in after["levels"])),
            ("collision rate, quantized", f"{before['collision_rate']:.4f}"),
            ("collision rate, resolved", f"{after['collision_rate']:.4f}"),
        ]
        if before.get("relative_loss") is not None:
            rows.append(("squared error over squared length", f"{before['relative_loss']:.4f}"))
    table = [f"| {name} | {_cell(value)} |" for name, value in rows]
    return "\n".join(["## Tokenizer", "", "| | |", "|---|---|", *table])


def _downstream(figures: dict[str, Figure]) -> str:
    rows = [
        f"| {name} | {figure.value:.4f} | {_interval(figure)} |"
        for name, figure in figures.items()
        if name not in CODES  # the table of the tokenizer has those
    ]
    if not rows:
        return ""
    head = ["## Recommendation", "", "| metric | value | 95 % interval |", "|---|---|---|"]
    return "\n".join([*head, *rows])


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{figure.low:.4f} to {figure.high:.4f}"


def _cell(value: Any) -> str:
    """A value in a cell of a table: one line, and no cell of its own."""
    text = "none" if value is None else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
