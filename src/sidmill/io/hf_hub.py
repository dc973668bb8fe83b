"""The Hugging Face hub: files of a model before its weights are read, and upload of a dataset.

modules.json names the parts of a model of sentence-transformers. Without it that library would
guess how to pool. https://sbert.net
"""

from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
)

from sidmill.core.errors import SidmillError

ATTRIBUTES = ".gitattributes"  # a file of the hub itself


def find_modules(model: str, revision: str | None, section: str) -> Path | None:
    """Return the path of modules.json of a Hugging Face model, None if the model has none.

    Args:
        model: folder, or id on the hub.
        revision: of a hub model.
        section: of the config, whose ``model`` it is, for the message.

    Raises:
        SidmillError: if the model is neither a folder nor to be had from the hub.
    """
    if Path(model).is_dir():
        path = Path(model) / "modules.json"
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(model, "modules.json", revision=revision))
    except LocalEntryNotFoundError as error:
        raise _unreachable(model, section, error) from None
    except EntryNotFoundError:
        return None
    except (OSError, ValueError) as error:  # the hub answers no, or the name cannot be an id
        raise _unreachable(model, section, error) from None


def address() -> str:
    """The hub that is asked: HF_ENDPOINT, or huggingface.co."""
    return str(constants.ENDPOINT)


def upload(files: dict[str, Path], repository: str, *, version: int, private: bool) -> str:
    """Upload files as one commit to a dataset, made if it is missing, and tag the commit.

    The commit removes the files of earlier versions that are not named. The token is that of
    ``hf auth login``, or HF_TOKEN.

    Args:
        files: by their names in the dataset.
        repository: owner/name.
        version: the commit gets the tag ``v{version}``.
        private: of a dataset that is made.

    Returns:
        The address of the dataset.

    Raises:
        SidmillError: if the hub refuses, or cannot be reached: then nothing has gone, or, as the
            message says, all files without the tag.
    """
    # All files, and the removal of those of earlier versions, in one commit.
    api = HfApi()
    added = [CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
    try:
        made = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        known = set(api.list_repo_files(made.repo_id, repo_type="dataset"))
        removed = [CommitOperationDelete(name) for name in sorted(known - {*files, ATTRIBUTES})]
        commit = api.create_commit(
            made.repo_id,
            [*added, *removed],
            repo_type="dataset",
            commit_message=f"Version {version}",
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise SidmillError(
            f"{repository} on {address()}: not uploaded ({first_line(error)}): check the name, and "
            f"log in with `hf auth login` or set HF_TOKEN to a token that may write"
        ) from None

    # The tag names this commit; one that is there already names another.
    try:
        api.create_tag(made.repo_id, tag=f"v{version}", revision=commit.oid, repo_type="dataset")
    except (HfHubHTTPError, OSError) as error:
        raise SidmillError(
            f"{repository} on {address()}: all files were uploaded, but the commit {commit.oid} "
            f"got no tag v{version} ({first_line(error)}): if an older commit has it, remove it "
            f"with `hf repos tag delete {repository} v{version} --repo-type dataset`, and upload "
            f"again"
        ) from None
    return str(made)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, for one's own; its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _unreachable(model: str, section: str, error: Exception) -> SidmillError:
    return SidmillError(
        f"{section}.model {model!r} is neither a folder (looked in {Path.cwd()}) nor to be had "
        f"from the hub ({first_line(error)}): check its name and {section}.revision, or download "
        f"it on a machine with network (hf download {model} --local-dir FOLDER) and set "
        f"{section}.model to that folder"
    )
