"""A published version: a folder that is never written again, and what stands in it.

    manifest.json           what it is made of, with a SHA-256 of every other file
    pid2sid.parquet         the SIDs
    ledger.parquet          these, and those of items that are gone: what later versions go on from
    quantizer.safetensors   the codebooks that later versions encode with
    embeddings.parquet/     the vectors, in shards
    codes.parquet, text.parquet, quality.json, resolution.json
    lsa.safetensors         the embedder, where it was fitted here
    churn.json, churn.parquet  what changed since the version before, where there is one

``results/version.json`` is the manifest of the run at hand, which also says where each file lies.
"""

import hashlib
import os
import shutil
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.formats import report

MANIFEST = "manifest.json"
FORM = 1
NEEDED = (
    "pid2sid.parquet",
    "ledger.parquet",
    "quantizer.safetensors",
    "codes.parquet",
    "text.parquet",
)
SHARDS = "embeddings.parquet"


def describe(sources: dict[str, str | list[str]], facts: dict) -> dict:
    """Make the manifest of a run.

    Args:
        sources: its files, shards as a list under ``shards``, and under ``parent`` the manifest of
            the version that it goes on from; empty ones are left out.
        facts: what else the manifest says.

    Returns:
        ``facts``, the SHA-256 of the parent's manifest, and under ``files`` the source, the size
        and the SHA-256 of each file.
    """
    found = {name: path for name, path in sources.items() if path}
    parent, shards = found.pop("parent", None), found.pop("shards")
    places = {Path(path).name: path for path in found.values()}
    places |= {f"{SHARDS}/{Path(path).name}": path for path in shards}
    files = {
        name: {"source": str(path), **_facts_of(path)} for name, path in sorted(places.items())
    }
    return {"form": FORM, **facts, "parent": digest(parent) if parent else None, "files": files}


def publish(run_path: str | Path, folder: str | Path) -> dict:
    """Make a version of what a run left, whole or not at all.

    Files are linked where the file system can, else copied; each is held against the manifest.

    Args:
        run_path: results/version.json.
        folder: the version to make; its parent is made if it is missing.

    Returns:
        The manifest.

    Raises:
        SidmillError: if there is such a folder, or a file is not as the manifest says.
    """
    folder = Path(folder)
    if folder.exists() or folder.is_symlink():
        raise SidmillError(
            f"{folder}: is there already, and a version is never written again: name another one"
        )
    run = _read(run_path, f"run snakemake {run_path} with the configuration of this run first")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    partial.mkdir(parents=True)
    try:
        for name, entry in run["files"].items():
            _take(entry, partial / name, run_path)
        files = {
            name: {key: entry[key] for key in ("bytes", "sha256")}
            for name, entry in run["files"].items()
        }
        manifest = run | {"files": files}
        report.write(partial / MANIFEST, manifest)
        for place in (partial / SHARDS, partial):
            _flush(place)
        try:
            partial.rename(folder)
        except OSError as error:
            raise SidmillError(f"{folder}: cannot be made ({error.strerror})") from None
        _flush(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


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
    files = _read(manifest, "take another copy of that version")["files"]
    missing = sorted(name for name in {*files, *NEEDED} if not Path(folder, name).is_file())
    shards = [name for name in files if name.startswith(f"{SHARDS}/")]
    if missing or not shards:
        raise SidmillError(
            f"{setting}: {folder} lacks {', '.join(missing) or SHARDS}: take another copy of that "
            f"version"
        )
    found: dict[str, list[str]] = {"all": [str(manifest)]}
    for name in sorted(files):
        path = str(Path(folder, name))
        found["all"].append(path)
        found.setdefault(name.partition(".")[0], []).append(path)
    return found


def verify(paths: list[str]) -> dict:
    """Read every file of a version, and hold it against the manifest.

    Args:
        paths: the manifest, then the files, as :func:`find` gives them under ``all``.

    Returns:
        The manifest.

    Raises:
        SidmillError: naming the first file that is not as it was published.
    """
    if not paths:
        raise SidmillError("published.path is null: name a version that `sidmill publish` made")
    manifest = _read(paths[0], "take another copy of that version")
    for name, entry in sorted(manifest["files"].items()):
        path = Path(paths[0]).parent / name
        found = _facts_of(path)
        if found != {key: entry.get(key) for key in found}:
            raise SidmillError(
                f"{path}: {found['bytes']} bytes, SHA-256 {found['sha256'][:12]}; its manifest "
                f"says {entry.get('bytes')} bytes, {str(entry.get('sha256'))[:12]}: it was changed "
                f"after it was published; take another copy of that version"
            )
    return manifest


def file_of(paths: list[str], name: str) -> Path:
    """The path of one file of a version, given as in :func:`verify`."""
    return Path(paths[0]).parent / name


def digest(path: str | Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: str | Path, hint: str) -> dict:
    """Read a manifest and refuse another form."""
    if not Path(path).is_file():
        raise SidmillError(f"{path}: no such file: {hint}")
    manifest = report.read(path)
    files = manifest.get("files")
    if manifest.get("form") != FORM or not isinstance(files, dict):
        raise SidmillError(
            f"{path}: no manifest of form {FORM} (found {manifest.get('form')!r}): {hint}"
        )
    strays = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
    if strays or not all(isinstance(entry, dict) for entry in files.values()):
        raise SidmillError(f"{path}: it names files outside of its folder ({strays}): {hint}")
    return manifest


def _facts_of(path: str | Path) -> dict:
    try:
        return {"bytes": Path(path).stat().st_size, "sha256": digest(path)}
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file") from None


def _take(entry: dict, target: Path, run_path: str | Path) -> None:
    """Link or copy one file, and see that it is the one that was described."""
    target.parent.mkdir(exist_ok=True)
    source = Path(entry["source"])
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise SidmillError(f"{source}: no such file: run snakemake {run_path} again") from None
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
    found = _facts_of(target)
    if found["sha256"] != entry["sha256"]:
        raise SidmillError(
            f"{source}: changed since {run_path} was written: run snakemake {run_path} again"
        )
    _flush(target)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
