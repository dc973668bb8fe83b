"""State dicts of other programs: names and tensors, read without running what a file holds.

A .pt or .pth is loaded with ``weights_only=True``: tensors, never code. One that holds other Python
objects too is refused, with the lines that save its tensors alone. What training loops put around
a state dict is taken off: an entry such as ``state_dict``, and the prefix of names by which
DistributedDataParallel and torch.compile wrap a model.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import IO

import torch
from safetensors.torch import load_file

from sidmill.core.errors import SidmillError

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
PREFIXES = ("module.", "_orig_mod.")
SHOWN_NAMES = 20  # in a message
OF_TENSORS = re.compile(r"torch\.\w+|torch\.(_utils|_tensor|storage)\.\w+|collections\.\w+")
LEGACY_PICKLES = 4  # of a file that is no archive: three of facts, then the object


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a state dict, in its order; what is no tensor is left out.

    Raises:
        SidmillError: if the file is missing, damaged, no state dict, or holds more than tensors.
    """
    state = _load(Path(path))
    while isinstance(state, dict):
        inner = next((state[name] for name in WRAPPERS if isinstance(state.get(name), dict)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, dict):
        raise SidmillError(f"{path}: wanted a state dict, names and tensors, found {type(state)}")
    tensors = {str(name): part for name, part in state.items() if isinstance(part, torch.Tensor)}
    while prefix := _prefix(tensors):
        tensors = {name.removeprefix(prefix): part for name, part in tensors.items()}
    return tensors


def names_of(state: dict[str, torch.Tensor]) -> str:
    """The first names, for a message."""
    rest = len(state) - SHOWN_NAMES
    more = f" and {rest} more" if rest > 0 else ""
    return f"{', '.join(list(state)[:SHOWN_NAMES])}{more}" if state else "no tensor"


def _prefix(tensors: dict[str, torch.Tensor]) -> str:
    """The prefix that all names share, if it is one that wraps models."""
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return prefix
    return ""


def _load(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file: check pretrained.path") from None
    except pickle.UnpicklingError:
        raise SidmillError(how_to_convert(path)) from None
    except Exception as error:
        reason = str(error).partition("\n")[0] or "it is empty"
        raise SidmillError(f"{path}: not a readable checkpoint ({reason})") from None


def how_to_convert(path: Path) -> str:
    """Say what a file holds besides tensors, and how to save those alone. No class is imported."""
    outline = None
    names: set[str] = set()
    with suppress(Exception):  # a damaged pickle: what was seen until then is what there is to say
        outline = _outline(path, names)
    odd = sorted(name for name in names if not OF_TENSORS.fullmatch(name))
    if not odd:
        return f"{path}: not a readable checkpoint (torch.save did not write it, or it is damaged)"
    return (
        f"{path}: holds pickled Python objects ({', '.join(odd[:SHOWN_NAMES])}), which can "
        f"run any code when loaded, and is refused. If you trust the file, save its tensors alone "
        f"with these two lines of Python, where its classes can be imported, and name the new "
        f"file:\n"
        f'import torch; found = torch.load({str(path)!r}, map_location="cpu", weights_only=False)\n'
        f"torch.save({_tensors_of(outline, 'found')}, {str(_free_name(path))!r})"
    )


class _Inert:
    """Stands for whatever a pickle names: it can be made, filled and called, and does nothing."""

    name = ""

    def __new__(cls, *_: object, **__: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Take anything."""

    def __setstate__(self, _: object) -> None:
        """Take anything."""


class _Outline(pickle.Unpickler):
    """Reads the shape of a pickle: dictionaries and lists; all else is inert."""

    def __init__(self, file: IO[bytes], names: set[str]) -> None:
        """Read from ``file``; ``names`` gets the classes and functions that the pickle names."""
        super().__init__(file)
        self._names = names

    def find_class(self, module: str, name: str) -> type:
        """Import nothing: give an inert class in place of the one that is named."""
        self._names.add(f"{module}.{name}")
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return type(name, (_Inert,), {"name": f"{module}.{name}"})

    def persistent_load(self, entry: object) -> object:
        """Give an inert object in place of a tensor's numbers; a legacy file wraps classes too."""
        if isinstance(entry, tuple) and entry[0] == "module":
            return entry[1]
        return _Inert()


def _outline(path: Path, names: set[str]) -> object:
    file: IO[bytes]
    with ExitStack() as stack:
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            file, n_pickles = stack.enter_context(archive.open(name)), 1
        else:
            file, n_pickles = stack.enter_context(path.open("rb")), LEGACY_PICKLES
        reader = _Outline(file, names)
        return [reader.load() for _ in range(n_pickles)][-1]


def _tensors_of(outline: object, expression: str) -> str:
    """The expression that gives the tensors of what ``torch.load`` gave."""
    if not isinstance(outline, dict):
        return f"{expression}.state_dict()"
    for wrapper in WRAPPERS:
        inner = outline.get(wrapper)
        if isinstance(inner, dict) or _is_object(inner):
            return _tensors_of(inner, f'{expression}["{wrapper}"]')
    if any(_is_object(part) for part in outline.values()):
        return f"{{name: part for name, part in {expression}.items() if torch.is_tensor(part)}}"
    return expression


def _is_object(part: object) -> bool:
    """Whether a part of an outline is of a class that is none of torch's tensors."""
    return isinstance(part, _Inert) and not OF_TENSORS.fullmatch(part.name)


def _free_name(path: Path) -> Path:
    """A name beside the file that nothing has yet."""
    names = (path.with_suffix(f".tensors{number or ''}.pt") for number in count())
    return next(name for name in names if not name.exists())
