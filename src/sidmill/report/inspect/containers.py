"""Files of named arrays: safetensors, HDF5, OneRec checkpoints, faiss indexes.

Shapes: K_l codewords of level l, d dimensions.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open

from sidmill.core.errors import SidmillError
from sidmill.core.listing import some
from sidmill.formats import (
    foreign_tokenizers,
    item_data,
    quantizer_file,
    sequence_data,
)
from sidmill.io import hdf5, tensors
from sidmill.report.inspect.facts import (
    ANOTHER,
    LOOKED_BYTES,
    Budget,
    Description,
)
from sidmill.report.inspect.tables import Norms

SHOWN_TENSORS = 12
CHECKPOINTS = ("OneRec checkpoint", "RQ-VAE checkpoint of LC-Rec")
FLOATS = ("F64", "F32", "F16", "BF16")
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2}


def describe_safetensors(path: str, budget: Budget) -> Description:
    """Describe named tensors by the header; values are read up to 256 MiB, or as asked.

    Raises:
        SidmillError: if the header cannot be read, or a quantizer breaks its format.
    """
    # Metadata, and the dtype and shape of each tensor.
    description = Description(path, "safetensors", Path(path).stat().st_size)
    try:
        with safe_open(path, framework="numpy") as file:
            stored = file.metadata() or {}
            facts = json.loads(stored.get(tensors.METADATA_KEY, "null"))
            slices = {name: file.get_slice(name) for name in sorted(file.keys())}
            forms = {name: (one.get_dtype(), one.get_shape()) for name, one in slices.items()}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise SidmillError(
            f"{path}: not a readable safetensors file ({error}): {ANOTHER}"
        ) from None

    # What the tensors are: a quantizer, a checkpoint, or values to be checked.
    facts = facts if isinstance(facts, dict) else {}
    description.kind = _kind(set(forms), facts)
    description.facts["tensors"] = _listed(forms)
    description.facts |= {key: value for key, value in facts.items() if key != "names"}
    if description.kind.startswith("quantizer"):
        _describe_codebooks(description, quantizer_file.read(path, without_codebooks=True))
    elif description.kind in CHECKPOINTS:
        _describe_codebooks(description, foreign_tokenizers.read(path))
    else:
        _check_finite(description, path, forms, budget)
    return description


def describe_checkpoint(path: str, _: Budget) -> Description:
    """Describe a .pt or .pth of OneRec, LC-Rec or MiniOneRec; tensors alone are loaded, never code.

    Raises:
        SidmillError: if it is another, or holds more than tensors.
    """
    read = foreign_tokenizers.read(path)
    kind = "RQ-VAE checkpoint of LC-Rec" if read.encoder else "OneRec checkpoint"
    description = Description(path, kind, Path(path).stat().st_size)
    _describe_codebooks(description, read)
    return description


def describe_hdf5(path: str, budget: Budget) -> Description:
    """Describe item_data.h5 or sequence.h5, or any other HDF5 file by its datasets.

    Raises:
        SidmillError: if the file is damaged, or breaks the format that its datasets name.
    """
    description = Description(path, "HDF5", Path(path).stat().st_size)
    try:
        with h5py.File(path, "r") as file:
            sets = {name: one for name, one in file.items() if isinstance(one, h5py.Dataset)}
            description.facts["datasets"] = {
                name: f"{hdf5.kind_of(one.dtype)} {one.shape}" for name, one in sets.items()
            }
            description.facts |= {name: _plain(value) for name, value in file.attrs.items()}
            names = set(sets)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise SidmillError(f"{path}: not a whole HDF5 file ({reason}): {ANOTHER}") from None
    if {"item_ids", "embeddings"} <= names:
        _describe_items(description, path, budget)
    elif {"user_ids", "sequences"} <= names:
        _describe_sequences(description, path, budget)
    return description


def describe_faiss(path: str, _: Budget) -> Description:
    """Describe a faiss index, mapped and not read."""
    from sidmill.core.faiss_library import faiss

    description = Description(path, "faiss index", Path(path).stat().st_size)
    try:
        index = faiss.read_index(path, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise SidmillError(
            f"{path}: not a readable faiss index ({reason:.200}): {ANOTHER}"
        ) from None
    description.facts |= {"type": type(index).__name__, "rows": index.ntotal, "dim": index.d}
    return description


def _kind(names: set[str], facts: dict[str, Any]) -> str:
    if "codebook.0" in names and "settings" in facts:
        return f"quantizer, {facts.get('kind')}"
    if facts.get("kind") == "lsa":
        return "LSA model"
    if facts.get("kind") == "neighbours":
        return "one shard of a search"
    if {"edges", "starts", "nodes"} <= names:
        return "tree of the SIDs"
    if "whitening.mean" in names:
        return "sequence recommender"
    if "centroids.0" in names:
        return "OneRec checkpoint"
    if "rq.vq_layers.0.embedding.weight" in names:
        return "RQ-VAE checkpoint of LC-Rec"
    return "safetensors of SIDMill" if facts else "safetensors"


def _listed(forms: dict[str, tuple[str, list[int]]]) -> dict[str, str]:
    listed = {name: f"{kind} {tuple(shape)}" for name, (kind, shape) in forms.items()}
    if len(listed) <= SHOWN_TENSORS:
        return listed
    first = dict(list(listed.items())[:SHOWN_TENSORS])
    return first | {"...": f"and {len(listed) - SHOWN_TENSORS} more"}


def _describe_codebooks(description: Description, read: quantizer_file.Quantizer) -> None:
    if not read.codebooks:  # SIDs that were given
        description.facts["codebook sizes"] = read.codebook_sizes
        return
    description.facts["dim"] = read.dim
    if read.categories:
        description.facts["categories"] = (
            f"{len(read.categories.names):,} of the field {read.categories.field}, "
            f"{len(read.codebooks[0]):,} codes: {some(read.categories.names)}"
        )
    _look_at_books(description, read.codebooks)


def _look_at_books(description: Description, books: list[np.ndarray]) -> None:
    description.facts["codebooks"] = [list(book.shape) for book in books]
    description.figures["codeword lengths"] = [
        float(np.linalg.norm(book, axis=1).mean()) for book in books
    ]
    description.check("finite", True)  # the readers refuse others
    twice = sum(len(book) - len(np.unique(book, axis=0)) for book in books)
    description.check("codewords differ", not twice, f"{twice:,} repeat another" if twice else "")


def _check_finite(
    description: Description, path: str, forms: dict[str, tuple[str, list[int]]], budget: Budget
) -> None:
    kinds = {kind for kind, _ in forms.values()}
    size = sum(BYTES.get(kind, 1) * int(np.prod(shape)) for kind, shape in forms.values())
    if "BF16" in kinds or (size > LOOKED_BYTES and not budget.whole):
        says = "bfloat16" if "BF16" in kinds else "large; --all looks at all"
        description.check("finite", None, says)
        return
    with safe_open(path, framework="numpy") as file:
        odd = [
            name
            for name, (kind, _) in forms.items()
            if kind in FLOATS and not np.isfinite(file.get_tensor(name)).all()
        ]
    description.check("finite", not odd, f"not so: {some(odd, 3)}" if odd else "")


def _describe_items(description: Description, path: str, budget: Budget) -> None:
    description.kind = "items for HDF5 loaders"
    data = item_data.open_item_data(path)
    with data.file:
        rows, dim = data.embeddings.shape
        looked = budget.rows_of(rows, 4 * dim)
        norms = Norms()
        step = max((16 << 20) // max(4 * dim, 1), 1)
        for start in range(0, looked, step):
            norms.add(data.embeddings[start : min(start + step, looked)])
        norms.tell(description, looked, rows)
        description.sample = [
            {"item_id": int(number), "features": data.features[row][:6].tolist()}
            for row, number in enumerate(data.item_ids[: budget.rows])
        ]
    description.check("ids unique, from 1", True)  # open_item_data refuses others
    description.check("attributes fit the datasets", True)


def _describe_sequences(description: Description, path: str, budget: Budget) -> None:
    description.kind = "histories for HDF5 loaders"
    data = sequence_data.open_sequence_data(path)
    with data.file:
        total = len(data.sequence_lengths)
        looked = budget.rows_of(total, 256)
        for block in sequence_data.read(data, 0, looked):
            if not description.sample:
                description.sample = [
                    {"user_id": user, "items": list(map(int, data.sequences[row][:6]))}
                    for row, user in enumerate(block.users[: budget.rows])
                ]
    description.check("attributes fit the datasets", True)
    description.check("lists as long as sequence_lengths", True)  # read refuses others


def _plain(value: Any) -> object:
    with suppress(AttributeError, ValueError):
        plain: object = value.item()
        return plain
    return str(value)
