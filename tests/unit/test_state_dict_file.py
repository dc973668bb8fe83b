"""State dicts written without torch: what torch reads is what was written."""

import pickletools
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sidmill.io import state_dict_file

ARRAYS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    npst.arrays(np.float32, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=300)),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(ARRAYS, st.booleans(), st.booleans())
def test_torch_reads_what_is_written(arrays, mapped, transposed):
    if transposed:
        arrays = {name: array.T for name, array in arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pt")
        state_dict_file.write(path, arrays)
        for weights_only in (True, False):
            found = torch.load(path, weights_only=weights_only, mmap=mapped)
            assert list(found) == list(arrays)
            for name, tensor in found.items():
                assert (tensor.dtype, tensor.requires_grad) == (torch.float32, False)
                assert tensor.is_contiguous()
                assert tensor.numpy().shape == arrays[name].shape
                assert tensor.numpy().tobytes() == arrays[name].tobytes()


def test_numbers_begin_where_a_reader_may_map_them(tmp_path, rng):
    arrays = {f"word.{number}": rng.random((number, 3), np.float32) for number in range(1, 12)}
    state_dict_file.write(tmp_path / "model.pt", arrays)
    content = (tmp_path / "model.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        assert archive.testzip() is None
    assert [content.index(array.tobytes()) % 64 for array in arrays.values()] == [0] * 11


def test_the_pickle_names_what_torch_itself_names(tmp_path, rng):
    """No reader that knows files of torch.save meets a name that is new to it."""
    book = rng.random((5, 3), np.float32)
    state_dict_file.write(tmp_path / "mine.pt", {"book": book})
    torch.save({"book": torch.from_numpy(book)}, tmp_path / "theirs.pt")
    assert named(tmp_path / "mine.pt") == named(tmp_path / "theirs.pt")


def named(path):
    with zipfile.ZipFile(path) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        steps = pickletools.genops(archive.read(entry))
        return {argument for opcode, argument, _ in steps if opcode.name == "GLOBAL"}


def test_other_numbers_are_refused(tmp_path):
    with pytest.raises(TypeError, match="book is float64, wanted float32"):
        state_dict_file.write(tmp_path / "model.pt", {"book": np.zeros((2, 2))})
