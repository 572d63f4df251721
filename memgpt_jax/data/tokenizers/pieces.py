"""Texts in pieces, re-split at places where a tokenizer can encode the parts separately."""

from collections.abc import Callable, Iterable, Iterator


def cut_anew(pieces: Iterable[str], find: Callable[[str], int]) -> Iterator[str]:
    """The text in other pieces. Args: find: returns the last index at which a piece may be split; 0: none."""
    begun: list[str] = []
    for piece in pieces:
        cut = find(piece)
        if cut:
            yield "".join((*begun, piece[:cut]))
            begun = []
        if cut < len(piece):
            begun.append(piece[cut:])
    if begun:
        yield "".join(begun)


def whole_lines(pieces: Iterable[str]) -> Iterator[str]:
    """A text in pieces, split after newlines only."""
    return cut_anew(pieces, lambda piece: piece.rfind("\n") + 1)


def last_word(piece: str) -> int:
    """The index of the start of the last line of a piece; in one line, of the spaces before its last word."""
    return piece.rfind("\n") + 1 or len(piece[: piece.rfind(" ") + 1].rstrip(" "))
