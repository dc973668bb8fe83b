"""The k best rows of every query, collected in any order by several threads.

Letters: N rows of the corpus, Q queries, k neighbours, c candidates of one call.

A row is stored as one integer key: the inverted score in the upper 32 bits, the rank of the id in
the lower 32. The k lowest keys are the result, ties included, whatever the order of the calls.
"""

from threading import Lock

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats.neighbour_lists import Neighbours

CAPACITY = 3  # keys stored per query, in units of k
EMPTY = np.uint64(2**64 - 1)
LOWER = np.uint64(2**32 - 1)
UPPER = np.uint64(32)  # bits to shift
POSITIVE = np.int32(2**31 - 1)


class Best:
    """The k best rows of every query so far. Memory: 24 k bytes per query, 8 bytes per row."""

    def __init__(self, n_queries: int, top_k: int, ranks: np.ndarray) -> None:
        """Start with k empty rows: row -1, score -inf.

        Args:
            n_queries: Q.
            top_k: k.
            ranks: int64 (N,), 0 to N - 1 in the order that decides ties.
        """
        if len(ranks) > LOWER:
            raise SidmillError(
                f"{len(ranks)} passages, at most {LOWER} can be searched: split the corpus"
            )
        self.ranks = ranks
        self.top_k = top_k
        self.worst = np.full(n_queries, -np.inf, dtype=np.float32)  # k-th best at the last cut
        self._keys = np.full((n_queries, CAPACITY * top_k), EMPTY, dtype=np.uint64)
        self._counts = np.zeros(n_queries, dtype=np.int64)
        self._n_new = 0
        self._lock = Lock()

    def add(self, query: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
        """Add scored rows, no row twice for a query.

        Args:
            query: int64 (c,).
            rows: int64 (c,).
            scores: float32 (c,), finite.
        """
        order = np.argsort(query, kind="stable")
        query, keys = query[order], _pack(scores[order], self.ranks[rows[order]])
        with self._lock:
            while len(query):
                # The next free column of each key's query.
                column = np.arange(len(query)) - np.searchsorted(query, query)
                column += self._counts[query]
                fits = column < self._keys.shape[1]

                # What does not fit waits for a cut, which frees two thirds of the columns.
                self._keys[query[fits], column[fits]] = keys[fits]
                self._counts += np.bincount(query[fits], minlength=len(self._counts))
                self._n_new += int(np.count_nonzero(fits))
                if not fits.all() or self._n_new > len(self.worst) * self.top_k // 4:
                    self._cut()
                query, keys = query[~fits], keys[~fits]

    def result(self) -> Neighbours:
        """Return the k best, best first; row -1 with score -inf where there are fewer."""
        self._cut()
        keys = np.sort(self._keys[:, : self.top_k], axis=1)
        is_row = keys != EMPTY
        row_of = np.empty(max(len(self.ranks), 1), dtype=np.int64)
        row_of[self.ranks] = np.arange(len(self.ranks))
        rows = row_of[np.where(is_row, keys & LOWER, 0).astype(np.int64)]
        return Neighbours(
            np.where(is_row, rows, -1), np.where(is_row, _score(keys), np.float32(-np.inf))
        )

    def _cut(self) -> None:
        """Keep the k best of each query."""
        self._keys.partition(self.top_k - 1, axis=1)
        self._keys[:, self.top_k :] = EMPTY
        np.minimum(self._counts, self.top_k, out=self._counts)
        last = _score(self._keys[:, self.top_k - 1])
        self.worst = np.where(self._counts == self.top_k, last, np.float32(-np.inf))
        self._n_new = 0


def _pack(scores: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """float32 (c,), int64 (c,) -> uint64 (c,): falls with the score, then rises with the rank."""
    bits = (scores + np.float32(0)).view(np.int32)  # the sum makes -0 and 0 one
    falling = np.where(bits < 0, bits, bits ^ POSITIVE).view(np.uint32)
    return falling.astype(np.uint64) << UPPER | ranks.astype(np.uint64)


def _score(keys: np.ndarray) -> np.ndarray:
    """The scores in keys of :func:`_pack`, float32 of the same shape."""
    falling = (keys >> UPPER).astype(np.uint32).view(np.int32)
    return np.where(falling < 0, falling, falling ^ POSITIVE).view(np.float32)
