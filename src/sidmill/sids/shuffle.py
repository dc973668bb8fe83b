"""Codes dealt to the items at random: what a recommender reaches where SIDs say nothing.

Codebooks, codes and the number of items of every code stay as they are. Only which item has which
codes is drawn anew, so all that differs from the original is the meaning.
"""

import numpy as np

from sidmill.formats.code_files import Codes


def shuffle(coded: Codes, seed: int) -> Codes:
    """Permute the codes of the items: every item gets those of another one, or its own by chance.

    Args:
        coded: ids and codes int32 (N, L).
        seed: of the permutation.
    """
    order = np.random.default_rng(seed).permutation(len(coded.codes))
    return coded._replace(codes=coded.codes[order])
