"""Numbers of prefixes, against sets of Python: with codes of up to 63 bits and of more."""

import numpy as np
import pytest

from sidmill.sids import prefixes

SIZES = {"short": [3, 1, 5], "one level": [7], "63 bits": [2**31, 2**31, 2], "longer": [2**31] * 4}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("n_items", [0, 1, 200])
def test_prefixes_are_numbered_in_lexicographic_order(rng, sizes, n_items):
    codes = np.stack([rng.integers(size, size=n_items) for size in sizes], axis=1)
    codes[: n_items // 2] = codes[n_items // 2 : n_items // 2 * 2]  # half of the items share a code
    codes[: n_items // 4, -1] = 0  # or a prefix
    found = prefixes.number(codes.astype(np.int32), sizes)

    assert found.sizes == sizes
    rows = list(map(tuple, codes.tolist()))
    for length in range(len(sizes) + 1):
        known = {prefix: n for n, prefix in enumerate(sorted({row[:length] for row in rows}))}
        assert found.numbers[length].dtype in (np.int32, np.int64)
        assert found.numbers[length].tolist() == [known[row[:length]] for row in rows]
        if length:
            parents = {p: n for n, p in enumerate(sorted({row[: length - 1] for row in rows}))}
            children = [parents[prefix[:-1]] * sizes[length - 1] + prefix[-1] for prefix in known]
            assert found.children[length - 1].tolist() == children
    if n_items:
        assert prefixes.occurs(found, codes).all()
