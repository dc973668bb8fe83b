"""k-core: the largest part of a log in which every user and every item has enough interactions.

Source: S. B. Seidman, Network structure and minimum degree, Social Networks 5 (1983), for graphs of
users and items. The result does not depend on the order in which users and items are removed.

Letters: U users, I items, E interactions.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

BLOCK_PAIRS = 1 << 22


class Core(NamedTuple):
    """What remains.

    Attributes:
        users: bool (U,).
        items: bool (I,).
        user_counts: int64 (U,), interactions of each user that remain.
        item_counts: int64 (I,), interactions of each item that remain.
        rounds: passes over the log until nothing was removed.
    """

    users: np.ndarray
    items: np.ndarray
    user_counts: np.ndarray
    item_counts: np.ndarray
    rounds: int


def find(pairs: Path, n_users: int, n_items: int, min_user: int, min_item: int) -> Core:
    """Find the k-core of a log. Memory: 9 bytes per user and per item, and a block of the log.

    Args:
        pairs: file of int32 (E, 2), user and item of each interaction.
        n_users: U.
        n_items: I.
        min_user: interactions that each user has at least.
        min_item: interactions that each item has at least.
    """
    users, items = np.ones(n_users, dtype=bool), np.ones(n_items, dtype=bool)
    rounds = 0
    while True:
        rounds += 1
        user_counts = np.zeros(n_users, dtype=np.int64)
        item_counts = np.zeros(n_items, dtype=np.int64)
        for block in _blocks(pairs):
            kept = block[users[block[:, 0]] & items[block[:, 1]]]
            user_counts += np.bincount(kept[:, 0], minlength=n_users)
            item_counts += np.bincount(kept[:, 1], minlength=n_items)

        # A user without interactions is no user, whatever the limits.
        new_users = user_counts >= max(min_user, 1)
        new_items = item_counts >= max(min_item, 1)
        is_done = (new_users == users).all() and (new_items == items).all()
        users, items = new_users, new_items
        if is_done:
            return Core(users, items, user_counts, item_counts, rounds)


def _blocks(pairs: Path) -> Iterator[np.ndarray]:
    with pairs.open("rb") as file:
        while (block := np.fromfile(file, dtype=np.int32, count=2 * BLOCK_PAIRS)).size:
            yield block.reshape(-1, 2)
