"""Files of a model, in a folder or on the Hugging Face hub, before any of its weights is read.

modules.json names the parts of a model of sentence-transformers. Without it that library would
guess how to pool. https://sbert.net
"""

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from sidmill.core.errors import SidmillError


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
