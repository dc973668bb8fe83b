"""Files in the published form of MovieLens 1M, of any size: movies.dat, ratings.dat, users.dat.

What the real files have is here too: latin-1, ``::`` between fields, no header, articles behind
titles, the year in the title, ids with gaps, movies without ratings, users with 20 ratings or more,
rows by user and not by time, and many ratings of a user in one second. Users like some genres and
go from one movie to another of the same genre, so a recommender has something to learn.

python tests/movielens_files.py FOLDER [USERS MOVIES RATINGS]
"""

import sys
from pathlib import Path

import numpy as np

FULL = (6040, 3883, 1_000_209)  # as the README of ml-1m states them; movies as in movies.dat
GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller"),
    *("War", "Western"),
)
BEGINS = ("Bl", "Cr", "D", "Fl", "Gr", "H", "K", "L", "M", "N", "Pr", "R", "S", "T", "V", "W")
MIDDLES = ("ack", "ain", "ame", "and", "ark", "ère", "ell", "ight", "ine", "oss", "ound", "é", "u")
ENDS = ("", "er", "ing", "ly", "men", "s", "ton")
OCCUPATIONS, AGES = 21, (1, 18, 25, 35, 45, 50, 56)
LEAST = 20  # ratings of a user
FIRST_SECOND, SECONDS = 956_703_932, 89_750_658  # from the first to the last rating of ml-1m


def write(folder: Path, users: int, movies: int, ratings: int, *, seed: int = 0) -> Path:
    """Write the three files, and return their folder.

    Args:
        folder: is made where it is missing.
        users: lines of users.dat; ratings are at least 20 times as many.
        movies: lines of movies.dat; five in a hundred have no rating.
        ratings: lines of ratings.dat.
        seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.sort(rng.choice(np.arange(1, movies * 103 // 100 + 2), movies, replace=False))
    genre = rng.integers(0, len(GENRES), movies)  # the first genre of each movie
    _write_movies(folder / "movies.dat", ids, genre, rng)
    _write_ratings(folder / "ratings.dat", ids, genre, _lengths(users, ratings, rng), rng)
    people = zip(
        rng.choice(["F", "M"], users),
        rng.choice(AGES, users),
        rng.integers(0, OCCUPATIONS, users),
        rng.integers(10_000, 99_999, users),
        strict=True,
    )
    lines = [f"{user}::{'::'.join(map(str, person))}\n" for user, person in enumerate(people, 1)]
    (folder / "users.dat").write_text("".join(lines), encoding="latin-1")
    return folder


def _write_movies(path: Path, ids: np.ndarray, genre: np.ndarray, rng: np.random.Generator) -> None:
    words = np.array([f"{a}{b}{c}" for a in BEGINS for b in MIDDLES for c in ENDS])
    words = rng.permutation(words)
    own = np.array_split(words[len(words) // 3 :], len(GENRES))  # words that a genre alone uses
    lines = []
    for movie, first in zip(ids.tolist(), genre.tolist(), strict=True):
        title = " ".join(
            [*rng.choice(own[first], rng.integers(1, 4)), rng.choice(words[: len(words) // 3])]
        )
        article = rng.choice(["", ", The", ", A", " II"], p=[0.6, 0.25, 0.05, 0.1])
        second = rng.choice(GENRES, rng.integers(0, 3), replace=False)
        genres = "|".join(sorted({GENRES[first], *second.tolist()}))
        lines.append(f"{movie}::{title}{article} ({rng.integers(1919, 2001)})::{genres}\n")
    path.write_text("".join(lines), encoding="latin-1")


def _lengths(users: int, ratings: int, rng: np.random.Generator) -> np.ndarray:
    """How many movies each user rated, int64 (users,), which sum up to ``ratings``."""
    shares = rng.lognormal(0, 1, users)
    more = np.floor(shares / shares.sum() * (ratings - LEAST * users)).astype(np.int64)
    more[: ratings - LEAST * users - more.sum()] += 1
    return LEAST + more


def _write_ratings(
    path: Path, ids: np.ndarray, genre: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
) -> None:
    # Popular movies come first in `order`; the last ones have no rating.
    order = rng.permutation(len(ids))[: len(ids) * 95 // 100]
    popular = 1 / (np.arange(len(order)) + 30.0) ** 0.9
    with path.open("w", encoding="latin-1") as stream:
        for user, length in enumerate(np.minimum(lengths, len(order)).tolist(), 1):
            # What a user takes: popular movies, and more of three genres than of others.
            taste = np.full(len(GENRES), 0.15)
            taste[rng.choice(len(GENRES), 3, replace=False)] = 3
            keys = rng.exponential(size=len(order)) / (popular * taste[genre[order]])
            taken = order[np.argpartition(keys, length - 1)[:length]]

            # When: a few sessions, genre by genre, and often several movies in one second.
            sessions = np.sort(rng.integers(0, SECONDS, 1 + length // 80))
            session = np.sort(rng.integers(0, len(sessions), length))
            seconds = FIRST_SECOND + sessions[session] + np.cumsum(rng.integers(0, 20, length) // 9)
            liked = rng.permutation(len(GENRES))
            taken = taken[np.argsort(session * len(GENRES) + liked[genre[taken]], kind="stable")]

            # The rows of a user are in no order.
            stars = np.clip(np.rint(rng.normal(2.8 + taste[genre[taken]] / 2, 1)), 1, 5).astype(int)
            rows = zip(ids[taken].tolist(), stars.tolist(), seconds.tolist(), strict=True)
            lines = [f"{user}::{movie}::{star}::{time}\n" for movie, star, time in rows]
            stream.writelines([lines[row] for row in rng.permutation(length).tolist()])


if __name__ == "__main__":
    write(Path(sys.argv[1]), *(map(int, sys.argv[2:]) if sys.argv[2:] else FULL))
