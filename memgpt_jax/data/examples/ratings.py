"""Tables of ratings, one in each record, and the histories of their users."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.data.examples.records import read_records
from memgpt_jax.files.paths import shown

START, RARE, FIRST_ITEM = range(3)
"""Ids: the first token of a history, all items with few ratings, and the item with the lowest id."""


class Rating(NamedTuple):
    """One record."""

    user: str
    item: str
    value: float
    time: float


class History(NamedTuple):
    """The items of one user, in order of time."""

    user: str
    items: np.ndarray
    """Ids [n] int32."""
    ratings: np.ndarray
    """[n] float32."""
    asked: np.ndarray
    """Indices of the items that the split asks for, ascending."""


def read_ratings(path: Path, user: str, item: str, value: str, time: str) -> list[Rating]:
    """The ratings of a file, ordered by user, time and item.

    Args:
        path: .csv, .tsv, .jsonl or .parquet.
        user, item, value, time: names of the columns.

    Raises:
        ValueError: the file cannot be read or is empty, a value is missing, or a user rates an item twice.
    """
    ratings, places = [], {}
    for record in read_records(path):
        rating = Rating(record.label(user), record.label(item), record.number(value), record.number(time))
        pair = rating.user, rating.item
        check(pair not in places, f"{record.where}: the user rates the item a second time, after {places.get(pair)}")
        places[pair] = record.where
        ratings.append(rating)
    check(bool(ratings), f"{shown(path)} has no records")
    users, items = _order(rating.user for rating in ratings), _order(rating.item for rating in ratings)
    return sorted(ratings, key=lambda rating: (users[rating.user], rating.time, items[rating.item]))


def _order(names: Iterable[str]) -> dict[str, int]:
    """The place of each name: by value if all are whole numbers, else alphabetical."""
    distinct = set(names)
    key = int if all(name.isdecimal() for name in distinct) else str
    return {name: place for place, name in enumerate(sorted(distinct, key=lambda name: (key(name), name)))}


def item_ids(ratings: Sequence[Rating], min_ratings: int) -> dict[str, int]:
    """The token id of each item with at least `min_ratings` ratings."""
    counts = Counter(rating.item for rating in ratings)
    kept = _order(item for item, count in counts.items() if count >= min_ratings)
    return {item: FIRST_ITEM + place for item, place in kept.items()}


def read_items(path: Path, item: str, texts: Sequence[str], number: str | None) -> dict[str, tuple[str, float]]:
    """The text and the number of each item of a file.

    Args:
        path: .csv, .tsv, .jsonl or .parquet, an item in each record.
        item: name of the column that names the item.
        texts: names of the columns with a text, or a list of texts.
        number: name of a column; its last whole number counts, NaN where it has none. None: all are NaN.

    Raises:
        ValueError: the file cannot be read, lacks a column, or holds an item twice.
    """
    items = {}
    for record in read_records(path):
        name = record.label(item)
        check(name not in items, f"{record.where}: a second record of the item {name!r}")
        found = re.findall(r"\d+", str(record.get(number))) if number else []
        items[name] = record.joined(texts), float(found[-1]) if found else math.nan
    return items


def histories(
    ratings: Sequence[Rating],
    ids: Mapping[str, int],
    split: str,
    *,
    with_rare: bool,
    held_out: float,
    valid_every: int,
) -> list[History]:
    """The histories of a split, up to the last item that it asks for; users of whom it asks nothing are left out.

    Args:
        ratings: in the order of `read_ratings`.
        ids: of the items.
        split: `train`, `valid` or `test`.
        with_rare: whether items without an id are read, as RARE; otherwise they are left out.
        held_out, valid_every: as in `RatingsConfig`.
    """
    by_user = defaultdict(list)
    for rating in ratings:
        if with_rare or rating.item in ids:
            by_user[rating.user].append(rating)
    found, number = [], 0
    for user, rated in by_user.items():
        held = int(held_out) if held_out >= 1 else max(1, int(len(rated) * held_out + 1e-9))
        if len(rated) < 2 * held:
            continue
        number += 1
        is_valid = number % valid_every == 0 and len(rated) >= 3 * held
        end = len(rated) - held
        bounds = {
            "train": (0, end - held * is_valid),
            "valid": (end - held, end) if is_valid else (0, 0),
            "test": (end, len(rated)),
        }
        first, last = bounds[split]
        if last:
            items = np.array([ids.get(rating.item, RARE) for rating in rated[:last]], np.int32)
            values = np.array([rating.value for rating in rated[:last]], np.float32)
            found.append(History(user, items, values, np.arange(first, last)))
    return found
