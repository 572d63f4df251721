"""Few combinations of options that still cover every pair of them."""

import itertools
from collections.abc import Sequence

import pytest


def covering(options: dict[str, list]) -> list[dict]:
    """Combinations such that any two values of any two options occur together. Greedy, deterministic."""
    names = sorted(options, key=lambda name: (-len(options[name]), name))
    missing = {
        frozenset(((a, x), (b, y)))
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.product(options[a], options[b])
    }
    rows = []
    while missing:
        first = min(missing, key=lambda pair: sorted(map(repr, pair)))
        row = dict(first)
        for name in names:
            if name not in row:
                news = {
                    value: sum(frozenset(((name, value), item)) in missing for item in row.items())
                    for value in options[name]
                }
                row[name] = max(options[name], key=news.get)
        missing -= {frozenset(items) for items in itertools.combinations(row.items(), 2)}
        rows.append(row)
    return rows


def rows_of(options: dict[str, list], *further: dict) -> list:
    """Parameters of a test: the covering of all pairs, and the further rows.

    Few rows in which each value of each option occurs, and the further rows, run by default; all others are slow.
    """
    rows = covering(options)
    chosen = each_value(rows, further)
    default = [*chosen, *(row for row in further if row not in chosen)]
    slow = [pytest.param(row, marks=pytest.mark.slow, id=name_of(row)) for row in rows if row not in default]
    return [pytest.param(row, id=name_of(row)) for row in default] + slow


def each_value(rows: Sequence[dict], further: Sequence[dict] = ()) -> list[dict]:
    """Few of the rows in which, with the further rows, each value of each option occurs."""
    missing = {item for row in rows for item in row.items()} - {item for row in further for item in row.items()}
    chosen = []
    while missing:
        row = max(rows, key=lambda row: len(missing & row.items()))
        chosen.append(row)
        missing -= row.items()
    return chosen


def name_of(row: dict) -> str:
    """A test id."""
    return "-".join(f"{key}={value}" for key, value in sorted(row.items()))
