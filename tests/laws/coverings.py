"""Few combinations of options that still cover every pair of them."""

import itertools


def covering(options: dict[str, list]) -> list[dict]:
    """Combinations such that any two values of any two options occur together. Greedy, deterministic."""
    names = sorted(options, key=lambda name: (-len(options[name]), name))
    pair = lambda one, other: frozenset((one, other))  # noqa: E731
    missing = {
        pair((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.product(options[a], options[b])
    }
    rows = []
    while missing:
        first = min(missing, key=lambda p: sorted(map(repr, p)))
        row = dict(first)
        for name in names:
            if name not in row:
                news = {v: sum(pair((name, v), item) in missing for item in row.items()) for v in options[name]}
                row[name] = max(options[name], key=news.get)
        missing -= {pair(*items) for items in itertools.combinations(row.items(), 2)}
        rows.append(row)
    return rows


def name_of(row: dict) -> str:
    """A test id."""
    return "-".join(f"{key}={value}" for key, value in sorted(row.items()))
