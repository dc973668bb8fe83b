"""State dicts of float32 arrays, written as ``torch.save`` does, without torch.

The file is a zip archive of uncompressed entries: ``data.pkl``, a pickle of a dictionary whose
tensors name their storages, ``data/0``, ``data/1``, ... with the numbers of these, ``byteorder``
and ``version``. ``torch.load`` reads it, also with ``weights_only`` and ``mmap``. The pickle is put
together from its opcodes: Python's pickler imports every class that it names, here those of torch.

Source: https://github.com/pytorch/pytorch/blob/main/torch/serialization.py and, for the alignment,
caffe2/serialize/inline_container.cc there.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

FOLDER = "archive"  # of the entries
VERSION = b"3\n"  # of the layout
ALIGNMENT = 64  # of the numbers in the file, in bytes: a reader may map them
HEADER_BYTES = 30  # of an entry in a zip archive, before its name
PADDING = b"FB"  # the extra field that torch fills up headers with
FIELD_BYTES = 4  # of the name and length of an extra field
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip archive knows


def write(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write float32 arrays by name. Equal arrays give equal bytes.

    Memory: a copy of one array.

    Raises:
        TypeError: if an array is not float32.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "data.pkl", _pickled(arrays))
        _add(archive, "byteorder", b"little")
        for number, array in enumerate(arrays.values()):
            _add(archive, f"data/{number}", array.astype("<f4", copy=False).tobytes())
        _add(archive, "version", VERSION)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add an entry whose content begins at a multiple of ``ALIGNMENT``."""
    entry = zipfile.ZipInfo(f"{FOLDER}/{name}", EPOCH)
    assert archive.fp is not None
    before = archive.fp.tell() + HEADER_BYTES + len(entry.filename) + FIELD_BYTES
    n_missing = -before % ALIGNMENT
    entry.extra = PADDING + n_missing.to_bytes(2, "little") + b"Z" * n_missing
    archive.writestr(entry, content)


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The pickle of a dictionary of tensors, of protocol 2 as torch's."""
    parts = [pickle.PROTO, b"\x02", pickle.EMPTY_DICT, pickle.MARK]
    for number, (name, array) in enumerate(arrays.items()):
        if array.dtype != np.float32:
            raise TypeError(f"{name} is {array.dtype}, wanted float32")

        # What persistent_load of a reader gets: kind, type, entry, device, length.
        strides = [step // array.itemsize for step in np.empty_like(array, order="C").strides]
        storage = _tuple(
            _text("storage"),
            _named("torch", "FloatStorage"),
            _text(str(number)),
            _text("cpu"),
            _integer(array.size),
        )

        # The function that makes the tensor, and its arguments: storage, offset, shape, strides.
        arguments = _tuple(
            *(storage, pickle.BINPERSID, _integer(0)),
            *(_tuple(*map(_integer, array.shape)), _tuple(*map(_integer, strides))),
            pickle.NEWFALSE,  # it needs no gradient
            *(_named("collections", "OrderedDict"), pickle.EMPTY_TUPLE, pickle.REDUCE),  # no hooks
        )
        rebuild = _named("torch._utils", "_rebuild_tensor_v2")
        parts += [_text(name), rebuild, arguments, pickle.REDUCE]
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])


def _tuple(*parts: bytes) -> bytes:
    return b"".join([pickle.MARK, *parts, pickle.TUPLE])


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pickle.BINUNICODE + len(encoded).to_bytes(4, "little") + encoded


def _named(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _integer(number: int) -> bytes:
    return pickle.LONG1 + b"\x08" + number.to_bytes(8, "little", signed=True)
