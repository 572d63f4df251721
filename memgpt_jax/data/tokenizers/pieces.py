"""Texts in pieces, cut again at places where a tokenizer can encode the parts separately."""

from collections.abc import Callable, Iterable, Iterator


def cut_anew(pieces: Iterable[str], find: Callable[[str], int]) -> Iterator[str]:
    """The text in other pieces. `find` returns the last place where a given piece may be cut; 0: nowhere."""
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
    """The place where the last line of a piece begins; in one line, where the spaces before its last word begin."""
    return piece.rfind("\n") + 1 or len(piece[: piece.rfind(" ") + 1].rstrip(" "))
