"""Codebooks that were trained again, renamed so that most items keep their published codes.

The number of a codeword means nothing: two trainings number the same clusters differently. Level by
level, codewords take the numbers of published codewords so that the most items keep their code, one
number for each (the assignment problem, https://doi.org/10.1002/nav.3800020109). Codewords of a
deeper level are shared by all prefixes, and items compare only under the same prefix. So a level
counts the items whose codes agree on all levels before it. A renamed quantizer decodes to the same
vectors.

Shapes: N items, L levels, K_l codewords at level l, P published codewords of that level.
"""

import logging
from typing import Any, NamedTuple

import numpy as np

from sidmill.formats import code_files, quantizer_file, version_folder
from sidmill.formats.catalogue_match import Match
from sidmill.formats.ledger_file import Ledger
from sidmill.formats.quantizer_file import Quantizer

logger = logging.getLogger(__name__)

Figures = dict[str, Any]


class Scratch(NamedTuple):
    """A quantizer that was trained without the published version, and its codes int32 (N, L)."""

    quantizer: Quantizer
    codes: np.ndarray


class Refreshed(NamedTuple):
    """How the quantizer of a run was trained again.

    Attributes:
        method: ``published.refresh``.
        scratch: what it is compared with, or None.
    """

    method: str
    scratch: Scratch | None


def load(method: str, quantizer_path: str | None, codes_path: str | None) -> Refreshed | None:
    """Read what a refresh is compared with; None where ``method`` is none.

    Args:
        method: ``published.refresh``.
        quantizer_path: quantizer.safetensors, trained from scratch; empty: nothing is compared.
        codes_path: codes.parquet of that quantizer.
    """
    if method == "none":
        return None
    if not quantizer_path or not codes_path:
        return Refreshed(method, None)
    codes = code_files.read(codes_path, "codes").codes
    return Refreshed(method, Scratch(quantizer_file.read(quantizer_path), codes))


def align(quantizer: Quantizer, codes: np.ndarray, ledger: Ledger, match: Match) -> Quantizer:
    """Rename the codewords of a quantizer so that most items get their published codes.

    Items whose text changed do not count. The same input gives the same bytes. Memory: about 60
    bytes per item, and the codebooks.

    Args:
        quantizer: trained on the items of this run.
        codes: int32 (N, L), of this quantizer.
        ledger: of the published version.
        match: of all N items.

    Raises:
        SidmillError: if the version has another number of levels, or a larger codebook.
    """
    n_levels = ledger.codes.shape[1]
    version_folder.check_sizes(quantizer.codebook_sizes, ledger.sizes[:n_levels])
    counted = match.known & ~match.changed
    numbers = match_levels(
        codes[counted], ledger.codes[match.rows[counted]], quantizer.codebook_sizes
    )
    return rename(quantizer, numbers)


def match_levels(codes: np.ndarray, published: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Number the codewords of each level: int64 (K_l,), the new number of each codeword.

    Args:
        codes: int (n, L), of items that were published.
        published: int (n, L), their published codes.
        sizes: K_l.
    """
    agree = np.ones(len(codes), dtype=bool)
    numbers = []
    for level, size in enumerate(sizes):
        now, before = codes[:, level], published[:, level]
        numbers.append(match_codewords(now[agree], before[agree], size))
        agree &= numbers[-1][now] == before
        logger.info(
            "level %d: %d of %d items keep their codes up to here", level + 1, agree.sum(), len(now)
        )
    return numbers


def match_codewords(now: np.ndarray, before: np.ndarray, size: int) -> np.ndarray:
    """Number K codewords so that the most of n items keep their code: int64 (K,), a permutation.

    Among numberings with which equally many items keep it, more codewords keep their number.
    Memory: about 100 bytes per pair of codes that occurs, and per codeword.

    Args:
        now: int (n,), new codes.
        before: int (n,), published codes, below K as well.
        size: K.
    """
    # Jobs that align nothing do without SciPy.
    from scipy import sparse
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    # Shared items of each pair of codewords. All own numbers together count less than one item.
    own = np.arange(size)
    counts = np.r_[np.full(len(now), size + 1.0), np.ones(size)]
    pairs = (np.r_[now, own], np.r_[before, own])
    shared = sparse.coo_matrix((counts, pairs), shape=(size, size)).tocsr()  # (K, K), adds up
    shared.data *= 4 * size + 1  # so that the number of pairs never decides

    # A full matching of this graph is any matching of the pairs: a codeword or a number may also
    # be matched with a stand-in, (2 K, 2 K).
    alone = sparse.eye_array(size, format="csr")
    graph = sparse.block_array([[shared, alone], [alone, shared.T]], format="csr")
    rows, columns = min_weight_full_bipartite_matching(graph, maximize=True)
    is_pair = (rows < size) & (columns < size)
    numbers = np.full(size, -1, dtype=np.int64)
    numbers[rows[is_pair]] = columns[is_pair]

    # Codewords that share no item take the numbers that are free, in order.
    free = np.setdiff1d(own, numbers)
    numbers[numbers < 0] = free
    return numbers


def rename(quantizer: Quantizer, numbers: list[np.ndarray]) -> Quantizer:
    """Give each codeword, and its price, another number; ``numbers`` as of :func:`match_levels`."""
    order = [np.argsort(level) for level in numbers]
    codebooks = [book[rows] for book, rows in zip(quantizer.codebooks, order, strict=True)]
    prices = tuple(
        price[rows] for price, rows in zip(quantizer.prices, order, strict=bool(quantizer.prices))
    )
    return quantizer._replace(codebooks=codebooks, prices=prices)


def agreeing(ledger: Ledger, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Whether the codes of items are those of the version, or their published SID: bool (n,).

    Args:
        ledger: of the published version.
        rows: int (n,), of the items in the ledger.
        codes: int32 (n, L).
    """
    same = (ledger.codes[rows] == codes).all(axis=1)
    result: np.ndarray = same | (ledger.sids[rows, : codes.shape[1]] == codes).all(axis=1)
    return result


def staying(ledger: Ledger, rows: np.ndarray, codes: np.ndarray) -> Figures:
    """Count published items whose SID stays with these codes, and agreement by length of prefix.

    Args:
        ledger: of the published version.
        rows: int (n,), of the items in the ledger.
        codes: int32 (n, L).
    """
    equal = np.logical_and.accumulate(ledger.codes[rows] == codes, axis=1)
    same = agreeing(ledger, rows, codes)
    return {
        "sids": int(same.sum()),
        "share": float(same.mean()) if len(rows) else None,
        "codes_by_prefix": [float(one) for one in equal.mean(axis=0)] if len(rows) else None,
    }
