"""Sphinx extension: `{fields} NAME` is a table of a configuration's fields, defaults and descriptions.

NAME is a path from `memgpt_jax`, such as `KVMemoryConfig` or `data.objectives.MaskedConfig`. The descriptions are the
strings below the fields in the source.
"""

import dataclasses
import importlib
from typing import Any

from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective


def resolve(name: str) -> type:
    """The class with this path.

    Raises:
        ExtensionError: there is none, or it is not a dataclass.
    """
    module, _, attribute = f"memgpt_jax.{name}".rpartition(".")
    found = getattr(importlib.import_module(module), attribute, None)
    if not dataclasses.is_dataclass(found):
        raise ExtensionError(f"memgpt_jax.{name} is not a dataclass, got {found!r}")
    return found


def descriptions(config: type) -> dict[str, str]:
    """The string below each field in the source, by field; a class overrides its bases."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if dataclasses.is_dataclass(base):
            documented = ModuleAnalyzer.for_module(base.__module__).find_attr_docs()
            found |= {
                name: " ".join(lines).strip() for (owner, name), lines in documented.items() if owner == base.__name__
            }
    return found


def default(field: dataclasses.Field) -> str:
    """The default as it is written in Python, or `required`."""
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is dataclasses.MISSING:
        return "required"
    value: Any = field.default_factory()
    return f"`{type(value).__name__}()`" if dataclasses.is_dataclass(value) else f"`{value!r}`"


def markdown(name: str) -> str:
    """The table of a configuration.

    Raises:
        ExtensionError: it does not exist, or a field has no description.
    """
    config = resolve(name)
    if not dataclasses.fields(config):
        return "It has no fields."
    texts = descriptions(config)
    rows = ["| field | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(config):
        if field.name not in texts:
            raise ExtensionError(f"{name}.{field.name} has no description in the source")
        cells = [f"`{field.name}`", default(field), texts[field.name]]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


class Fields(SphinxDirective):
    """The description of one configuration and the table of its fields."""

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        heading = f"```{{eval-rst}}\n.. autoclass:: memgpt_jax.{name}\n   :no-members:\n```"
        return self.parse_text_to_nodes(f"{heading}\n\n{markdown(name)}")


def setup(app):
    app.add_directive("fields", Fields)
    return {"parallel_read_safe": True}
