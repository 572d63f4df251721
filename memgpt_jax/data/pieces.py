"""Texts that come in pieces, cut anew where a tokenizer can cut them."""

from collections.abc import Callable, Iterable, Iterator


def cut_anew(pieces: Iterable[str], find: Callable[[str], int]) -> Iterator[str]:
    """A text in other pieces: of each given one, `find` says where the last cut may be; 0: nowhere."""
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
    """A text in pieces, cut after newlines only."""
    return cut_anew(pieces, lambda piece: piece.rfind("\n") + 1)


def last_word(piece: str) -> int:
    """Where the last line of a piece begins, or else the spaces before its last word."""
    return piece.rfind("\n") + 1 or len(piece[: piece.rfind(" ") + 1].rstrip(" "))
