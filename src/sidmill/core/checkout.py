"""Which commit of git a folder is at, if it is a checkout."""

import subprocess
from pathlib import Path
from typing import NamedTuple

SECONDS = 30


class Commit(NamedTuple):
    """A commit, and whether a tracked file differs from it."""

    commit: str
    dirty: bool


def commit_of(folder: str | Path, tracked: str) -> Commit | None:
    """The commit of a folder; None where it is not in git, or git is not there.

    Args:
        folder: the folder.
        tracked: a file of it that git has to know: a copy inside of another repository is not at
            that one's commit.
    """
    if _git(folder, "ls-files", "--error-unmatch", "--", tracked) is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return Commit(commit.strip(), bool(changes)) if commit and changes is not None else None


def _git(folder: str | Path, *words: str) -> str | None:
    """What a command of git prints, or None where it fails. Locks and changes nothing."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout
