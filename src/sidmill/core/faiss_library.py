"""faiss, loaded with matrix products that fit this CPU.

The packages of faiss contain OpenBLAS, which chooses its kernels by the CPU when it is loaded.
Theirs is of 2021 (faiss-cpu 1.15.1 has OpenBLAS 0.3.15): it does not know AMD's family 26 (Zen 5)
and gives it kernels without AVX, which take 2.7 times as long. ``OPENBLAS_CORETYPE`` names kernels.

The variable is set while faiss is loaded and taken out again: NumPy and SciPy have an OpenBLAS of
their own, which knows these CPUs, and processes that this one starts may run on another machine.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy  # noqa: F401  # before faiss, which imports it: its own OpenBLAS finds its kernels

from sidmill.core import cpu_facts

CORETYPE = "OPENBLAS_CORETYPE"
KERNELS = "Haswell"  # products with AVX2 and FMA
NEEDED = {"avx2", "fma"}
FIRST_UNKNOWN_FAMILY = 26  # of AMD


@contextmanager
def fitting_kernels() -> Iterator[None]:
    """Name kernels for a library that is loaded meanwhile, where it would not find them itself.

    What the user has set stays.
    """
    if CORETYPE in os.environ or not _is_unknown_cpu():
        yield
        return
    os.environ[CORETYPE] = KERNELS
    try:
        yield
    finally:
        del os.environ[CORETYPE]


def _is_unknown_cpu() -> bool:
    """Whether this CPU is of AMD and newer than faiss's OpenBLAS, and has what ``KERNELS`` need."""
    facts = cpu_facts.first_core()
    family = facts.get("cpu family", "")
    return (
        facts.get("vendor_id") == "AuthenticAMD"
        and family.isdecimal()
        and int(family) >= FIRST_UNKNOWN_FAMILY
        and cpu_facts.flags(facts) >= NEEDED
    )


with fitting_kernels():
    import faiss

__all__ = ["faiss"]
