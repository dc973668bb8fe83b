"""A published version: a folder that is never written again, and its files.

    manifest.json           a description of the version, with a SHA-256 of every other file
    pid2sid.parquet         the SIDs
    ledger.parquet          these, and the SIDs of items that are gone: later versions continue it
    quantizer.safetensors   the codebooks that later versions encode with
    embeddings.parquet/     the vectors, in shards; given SIDs may have none
    codes.parquet, text.parquet, quality.json, resolution.json
    lsa.safetensors         the embedder, where it was fitted here
    churn.json, churn.parquet  what changed since the version before, where there is one
    README.md               a dataset card (:mod:`sidmill.report.card`); older versions have none

``results/version.json`` is the manifest of the current run, with the path of each file.
"""

from pathlib import Path
from typing import Any

from sidmill.core import checksums
from sidmill.core.errors import SidmillError
from sidmill.io import json_report
from sidmill.io.remedy import MANIFEST
from sidmill.settings.registry import GIVEN

FORM = 1
NEEDED = (
    "pid2sid.parquet",
    "ledger.parquet",
    "quantizer.safetensors",
    "codes.parquet",
    "text.parquet",
)
SHARDS = "embeddings.parquet"


def describe(sources: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Make the manifest of a version of the SIDs: digests and sizes of the files it consists of.

    Args:
        sources: its files, shards as a list under ``shards``, and under ``parent`` the manifest of
            the version that it continues; empty ones are left out.
        facts: other entries of the manifest.

    Returns:
        ``facts``, the SHA-256 of the parent's manifest, and under ``files`` the source, the size
        and the SHA-256 of each file.
    """
    given = {name: path for name, path in sources.items() if path}
    parent, shards = given.pop("parent", None), given.pop("shards", [])
    paths = {Path(path).name: path for path in given.values()}
    paths |= {f"{SHARDS}/{Path(path).name}": path for path in shards}
    files = {name: {"source": str(path), **facts_of(path)} for name, path in sorted(paths.items())}
    return {
        "form": FORM,
        **facts,
        "parent": checksums.of_file(parent) if parent else None,
        "files": files,
    }


def find(folder: str | Path, setting: str) -> dict[str, list[str]]:
    """List the files of a version, without reading them but for the manifest.

    Args:
        folder: the version.
        setting: config key that names it, for the message.

    Returns:
        Paths by the first part of their names, such as ``ledger`` or ``embeddings``; ``all`` has
        all of them, the manifest first.

    Raises:
        SidmillError: if it is no version, or lacks a file.
    """
    manifest = Path(folder, MANIFEST)
    if not manifest.is_file():
        raise SidmillError(
            f"{setting}: no {MANIFEST} in {folder} (relative to {Path.cwd()}): name a folder that "
            f"`sidmill publish` made, or null"
        )
    # The manifest names the files; a version of given SIDs has no shards of embeddings.
    facts = read(manifest, "take another copy of that version")
    files = facts["files"]
    missing = sorted(name for name in {*files, *NEEDED} if not Path(folder, name).is_file())
    shards = [name for name in files if name.startswith(f"{SHARDS}/")]
    embedded = facts.get("quantizer") != GIVEN  # given SIDs need no vectors
    if missing or (embedded and not shards):
        raise SidmillError(
            f"{setting}: {folder} lacks {', '.join(missing) or SHARDS}: take another copy of that "
            f"version"
        )

    paths: dict[str, list[str]] = {"all": [str(manifest)]}
    for name in sorted(files):
        path = str(Path(folder, name))
        paths["all"].append(path)
        paths.setdefault(name.partition(".")[0], []).append(path)
    return paths


def verify(paths: list[str]) -> dict[str, Any]:
    """Read every file of a version, and compare it with the manifest.

    Args:
        paths: the manifest, then the files, as :func:`find` gives them under ``all``.

    Returns:
        The manifest.

    Raises:
        SidmillError: naming the first file that is not as it was published.
    """
    if not paths:
        raise SidmillError("published.path is null: name a version that `sidmill publish` made")
    manifest = read(paths[0], "take another copy of that version")
    for name, entry in sorted(manifest["files"].items()):
        path = Path(paths[0]).parent / name
        actual = facts_of(path)
        if actual != {key: entry.get(key) for key in actual}:
            raise SidmillError(
                f"{path}: {actual['bytes']} bytes, SHA-256 {actual['sha256'][:12]}; its manifest "
                f"says {entry.get('bytes')} bytes, {str(entry.get('sha256'))[:12]}: it was changed "
                f"after it was published; take another copy of that version"
            )
    return manifest


def file_of(paths: list[str], name: str) -> Path:
    """The path of one file of a version, given as in :func:`verify`."""
    return Path(paths[0]).parent / name


def read(path: str | Path, hint: str) -> dict[str, Any]:
    """Read the manifest of a version, and refuse another form."""
    if not Path(path).is_file():
        raise SidmillError(f"{path}: no such file: {hint}")
    manifest = json_report.read(path)
    files = manifest.get("files")
    if manifest.get("form") != FORM or not isinstance(files, dict):
        raise SidmillError(
            f"{path}: no manifest of form {FORM} (found {manifest.get('form')!r}): {hint}"
        )
    strays = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
    if strays or not all(isinstance(entry, dict) for entry in files.values()):
        raise SidmillError(f"{path}: it names files outside of its folder ({strays}): {hint}")
    return manifest


def facts_of(path: str | Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    try:
        return {"bytes": Path(path).stat().st_size, "sha256": checksums.of_file(path)}
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file") from None


def check_sizes(sizes: list[int], published: list[int]) -> None:
    """Refuse to train codebooks again in which published SIDs have no place.

    Args:
        sizes: codes per level of the new quantizer.
        published: codes per level of the published one.

    Raises:
        SidmillError: naming the difference.
    """
    remedy = "or set published.path: null, which begins a new line of versions"
    if len(sizes) != len(published):
        raise SidmillError(
            f"published.refresh: the quantizer of this run has {len(sizes)} levels, that of the "
            f"version {len(published)}, so no SID could stay: set {len(published)} levels, {remedy}"
        )
    for level, (size, before) in enumerate(zip(sizes, published, strict=True), start=1):
        if size < before:
            raise SidmillError(
                f"published.refresh: level {level} has {size} codes, in the version {before}, so "
                f"SIDs with codes from {size} on could not stay: set at least {before}, {remedy}"
            )
