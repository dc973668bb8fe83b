"""Weights of words in texts: term frequency times inverse document frequency, rows of length 1.

Letters: n texts, V words.

The weights are those of scikit-learn's ``TfidfVectorizer`` with ``sublinear_tf``, to the last bit
(a test compares them): the order of the sums and the types of each step are the same. The import of
scikit-learn takes four times as long as that of ``scipy.sparse``.

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


class Fitted(NamedTuple):
    """The words of a sample of texts.

    Attributes:
        vocabulary: V words, sorted.
        idf: float32 (V,), inverse document frequency of each.
        weights: float32 (n, V), sparse: what each word weighs in each text.
    """

    vocabulary: list[str]
    idf: np.ndarray
    weights: csr_matrix


def fit(texts: Iterable[str], max_words: int) -> Fitted:
    """Count the words of texts and weigh them.

    Args:
        texts: n texts. Memory: about 30 bytes per text and different word of it.
        max_words: the most frequent words are kept, by the number of times they occur.

    Returns:
        No words if the texts have none.
    """
    # A word gets the next free number at its first occurrence.
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    counts = _counts((Counter(words(text)) for text in texts), numbers)
    if not numbers:
        return Fitted([], np.empty(0, np.float32), counts)

    # Columns in the order of the words. Entries of a row keep the order of first occurrences:
    # sums over a row are taken in it.
    vocabulary = sorted(numbers)
    column_of = np.empty(len(vocabulary), counts.indices.dtype)
    column_of[[numbers[word] for word in vocabulary]] = np.arange(len(vocabulary))
    counts.indices = column_of.take(counts.indices)

    # The most frequent words.
    if len(vocabulary) > max_words:
        frequencies = np.asarray(counts.sum(axis=0)).ravel()
        kept = np.sort((-frequencies).argsort()[:max_words])
        vocabulary = [vocabulary[column] for column in kept]
        counts = counts[:, kept]

    # In how many texts each word is, as if one more text held all words.
    n_texts = np.bincount(counts.indices, minlength=len(vocabulary)).astype(np.float32) + 1
    idf = np.log(np.float32(counts.shape[0] + 1) / n_texts) + 1
    return Fitted(vocabulary, idf, _weigh(counts, idf))


def transform(texts: Iterable[str], columns: Mapping[str, int], idf: np.ndarray) -> csr_matrix:
    """Weigh the words of texts that a vocabulary has.

    Args:
        texts: n texts.
        columns: the column of each word of the vocabulary.
        idf: float32 (V,), of :func:`fit`.

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
