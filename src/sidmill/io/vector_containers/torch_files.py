"""Vectors in .pt and .safetensors.

    .pt            a tensor (N, D); a dictionary of tensors, and of ids as a tensor or a list; or a
                   dictionary of vectors by their ids. Read with ``weights_only=True``: no code runs
    .safetensors   tensors by name; ids are integers

Memory: a block of rows; the tensors of a .pt of torch before 1.6, and vectors by their ids, whole.
"""

import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open

from sidmill.core.errors import SidmillError
from sidmill.io import state_dict, user_arrays
from sidmill.io.vector_containers import container
from sidmill.io.vector_containers.container import Container, Names

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def open_safetensors(path: str, names: Names) -> Container:
    """Open a .safetensors.

    Raises:
        SidmillError: if it is damaged or has no vectors.
    """
    shapes = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                part = file.get_slice(name)
                shapes[name] = (part.get_dtype(), tuple(part.get_shape()))
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file: check embedding.path") from None
    except (SafetensorError, OSError) as error:
        raise SidmillError(f"{path}: not a readable .safetensors ({error})") from None
    kinds = ("F16", "BF16", "F32", "F64")
    matrices = [name for name, (kind, shape) in shapes.items() if kind in kinds and len(shape) == 2]
    name = container.choose(path, names.embedding, matrices, "embedding.fields.embedding")
    n_rows, dim = shapes[name][1]

    # Rows are read from the file as they are asked for.
    def read() -> Iterator[np.ndarray]:
        with safe_open(path, framework="pt") as file:
            part = file.get_slice(name)
            yield from container.blocks(n_rows, lambda start, stop: plain(part[start:stop]))

    def read_ids() -> Iterator[pa.ChunkedArray]:
        with safe_open(path, framework="pt") as file:
            yield _ids(path, names.pid, file.get_tensor(names.pid), n_rows)

    return Container((n_rows, dim), read, read_ids if names.pid in shapes else None)


def open_pt(path: str, names: Names) -> Container:
    """Open a .pt.

    Raises:
        SidmillError: if it is damaged, has no vectors, or holds more than tensors and plain values.
    """
    content = _load(path)
    if isinstance(content, torch.Tensor):
        return _of_tensor(path, content, None)
    if not isinstance(content, dict):
        raise SidmillError(f"{path}: holds a {type(content).__name__}, wanted a tensor (N, D)")

    # Vectors by their ids, or tensors by name.
    if content and all(_is_vector(part) for part in content.values()):
        return _by_id(path, content)
    tensors = {str(name): part for name, part in content.items() if isinstance(part, torch.Tensor)}
    matrices = [name for name, part in tensors.items() if part.ndim == 2 and part.dtype in FLOATS]
    name = container.choose(path, names.embedding, matrices, "embedding.fields.embedding")
    return _of_tensor(path, tensors[name], (names.pid, content.get(names.pid)))


def plain(rows: torch.Tensor) -> np.ndarray:
    """Rows as float32 of numpy, (b, D)."""
    found: np.ndarray = rows.to(torch.float32).contiguous().numpy()
    return found


def _load(path: str) -> object:
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # of torch before 1.6: no archive that could be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file: check embedding.path") from None
    except pickle.UnpicklingError:
        raise SidmillError(state_dict.how_to_convert(Path(path))) from None
    except Exception as error:
        reason = str(error).partition("\n")[0] or "it is empty"
        raise SidmillError(f"{path}: not a readable .pt ({reason:.200})") from None


def _of_tensor(path: str, tensor: torch.Tensor, named: tuple[str, Any] | None) -> Container:
    """A tensor, and what is stored under the name of the ids."""
    if tensor.ndim != 2 or tensor.dtype not in FLOATS:
        raise SidmillError(
            f"{path}: a tensor of {tensor.dtype} and shape {tuple(tensor.shape)}, wanted floats "
            f"(N, D)"
        )
    tensor, n_rows = tensor.detach(), len(tensor)

    def cut(start: int, stop: int) -> np.ndarray:
        return plain(tensor[start:stop])

    read_ids = None
    if named is not None and named[1] is not None:
        read_ids = partial(_named_ids, path, *named, n_rows)
    return Container((n_rows, tensor.shape[1]), lambda: container.blocks(n_rows, cut), read_ids)


def _named_ids(path: str, name: str, ids: Any, n_rows: int) -> Iterator[pa.ChunkedArray]:
    yield _ids(path, name, ids, n_rows)


def _by_id(path: str, vectors: dict[Any, torch.Tensor]) -> Container:
    """Vectors by their ids, all of one length."""
    lengths = {len(part) for part in vectors.values()}
    if len(lengths) > 1:
        raise SidmillError(f"{path}: vectors of {sorted(lengths)} dimensions: wanted one length")
    parts = list(vectors.values())
    return Container(
        (len(parts), lengths.pop()),
        lambda: container.blocks(len(parts), lambda a, b: plain(torch.stack(parts[a:b]))),
        lambda: iter([_ids(path, "the keys", list(vectors), len(parts))]),
    )


def _is_vector(part: object) -> bool:
    return isinstance(part, torch.Tensor) and part.ndim == 1 and part.dtype in FLOATS


def _ids(path: str, name: str, ids: Any, n_rows: int) -> pa.ChunkedArray:
    """Ids from a tensor or a list."""
    values = ids.numpy() if isinstance(ids, torch.Tensor) else ids
    try:
        column = pa.array(values)
        found = user_arrays.ids_of(column, path)
    except (pa.ArrowException, TypeError, AttributeError) as error:
        raise SidmillError(f"{path}: {name!r} holds no ids ({error!s:.80})") from None
    if len(found) != n_rows:
        raise SidmillError(f"{path}: {len(found)} ids in {name!r} for {n_rows} vectors")
    return found
