"""Split the items of large categories evenly: a tree of cuts across principal axes.

The items of a node are cut at a quantile of their products with the node's principal axis, so that
both sides can be divided further into parts of equal size. A category of n items and m codes thus
has floor(n / m) or ceil(n / m) items per code; items with equal products stay together.

Shapes: N items, D dimensions, G categories, S splits, m codes of a category, s rows of a sample.

Source: Principal direction divisive partitioning, https://doi.org/10.1023/A:1009740529316, with
cuts at a quantile in place of the mean.
"""

from typing import NamedTuple

import numpy as np

from sidmill.numeric import category_codes, row_blocks

SAMPLE_ROWS = 1024  # rows of a node that its axis is found from
POWER_STEPS = 16
HASH_SEED = 42


class Tree(NamedTuple):
    """The splits of all categories; ways lead to a later split or to -1 - a code.

    Attributes:
        roots: int32 (G,).
        normals: float32 (S, D).
        thresholds: float32 (S,).
        ways: int32 (S, 2).
    """

    roots: np.ndarray
    normals: np.ndarray
    thresholds: np.ndarray
    ways: np.ndarray


class _Node(NamedTuple):
    """Items that become ``n_codes`` parts; ``parent`` is the split above, and its side."""

    n_codes: int
    category: int
    parent: tuple[int, int] | None


class _Growing(NamedTuple):
    """Splits and leaves so far; ``ways`` has None where a side is still open."""

    roots: list[int | None]
    normals: list[np.ndarray]
    thresholds: list[float]
    ways: list[list[int | None]]
    leaves: list[_Node]


def grow(vectors: np.ndarray, numbers: np.ndarray, n_codes: np.ndarray, memory_mb: int) -> Tree:
    """Grow the trees of all categories, all splits of one depth in one pass over the vectors.

    The order of items changes nothing: samples follow from the values of the vectors.
    Memory: 16 bytes per item, one block of rows, and the sample of one node.

    Args:
        vectors: float32 or float16 (N, D).
        numbers: int32 (N,), the category of each item.
        n_codes: int64 (G,), the codes that each category may have.
        memory_mb: MiB for one block with its temporaries.
    """
    growing = _Growing([None] * len(n_codes), [], [], [], [])
    nodes = [_Node(int(one), number, None) for number, one in enumerate(n_codes)]
    place = numbers.astype(np.int32)  # (N,), the node of each item; -1 where it has its code
    hashes = (
        _hash_rows(vectors, memory_mb) if n_codes.max(initial=1) > 1 else np.empty(0, np.uint64)
    )
    while nodes:
        # Nodes of one code are leaves; the others get an axis.
        axes = _axes(vectors, place, nodes, hashes)
        products = _products(vectors, place, axes, memory_mb)
        members, bounds = _by_node(place, len(nodes))
        place[:] = -1
        following: list[_Node] = []
        for number, node in enumerate(nodes):
            rows = members[bounds[number] : bounds[number + 1]]
            cut = _cut(products[rows], node.n_codes) if number in axes else None
            if cut is None:
                _attach(growing, node, -1 - len(growing.leaves))
                growing.leaves.append(node)
                continue

            # A split, and the two nodes below it.
            threshold, n_left = cut
            split = len(growing.normals)
            _attach(growing, node, split)
            growing.normals.append(axes[number])
            growing.thresholds.append(threshold)
            growing.ways.append([None, None])
            beyond = products[rows] >= threshold
            for side, codes_of_side in enumerate((n_left, node.n_codes - n_left)):
                place[rows[beyond == bool(side)]] = len(following)
                following.append(_Node(codes_of_side, node.category, (split, side)))
        nodes = following
    return _in_order(growing, vectors.shape[1])


def _attach(growing: _Growing, node: _Node, where: int) -> None:
    """Write down where the way to a node leads."""
    if node.parent is None:
        growing.roots[node.category] = where
    else:
        split, side = node.parent
        growing.ways[split][side] = where


def _in_order(growing: _Growing, dim: int) -> Tree:
    """Number the codes by category, and within one from the first way to the last."""
    order: dict[int, int] = {}
    for root in growing.roots:
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if node is None:
                continue
            if node < 0:
                order[node] = -1 - len(order)
            else:
                waiting += reversed(growing.ways[node])

    # The same trees, with the codes numbered anew.
    def numbered(node: int | None) -> int:
        return 0 if node is None else order.get(node, node)

    ways = [[numbered(way) for way in pair] for pair in growing.ways]
    return Tree(
        np.array([numbered(root) for root in growing.roots], dtype=np.int32),
        np.array(growing.normals, dtype=np.float32).reshape(-1, dim),
        np.array(growing.thresholds, dtype=np.float32),
        np.array(ways, dtype=np.int32).reshape(-1, 2),
    )


def _by_node(place: np.ndarray, n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows sorted by their node, and where each node begins: int64 (n,), (n_nodes + 1,)."""
    rows = np.flatnonzero(place >= 0)
    rows = rows[np.argsort(place[rows], kind="stable")]
    return rows, np.searchsorted(place[rows], np.arange(n_nodes + 1))


def _hash_rows(vectors: np.ndarray, memory_mb: int) -> np.ndarray:
    """Numbers that look random and follow from the values of a row alone: uint64 (N,)."""
    rng = np.random.default_rng(HASH_SEED)
    keys = rng.integers(2**63, size=vectors.shape[1], dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(vectors), dtype=np.uint64)
    n_rows = category_codes.rows_of_block(2 * vectors.shape[1], 0, memory_mb)
    for start, block in row_blocks.read_blocks(vectors, n_rows):
        mixed = (block.view(np.uint32) ^ (block.view(np.uint32) >> 15)) * keys  # modulo 2**64
        hashes[start : start + len(block)] = mixed.sum(axis=1)
    return hashes ^ (hashes >> np.uint64(29))


def _axes(
    vectors: np.ndarray, place: np.ndarray, nodes: list[_Node], hashes: np.ndarray
) -> dict[int, np.ndarray]:
    """Principal axis of each node that is split, from the rows with the lowest hashes."""
    members, bounds = _by_node(place, len(nodes))
    axes = {}
    for number, node in enumerate(nodes):
        rows = members[bounds[number] : bounds[number + 1]]
        if node.n_codes > 1 and len(rows) > 1:
            rows = rows[np.argsort(hashes[rows], kind="stable")[:SAMPLE_ROWS]]
            axes[number] = _principal_axis(row_blocks.take(vectors, rows))
    return axes


def _principal_axis(sample: np.ndarray) -> np.ndarray:
    """Direction of the largest variance, roughly, by power iteration: float32 (D,), length 1."""
    rows = sample.astype(np.float64)
    rows -= rows.mean(axis=0)
    lengths = np.einsum("ij,ij->i", rows, rows)
    axis = rows[lengths.argmax()]
    for _ in range(POWER_STEPS):
        axis = axis / max(float(np.linalg.norm(axis)), np.finfo(np.float64).tiny)
        axis = rows.T @ (rows @ axis)
    axis = axis / max(float(np.linalg.norm(axis)), np.finfo(np.float64).tiny)
    sign = -1.0 if axis[np.abs(axis).argmax()] < 0 else 1.0
    return np.asarray(sign * axis, dtype=np.float32)


def _products(
    vectors: np.ndarray, place: np.ndarray, axes: dict[int, np.ndarray], memory_mb: int
) -> np.ndarray:
    """Product of each item with the axis of its node: float32 (N,); 0 where it has none."""
    products = np.zeros(len(place), dtype=np.float32)
    if not axes:
        return products
    numbers = np.array(sorted(axes))
    normals = np.stack([axes[number] for number in numbers.tolist()])
    rows = np.flatnonzero(np.isin(place, numbers))
    n_rows = category_codes.rows_of_block(vectors.shape[1], 0, memory_mb)
    for start, block in row_blocks.read_blocks(vectors, n_rows, rows):
        taken = rows[start : start + len(block)]
        row_blocks.require_finite(block, int(taken[0]))
        own = normals[np.searchsorted(numbers, place[taken])]
        products[taken] = category_codes.product(block, own)
    return products


def _cut(products: np.ndarray, n_codes: int) -> tuple[float, int] | None:
    """Where a node is cut: the threshold, and how many codes lie below it; None for equal items.

    Args:
        products: float32 (n,).
        n_codes: codes of the node, 2 or more.
    """
    # Parts of equal size: the first n_codes // 2 of them lie below.
    ordered = np.sort(products)
    n_left = n_codes // 2
    whole, more = divmod(len(ordered), n_codes)
    wanted = whole * n_left + min(more, n_left)

    # Equal products stay on one side, so the cut moves to the nearest place between two others.
    places = np.flatnonzero(ordered[1:] > ordered[:-1]) + 1
    if not len(places):
        return None
    position = places[np.abs(places - wanted).argmin()]
    below, above = ordered[position - 1], ordered[position]
    middle = np.float32((np.float64(below) + np.float64(above)) / 2)
    return float(middle if middle > below else above), n_left
