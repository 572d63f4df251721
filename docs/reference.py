"""Sphinx extension: the API reference of the public names, grouped by the part of the package that defines them.

`{members} PART ...` documents the names of `memgpt_jax.__all__` that these parts define, as `memgpt_jax.NAME`.
`{namespace} MODULE` documents the names of the module's `__all__`, but for classes that are public names of `mg`.

Configurations are documented by `{fields}`. A test compares the index of the built site with `__all__`.
"""

import dataclasses
import importlib
import inspect
import re
from types import GenericAlias, ModuleType
from typing import Any

from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

import memgpt_jax as mg
from memgpt_jax.config.registry import Registry


def part_of(value: Any) -> str:
    """`models` for memgpt_jax.models.decoder; instances count by their class, type aliases are `aliases`."""
    module = getattr(value, "__module__", None) or type(value).__module__
    return module.split(".")[1] if module.startswith("memgpt_jax.") else "aliases"


def is_config(value: Any) -> bool:
    """Whether a value is a configuration class."""
    return inspect.isclass(value) and dataclasses.is_dataclass(value) and value.__name__.endswith("Config")


def entry(module: str, name: str, value: Any) -> str:
    """The directive that documents one name."""
    if isinstance(value, type) and not isinstance(value, GenericAlias):
        return f".. autoclass:: {module}.{name}\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {module}.{name}\n"
    text = f"Alias of ``{value}``."
    if isinstance(value, Registry):
        text = f"The registry of every {value.kind}: {', '.join(f'``{key}``' for key in value)}."
    elif isinstance(value, dict):
        text = f"A dictionary with the keys {', '.join(f'``{key}``' for key in value)}."
    return f".. py:data:: {module}.{name}\n\n   {text}\n"


def members(parts: list[str]) -> dict[str, Any]:
    """The public names that the parts define."""
    found = {name: getattr(mg, name) for name in mg.__all__}
    found = {name: value for name, value in found.items() if not isinstance(value, ModuleType) and not is_config(value)}
    return {name: value for name, value in found.items() if part_of(value) in parts}


class Reference(SphinxDirective):
    """Base: entries as nodes."""

    required_arguments = 1
    final_argument_whitespace = True

    def documented(self, module: str, names: dict[str, Any]):
        text = "\n".join(entry(module, name, value) for name, value in names.items())
        return self.parse_text_to_nodes(f"```{{eval-rst}}\n{text}\n```")


class Members(Reference):
    def run(self):
        names = members(self.arguments[0].split())
        if not names:
            raise ExtensionError(f"{self.arguments[0]} define no public name")
        return self.documented("memgpt_jax", names)


class Namespace(Reference):
    def run(self):
        path = self.arguments[0]
        module = importlib.import_module(path)
        names = {name: getattr(module, name) for name in module.__all__}
        return self.documented(path, {name: value for name, value in names.items() if not self.elsewhere(name, value)})

    def elsewhere(self, name: str, value: Any) -> bool:
        """Whether a name has another place: modules, configurations, and classes that `{members}` documents."""
        public = isinstance(value, type) and name in mg.__all__
        return isinstance(value, ModuleType) or is_config(value) or public


def signature(app, what, name, obj, options, arguments, returns):
    """Event handler: arrays by their short name; none for configurations, whose fields are in a table."""
    if is_config(obj):
        return "", None
    return tuple(text and re.sub(r"(jaxlib\._jax|jax)\.(?=Array\b)", "", text) for text in (arguments, returns))


def skip(app, what, name, obj, skipped, options):
    """Event handler: fields of named tuples are in the signature; without a description they are not listed again."""
    return True if (getattr(obj, "__doc__", "") or "").startswith("Alias for field number") else None


def setup(app):
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    app.add_directive("members", Members)
    app.add_directive("namespace", Namespace)
    return {"parallel_read_safe": True}
