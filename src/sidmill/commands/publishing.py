"""Publishing: what a run left becomes a version (:mod:`sidmill.formats.version_folder`)."""

import os
import shutil
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.formats.version_folder import (
    MANIFEST,
    SHARDS,
    facts_of,
    read,
)
from sidmill.io import json_report


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
    run = read(run_path, f"run snakemake {run_path} with the configuration of this run first")
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
        json_report.write(partial / MANIFEST, manifest)
        for place in (partial / SHARDS, partial):
            if place.is_dir():
                _flush(place)
        try:
            partial.rename(folder)
        except OSError as error:
            raise SidmillError(f"{folder}: cannot be made ({error.strerror})") from None
        _flush(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


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
    found = facts_of(target)
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
