"""The git commit of a folder, if it is a checkout."""

import subprocess
from pathlib import Path
from typing import NamedTuple

TIMEOUT_SECONDS = 30


class Commit(NamedTuple):
    """A commit, and whether a tracked file differs from it (``dirty``)."""

    commit: str
    dirty: bool


def commit_of(folder: str | Path, tracked: str) -> Commit | None:
    """The commit of a folder; None if it is no checkout, or git is not installed.

    Args:
        folder: the folder.
        tracked: a file in it that git must track: a copy of the folder inside another repository
            is not at the commit of that repository.
    """
    if _git(folder, "ls-files", "--error-unmatch", "--", tracked) is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return Commit(commit.strip(), bool(changes)) if commit and changes is not None else None


def _git(folder: str | Path, *arguments: str) -> str | None:
    """Output of a git command, or None if it fails. It takes no lock and changes nothing."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout
