"""Sphinx extension: docstrings are plain text with `code` and indented equations; this makes reStructuredText of them.

- An indented block after an empty line becomes a literal block, unless it belongs to a section such as `Args:`.
- `code` becomes an inline literal; marks of reStructuredText in other text are escaped.
- Lines `name: text` with an indented continuation become a list.
"""

import re

SECTION = re.compile(r"(Args|Arguments|Attributes|Examples?|Raises|Returns|Yields):$")
ITEM = re.compile(r"([\w*]+(?:, [\w*]+)*): ")


def indent_of(line: str) -> int:
    """Number of leading spaces."""
    return len(line) - len(line.lstrip())


def blocks_of(lines: list[str]) -> list[list[str]]:
    """The lines between empty lines; a list is a block of its own."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        block, item = blocks[-1], line.lstrip().startswith("- ")
        in_list = bool(block) and block[0].lstrip().startswith("- ")
        if block and (not line.strip() or (item and not in_list and indent_of(line) == indent_of(block[0]))):
            block = []
            blocks.append(block)
        if line.strip():
            block.append(line.rstrip())
    return [block for block in blocks if block]


def as_text(block: list[str]) -> list[str]:
    """A paragraph, list or section with inline literals and escaped marks."""

    def literal(match: re.Match) -> str:
        joint = "\\ " if match["after"].isalnum() else ""
        return f"``{match['code']}``{joint}{match['after']}"

    parts = re.split(r"(``[^`]+``|`[^`]+`)", "\n".join(block))
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"(?<=\w)_(?!\w)|[*|\\]", r"\\\g<0>", parts[index])
    text = re.sub(r"(?<!`)`(?P<code>[^`]+)`(?P<after>[^`]|$)", literal, "".join(parts))
    return text.split("\n")


def as_list(block: list[str]) -> list[str]:
    """Lines `name: text` with indented continuations as a list; any other block unchanged."""
    margin = indent_of(block[0])
    titles = [ITEM.match(line.strip()) if indent_of(line) == margin else None for line in block]
    if not any(titles) or all(indent_of(line) == margin for line in block):
        return block
    result: list[str] = []
    for line, title in zip(block, titles, strict=True):
        if title:
            result += ["", f"{' ' * margin}- `{title[1]}`: {line.strip()[title.end() :]}"]
        elif indent_of(line) > margin and result:
            result[-1] += f" {line.strip()}"
        else:
            result.append(line)
    return result


def restructured(lines: list[str]) -> list[str]:
    """The docstring in reStructuredText."""
    result: list[str] = []
    margin, in_section = 0, False
    for number, block in enumerate(blocks_of(lines)):
        if number and indent_of(block[0]) > margin and not in_section:
            doctest = block[0].lstrip().startswith(">>>")
            result += [*([] if doctest else [f"{' ' * margin}::", ""]), *block, ""]
            continue
        margin, in_section = indent_of(block[0]), any(SECTION.match(line.strip()) for line in block)
        result += [*as_text(block if in_section else as_list(block)), ""]
    return result


def process(app, what, name, obj, options, lines):
    """Event handler; it runs before napoleon."""
    lines[:] = restructured(lines)


def setup(app):
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True}
