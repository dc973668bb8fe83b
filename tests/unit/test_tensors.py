"""Tensors in any layout come back as the values they were."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from sidmill.io import tensors

CUBE = np.arange(4 * 6 * 3).reshape(4, 6, 3)
LAYOUTS = {
    "rows": lambda a: a,
    "transposed": lambda a: a.T,
    "axes": lambda a: a.transpose(1, 0, 2),
    "Fortran": np.asfortranarray,
    "every second": lambda a: a[::2, :, ::2],
    "backwards": lambda a: a[::-1, ::-1],
    "column": lambda a: a[:, 2],
    "broadcast": lambda a: np.broadcast_to(a[0], (5, *a[0].shape)),
    "one value": lambda a: a[1, 2, 2],
    "none": lambda a: a[:0],
}
DTYPES = ["<f4", ">f4", "<f2", ">f2", ">f8", "<i4", ">i4", ">i8", "u1", "?"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_do_not_depend_on_layout_or_byte_order(tmp_path, layout, dtype):
    array = np.asarray(LAYOUTS[layout](CUBE.astype(dtype)))
    tensors.write(tmp_path / "t.safetensors", {"x": array, "y": CUBE}, {"kind": "test"})
    found, facts = tensors.read(tmp_path / "t.safetensors", "test")
    np.testing.assert_array_equal(found["x"], array)
    np.testing.assert_array_equal(load_file(tmp_path / "t.safetensors")["x"], array)
    assert (found["x"].dtype, found["x"].shape) == (array.dtype.newbyteorder("="), array.shape)
    assert facts == {"kind": "test"}
    # Equal values are equal bytes.
    plain = np.array(array.tolist(), dtype=array.dtype.newbyteorder("=")).reshape(array.shape)
    tensors.write(tmp_path / "plain.safetensors", {"x": plain, "y": CUBE}, {"kind": "test"})
    assert (tmp_path / "t.safetensors").read_bytes() == (
        tmp_path / "plain.safetensors"
    ).read_bytes()
