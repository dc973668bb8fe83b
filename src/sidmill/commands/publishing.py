"""Publishing: the results of a run become a version (:mod:`sidmill.formats.version_folder`)."""

import os
import shutil
from pathlib import Path
from typing import Any

from sidmill.core import folders
from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.formats.version_folder import SHARDS, facts_of, read
from sidmill.io import json_report
from sidmill.io.remedy import MANIFEST
from sidmill.report import card, runs


def publish(
    run_path: str | Path,
    folder: str | Path,
    *,
    title: str = "Semantic IDs",
    license_id: str | None = None,
) -> dict[str, Any]:
    """Make a version of the results of a run, whole or not at all.

    Files are hard links where the file system allows, else copies; each is compared with the
    manifest. A later run replaces files and never writes into them, so a version stays as it is.

    Args:
        run_path: results/version.json.
        folder: the version to make; its parent is made if it is missing.
        title: heading of its dataset card.
        license_id: of the dataset card, an identifier of the Hugging Face hub; None: not stated.

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

    # Files go to a folder beside the version, which takes its name once it is whole.
    run = read(run_path, f"run snakemake {run_path} with the configuration of this run first")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    partial.mkdir(parents=True)
    try:
        for name, entry in run["files"].items():
            _take(entry, partial / name, run_path)

        # The manifest of a version names no paths of this machine. The card describes its files.
        files = {
            name: {key: entry[key] for key in ("bytes", "sha256")}
            for name, entry in run["files"].items()
        }
        manifest = run | {"files": files}
        text = card.render(
            partial,
            manifest,
            runs.describe(Path(run_path).parent).figures,
            title=title,
            license_id=license_id,
        )
        write_text(partial / card.CARD, text)
        files[card.CARD] = facts_of(partial / card.CARD)
        json_report.write(partial / MANIFEST, manifest)
        for made in (partial / SHARDS, partial):
            if made.is_dir():
                folders.flush(made)
        try:
            partial.rename(folder)
        except OSError as error:
            raise SidmillError(f"{folder}: cannot be made ({error.strerror})") from None
        folders.flush(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _take(entry: dict[str, Any], target: Path, run_path: str | Path) -> None:
    """Link or copy one file, and check that it is the one that the manifest describes."""
    target.parent.mkdir(exist_ok=True)
    source = Path(entry["source"])
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise SidmillError(f"{source}: no such file: run snakemake {run_path} again") from None
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
    copied = facts_of(target)
    if copied["sha256"] != entry["sha256"]:
        raise SidmillError(
            f"{source}: changed since {run_path} was written: run snakemake {run_path} again"
        )
    folders.flush(target)
