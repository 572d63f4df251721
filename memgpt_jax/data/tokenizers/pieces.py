"""Re-splitting of texts in pieces, at places where a tokenizer can encode the parts separately."""

from collections.abc import Callable, Iterable, Iterator


def resplit(pieces: Iterable[str], find: Callable[[str], int]) -> Iterator[str]:
    """The same text in other pieces.

    Args:
        pieces: the text.
        find: returns the last index at which a piece may be split; 0: none.
    """
    parts: list[str] = []
    for piece in pieces:
        cut = find(piece)
        if cut:
            yield "".join((*parts, piece[:cut]))
            parts = []
        if cut < len(piece):
            parts.append(piece[cut:])
    if parts:
        yield "".join(parts)


def whole_lines(pieces: Iterable[str]) -> Iterator[str]:
    """A text in pieces, split after newlines only."""
    return resplit(pieces, lambda piece: piece.rfind("\n") + 1)


def last_word(piece: str) -> int:
    """The start of the last line of a piece; if it has one line, the start of the spaces before its last word."""
    return piece.rfind("\n") + 1 or len(piece[: piece.rfind(" ") + 1].rstrip(" "))
