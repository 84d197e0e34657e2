"""MovieLens: ratings of films (Harper & Konstan 2015, doi 10.1145/2827872). Was a film rated 4 or higher?

The rating itself is the outcome and is left out. The only feature made of ratings is `liked_before`: the films that the user had liked at
strictly earlier seconds, oldest first. Times are UTC, to the second. Users rate many films within minutes, long after they saw them, so
`hour` and `weekday` are those of the rating, in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diet_ray.logs.readers.clock import hour_and_weekday
from diet_ray.logs.readers.history import Histories
from diet_ray.logs.readers.lookup import Lookup
from diet_ray.logs.readers.published import locate, read_rows, read_table, write_rows

LIKED = 4.0
"""The least rating that counts as liked."""

ZONE = "UTC"
"""The zone of the stamps; where the users live is not published."""

GENRES = [
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
"""The flags at the end of a line of `u.item`, in order, after one for `unknown`."""

_RATING = {"user_id": pa.int64(), "movie_id": pa.int64(), "rating": pa.float64(), "time": pa.int64()}
_USER_100K = {"user_id": pa.int64(), "age": pa.int64(), "gender": pa.string(), "occupation": pa.string()}
_USER_1M = {"user_id": pa.int64(), "gender": pa.string(), "age": pa.int64(), "occupation": pa.string()}
_MOVIE = {"movie_id": pa.int64(), "title": pa.string(), "genres": pa.string()}


def prepare_100k(source: Path | None, out: Path) -> list[Path]:
    """Write `out/movielens.parquet` from `u.data`, `u.user` and `u.item` of the folder `source`.

    Raises:
        ConfigError: no source given.
        BadInputError: a file is missing or malformed.
    """
    ratings = locate(source, ["u.data"], "movielens-100k")
    users, movies = ratings.with_name("u.user"), ratings.with_name("u.item")
    people = _people(users, _USER_100K, delimiter="|")
    names = ["movie_id", "title", "released", "on_video", "url", "unknown", *GENRES]
    types = {"movie_id": pa.int64(), "title": pa.string(), **dict.fromkeys(GENRES, pa.int8())}
    table = read_table(movies, types, names=names, delimiter="|", encoding="latin-1")
    flags = np.stack([pc.fill_null(table[name], 0).to_numpy() for name in GENRES], axis=1).astype(bool)
    genres = ["|".join(np.array(GENRES)[row]) or None for row in flags]
    films = Lookup(_films(table, pa.array(genres, pa.string())), "movie_id", movies)
    rows = _ratings(ratings, delimiter="\t")
    return [write_rows(out / "movielens.parquet", _joined(rows, [people, films]))]


def prepare_1m(source: Path | None, out: Path) -> list[Path]:
    """Write `out/movielens.parquet` from `ratings.dat`, `users.dat` and `movies.dat` of the folder `source`.

    Raises:
        ConfigError: no source given.
        BadInputError: a file is missing or malformed.
    """
    ratings = locate(source, ["ratings.dat"], "movielens-1m")
    users, movies = ratings.with_name("users.dat"), ratings.with_name("movies.dat")
    people = _people(users, _USER_1M, delimiter="::")
    table = read_table(movies, _MOVIE, names=list(_MOVIE), delimiter="::", encoding="latin-1")
    films = Lookup(_films(table, table["genres"]), "movie_id", movies)
    rows = _ratings(ratings, delimiter="::")
    return [write_rows(out / "movielens.parquet", _joined(rows, [people, films]))]


def prepare_csv(source: Path | None, out: Path) -> list[Path]:
    """Write `out/movielens.parquet` from `ratings.csv` and `movies.csv` of the folder `source`: 20M, 25M, 32M and the latest ones.

    Raises:
        ConfigError: no source given.
        BadInputError: a file is missing or malformed.
    """
    ratings = locate(source, ["ratings.csv"], "movielens")
    movies = ratings.with_name("movies.csv")
    types = {"movieId": pa.int64(), "title": pa.string(), "genres": pa.string()}
    table = read_table(movies, types, missing=["(no genres listed)"]).rename_columns(list(_MOVIE))
    films = Lookup(_films(table, table["genres"]), "movie_id", movies)
    published = dict(zip(("userId", "movieId", "rating", "timestamp"), _RATING.values(), strict=True))

    def rows() -> Iterator[pa.Table]:
        return (
            batch.rename_columns(list(_RATING)) for batch in read_rows(ratings, published, required=list(published))
        )

    return [write_rows(out / "movielens.parquet", _joined(rows, [films]))]


def _people(path: Path, types: dict[str, pa.DataType], *, delimiter: str) -> Lookup:
    """The published features of the users; `types` has the columns in the file's order, without the zip code, which comes last."""
    zipped = {**types, "zip_code": pa.string()}
    return Lookup(read_table(path, zipped, names=list(zipped), delimiter=delimiter), "user_id", path)


def _ratings(path: Path, *, delimiter: str) -> Callable[[], Iterator[pa.Table]]:
    """Reads the ratings of a file without a header, from the start at each call."""
    return partial(read_rows, path, _RATING, names=list(_RATING), delimiter=delimiter, required=list(_RATING))


def _films(table: pa.Table, genres: pa.Array) -> pa.Table:
    year = pc.struct_field(pc.extract_regex(table["title"], r"\((?P<year>[0-9]{4})\)\s*$"), "year")
    return pa.table({"movie_id": table["movie_id"], "year": year, "genres": genres})


def _joined(batches: Callable[[], Iterator[pa.Table]], features: list[Lookup]) -> Iterator[pa.Table]:
    """The rows with their features. `batches()` reads them and is called twice: a user's history may be anywhere in the file."""
    histories = Histories(_liked(rows) for rows in batches())
    for rows in batches():
        columns = {"time": rows["time"], "user_id": rows["user_id"], "movie_id": rows["movie_id"]}
        for lookup in features:
            columns |= lookup(rows["user_id" if lookup.key == "user_id" else "movie_id"].to_numpy())
        columns |= {
            name: pa.array(values) for name, values in hour_and_weekday(rows["time"].to_numpy() * 1000, ZONE).items()
        }
        columns["liked_before"] = histories.before(rows["user_id"].to_numpy(), rows["time"].to_numpy())
        yield pa.table({**columns, "liked": pc.greater_equal(rows["rating"], LIKED)})


def _liked(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    liked = rows.filter(pc.greater_equal(rows["rating"], LIKED))
    return liked["user_id"].to_numpy(), liked["time"].to_numpy(), liked["movie_id"].to_numpy()
