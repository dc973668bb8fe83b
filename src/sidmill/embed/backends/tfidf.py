"""Weights of words in texts: term frequency times inverse document frequency, rows of length 1.

Letters: n texts, V words.

:func:`fit` finds the words and frequencies that lsa.safetensors stores, :func:`transform` applies
them to texts. The weights are those of scikit-learn's ``TfidfVectorizer`` with ``sublinear_tf`` to
the last bit (a test compares them): the order of the sums and the types of each step are the same.
Where words are left out, scikit-learn may keep others of equal counts: those depend on the CPU.
The import of scikit-learn takes longer than the work of these jobs.

Source: Salton and Buckley, Term-weighting approaches in automatic text retrieval, 1988,
https://doi.org/10.1016/0306-4573(88)90021-0, with the smoothed frequencies of
https://scikit-learn.org/stable/modules/feature_extraction.html#tfidf-term-weighting
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from sidmill.core.words import words

INT32_MAX = 2**31 - 1


class Fit(NamedTuple):
    """What :func:`fit` finds in texts.

    Attributes:
        vocabulary: V words, sorted.
        idf: float32 (V,), inverse document frequency of each word.
        weights: float32 (n, V), sparse, the weights of the texts. The entries of a row are in the
            order in which the texts mention their words first.
    """

    vocabulary: list[str]
    idf: np.ndarray
    weights: csr_matrix


def fit(texts: Iterable[str], most_words: int) -> Fit:
    """Count the words of texts, and weigh them.

    Memory: the distinct words, and about 16 bytes per word and text that has it.

    Args:
        texts: n texts.
        most_words: V is at most this number; the most frequent words are kept, of equally
            frequent ones the first in the order of the words.
    """
    # Columns in the order of first use, then renumbered in the order of the words.
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    counts = _counts((Counter(words(text)) for text in texts), numbers)
    vocabulary = sorted(numbers)
    column_of = np.empty(len(vocabulary), dtype=counts.indices.dtype)
    column_of[[numbers[word] for word in vocabulary]] = np.arange(len(vocabulary))
    counts.indices = column_of[counts.indices]

    # The most frequent words. Which of equal counts an unstable sort keeps depends on the CPU.
    if len(vocabulary) > most_words:
        occurrences = np.asarray(counts.sum(axis=0)).ravel()
        kept = np.sort(np.argsort(-occurrences, kind="stable")[:most_words])
        vocabulary = [vocabulary[column] for column in kept]
        counts = counts[:, kept]

    # Smoothed inverse document frequencies, in float32.
    n_texts, n_words = counts.shape
    n_with_word = np.bincount(counts.indices, minlength=n_words).astype(np.float32)
    idf = np.log(np.float32(n_texts + 1) / (n_with_word + 1)) + 1
    return Fit(vocabulary, idf, _weigh(counts, idf))


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
