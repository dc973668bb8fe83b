"""``run.json``: what made the files in ``results``, when, in what time, and that no row is lost.

This is the file with wall-clock times in it; the others stay the same bytes from run to run.
"""

import hashlib
import os
import platform
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sidmill.core import checksums
from sidmill.core.checkout import commit_of
from sidmill.formats import benchmark_table, quantizer_file
from sidmill.formats.embedding_shards import FINGERPRINT_KEY
from sidmill.io import parquet, tensors
from sidmill.report.flow import follow

PACKAGES = (
    "snakemake", "numpy", "pyarrow", "torch", "scikit-learn", "scipy", "faiss-cpu", "safetensors",
    "sentence-transformers", "transformers", "h5py",
)  # fmt: skip
DESCRIPTIONS = ("run.json", "runs.jsonl", "runs.html")  # of runs: what this module is for
NO_ARTEFACTS = ("logs", "benchmarks", "work")  # folders whose files are no results
HASHED_BYTES = 256 << 20  # larger artefacts are named by size and time alone


def describe(results: str | Path, workflow: str | Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Make run.json: describe a run by its results.

    Times are those of the last run of each job, so that a resumed run counts each job once. Takes
    about a second, and more where artefacts below 256 MiB are many: their bytes are hashed.

    Args:
        results: folder of the results.
        workflow: folder of the workflow.
        settings: the effective configuration, secrets masked (:mod:`sidmill.core.secrets`).

    Raises:
        SidmillError: if a stage lost or made rows, or a file cannot be read.
    """
    folder, commit = Path(results), commit_of(workflow, "Snakefile")
    rules = benchmark_table.gather(folder / "benchmarks", left_out=("describe_run",))
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(workflow),
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count()},
        "git": commit._asdict() if commit else None,
        "settings": settings,
        "fingerprints": dict(_fingerprints(folder)),
        "artefacts": list(artefacts(folder)),
        "seconds": round(sum(rule.seconds for rule in rules), 4),
        "rules": [rule._asdict() for rule in rules],
        "stages": [stage.as_json() for stage in follow(folder)],
    }


def versions(workflow: str | Path) -> dict[str, str | None]:
    """Versions of Python, SIDMill and the packages that results depend on; None: not installed."""
    installed: dict[str, str | None] = {"python": platform.python_version()}
    project = Path(workflow) / "pyproject.toml"
    if project.is_file():
        stated = tomllib.loads(project.read_text(encoding="utf-8"))
        installed["sidmill"] = stated["project"]["version"]
    else:
        installed["sidmill"] = _version("sidmill")
    return installed | {name: _version(name) for name in PACKAGES}


def artefacts(folder: Path) -> Iterator[dict[str, Any]]:
    """Every result, by name: bytes, when it was written, and a hash; parts of a table as one.

    Hidden files, and saved states of a training, files or folders, are no results.
    """
    groups: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        passing = any(part.startswith(".") or part.endswith(".state") for part in inside.parts)
        if passing or not path.is_file() or set(NO_ARTEFACTS) & set(inside.parts[:-1]):
            continue
        if str(inside) in DESCRIPTIONS:
            continue
        groups.setdefault(path.parent if path.name.startswith("part-") else path, []).append(path)
    for artefact, files in groups.items():
        size = sum(path.stat().st_size for path in files)
        written = max(path.stat().st_mtime for path in files)
        yield {
            "path": str(artefact),
            "files": len(files),
            "bytes": size,
            "written": datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds"),
            "sha256": _digest(files) if size <= HASHED_BYTES else None,
        }


def _fingerprints(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The embedding that vectors are of, and that quantizers were trained on."""
    for ids in sorted(folder.glob("*/ids.parquet")):
        file = parquet.open_file(ids, {"pid": parquet.is_pid})
        yield str(ids.with_name("vectors.npy")), parquet.metadata_json(file, FINGERPRINT_KEY)
    for path in sorted(folder.glob("*/quantizer.safetensors")):
        if tensors.has_facts(path):
            yield str(path), quantizer_file.read(path, without_codebooks=True).fingerprint


def _digest(files: list[Path]) -> str:
    """SHA-256 of one file, or of the digests of several in the order of their names."""
    digests = [checksums.of_file(path) for path in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
