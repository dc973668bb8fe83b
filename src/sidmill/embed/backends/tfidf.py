"""Weights of words in texts: term frequency times inverse document frequency, rows of length 1.

Letters: n texts, V words.

This is how lsa.safetensors is read: its words and frequencies, as scikit-learn's
``TfidfVectorizer`` fitted them, applied to texts. The weights are those of that class with
``sublinear_tf`` to the last bit (a test compares them): the order of the sums and the types of each
step are the same. Jobs that embed a shard so need no scikit-learn.

Source: Salton and Buckley, Term-weighting approaches in automatic text retrieval, 1988,
https://doi.org/10.1016/0306-4573(88)90021-0, with the smoothed frequencies of
https://scikit-learn.org/stable/modules/feature_extraction.html#tfidf-term-weighting
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from scipy.sparse import csr_matrix

from sidmill.core.words import words

INT32_MAX = 2**31 - 1


def transform(texts: Iterable[str], columns: Mapping[str, int], idf: np.ndarray) -> csr_matrix:
    """Weigh the words of texts that a vocabulary has.

    Args:
        texts: n texts.
        columns: the column of each word of the vocabulary.
        idf: float32 (V,), inverse document frequency of each word.

    Returns:
        float32 (n, V), sparse, columns in ascending order; no entry for a text without a word of
        the vocabulary.
    """
    counters = (
        {word: count for word, count in Counter(words(text)).items() if word in columns}
        for text in texts
    )
    return _weigh(_counts(counters, columns), idf)


def _counts(counters: Iterable[Mapping[str, int]], numbers: Mapping[str, int]) -> csr_matrix:
    """How often each word occurs in each text: float32 (n, V), rows in ascending order."""
    columns, values, ends = array("i"), array("i"), array("q", [0])
    for counter in counters:
        columns.extend(map(numbers.__getitem__, counter))
        values.extend(counter.values())
        ends.append(len(columns))
    index_type = np.int32 if len(columns) <= INT32_MAX else np.int64
    result = csr_matrix(
        (
            np.frombuffer(values, np.intc).astype(np.float32),
            np.frombuffer(columns, np.intc).astype(index_type),
            np.frombuffer(ends, np.int64).astype(index_type),
        ),
        shape=(len(ends) - 1, len(numbers)),
    )
    result.sort_indices()
    return result


def _weigh(counts: csr_matrix, idf: np.ndarray) -> csr_matrix:
    """Turn counts into weights, in place: 1 + log of the count, times idf, each row of length 1."""
    weights = counts.data
    np.log(weights, out=weights)
    weights += 1
    weights *= idf[counts.indices]

    # Sums of squares in float64, entry after entry; a row of zeros stays.
    n_entries = np.diff(counts.indptr)
    rows = np.repeat(np.arange(len(n_entries)), n_entries)
    squares = np.bincount(rows, weights=weights * weights, minlength=len(n_entries))
    lengths = np.sqrt(np.where(squares, squares, 1))
    counts.data = (weights / lengths[rows]).astype(np.float32)
    return counts
