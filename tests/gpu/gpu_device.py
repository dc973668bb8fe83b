r"""The device under test, and what the tests of this folder share.

Every path that takes a device, at small sizes, against the result of the CPU:

    python -m pytest tests/gpu                              on the first CUDA device
    SIDMILL_TEST_DEVICE=cpu python -m pytest tests/gpu      the same tests with the CPU as device
    SIDMILL_TEST_DEVICE=simulated python -m pytest tests/gpu
                                                            on two devices that simulated_cuda.py
                                                            makes: CUDA's rules, without a GPU;
                                                            simulated:1 tests on the second one

Needed: torch, transformers, sentence-transformers, numpy, scikit-learn, scipy, h5py, safetensors,
pyarrow, pandas, xxhash, threadpoolctl, tqdm, pytest. No network, no plugin of pytest. A test that
needs another package is skipped with the name of its wheel:

    faiss-cpu (18 MiB)                             the rotation of OPQ
    datasets, dill, multiprocess (1 MiB)           training of the dual and of the cross encoder
    flash-attn                                     packed batches of an embedding, CUDA only

They are of Python 3.12 on Linux, from a machine that has a network, in the repository's root:

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 \
        --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        -d wheels datasets==5.2.0 dill==0.4.1 multiprocess==0.70.19 faiss-cpu==1.15.1

and there, without one:

    python3 -m pip install -q --no-index --no-deps --target /tmp/site wheels/*.whl
    PYTHONPATH=/tmp/site python3 -m pytest tests/gpu -rs --durations=10

An image without pyarrow needs its wheel too (45 MiB); then leave faiss-cpu out, or the whole is
above 64 MiB. Nearly every module of the library reads or writes parquet, so that importing pyarrow
late would free few of the tests from it.
"""

import os

import numpy as np
import pytest
import simulated_cuda
import torch

pytest.importorskip("pyarrow", reason="needs the wheel pyarrow")

DEVICE = os.environ.get("SIDMILL_TEST_DEVICE", "cuda")
IS_SIMULATED = DEVICE.startswith("simulated")
if IS_SIMULATED:
    simulated_cuda.start(n_devices=2)
    DEVICE = DEVICE.replace("simulated", "cuda")
IS_GPU = DEVICE != "cpu" and not IS_SIMULATED  # has kernels, memory and limits of its own
# What the search of codewords calls the device. One CPU would be NumPy, two are the path of GPUs.
SEARCH_DEVICE = "cpu,cpu" if DEVICE == "cpu" else DEVICE

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.startswith("cuda") and not torch.cuda.is_available(),
        reason=f"torch {torch.__version__} finds no CUDA device; SIDMILL_TEST_DEVICE=cpu rehearses",
    ),
]


class CutShort(BaseException):
    """What a kill is to a program: nothing after it runs."""


def cut_after(monkeypatch, module, n_saves, run):
    """Run until ``module.save`` was called so often; True if the run was cut there."""
    save, left = module.save, [n_saves]

    def save_and_die(*arguments, **options):
        result = save(*arguments, **options)
        left[0] -= 1
        if not left[0]:
            raise CutShort
        return result

    with monkeypatch.context() as patch:
        patch.setattr(module, "save", save_and_die)
        try:
            run()
        except CutShort:
            return True
    return False


def planted(n_rows=4096, dim=32, n_codes=16, n_levels=2, seed=0):
    """Vectors with one best codebook per level: a sum of one centre per level, and little noise."""
    rng = np.random.default_rng(seed)
    rows = 0.01 * rng.standard_normal((n_rows, dim), dtype=np.float32)
    for level in range(n_levels):
        centres = rng.standard_normal((n_codes, dim), dtype=np.float32) / 4**level
        rows += centres[rng.integers(n_codes, size=n_rows)]
    return rows


def agreement(codes, others):
    """Share of rows (n,) with the same code, where the codes of both may be numbered otherwise."""
    table = np.zeros((codes.max() + 1, others.max() + 1), np.int64)
    np.add.at(table, (codes, others), 1)
    return table.max(axis=1).sum() / len(codes)
