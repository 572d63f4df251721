"""Registries: the named implementations of one interface, each with its configuration."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from memgpt_jax.config.checks import check

Module = TypeVar("Module")


class Entry(NamedTuple, Generic[Module]):
    """One implementation."""

    config: type | None
    """Its frozen dataclass; None in a registry without configurations."""
    module: Module
    """The class, or the object, that implements the interface."""


class Registry(Mapping[str, Entry[Module]]):
    """Implementations by name, in the order of registration.

    Args:
        kind: the noun for an implementation in messages, such as "memory mechanism".
        module: the base class of the implementations.
        config: the base class of the configurations; None: implementations have no configuration.
        instances: True: implementations are instances of `module`; False: they are classes derived from it.
    """

    def __init__(self, kind: str, module: type, config: type | None = None, *, instances: bool = False):
        self.kind, self._module_base, self._config_base, self._instances = kind, module, config, instances
        self._entries: dict[str, Entry[Module]] = {}

    def register(self, name: str, config: type | None, module: Module) -> None:
        """Add an implementation. One whose class is defined again under its name replaces the former one.

        That is so if a cell of a notebook runs again: module and name of the class are the same.

        Args:
            name: a Python identifier that no other implementation has; its name on the command line.
            config: its configuration class, which must not belong to another implementation; None in a registry without
                configurations.
            module: the implementation.

        Raises:
            ValueError: another implementation has the name or the configuration, or an argument has the wrong type.
        """
        check(
            isinstance(name, str) and name.isidentifier(),
            f"the name of a {self.kind} must be an identifier, got {name!r}",
        )
        check(
            name not in self._entries or _same_definition(self._entries[name].module, module),
            f"there is a {self.kind} {name!r} already: choose another name, or remove it with `unregister({name!r})`",
        )
        base = self._module_base
        if self._instances:
            fits, wanted = isinstance(module, base), "an instance of"
        else:
            fits, wanted = isinstance(module, type) and issubclass(module, base), "a class derived from"
        check(fits, f"the {self.kind} {name!r} must be {wanted} {base.__name__}, got {module!r}")
        if self._config_base is None:
            check(config is None, f"a {self.kind} has no configuration, got {config!r}")
        else:
            base = self._config_base
            fits = isinstance(config, type) and issubclass(config, base) and dataclasses.is_dataclass(config)
            check(
                fits, f"the configuration of {name!r} must be a dataclass derived from {base.__name__}, got {config!r}"
            )
            taken = [other for other, entry in self._entries.items() if entry.config is config and other != name]
            check(not taken, f"{getattr(config, '__name__', config)} is the configuration of {taken} already")
        self._entries[name] = Entry(config, module)

    def unregister(self, name: str) -> None:
        """Remove an implementation; `KeyError`, which lists the names, if there is none."""
        del self._entries[self._known(name)]

    def name_of(self, config: Any) -> str:
        """The name of the implementation whose configuration this is; `ValueError` if there is none."""
        for name, entry in self._entries.items():
            if type(config) is entry.config:
                return name
        valid = ", ".join(entry.config.__name__ for entry in self._entries.values() if entry.config)
        raise ValueError(f"{type(config).__name__} is the configuration of no {self.kind}; valid: {valid}")

    def of(self, config: Any) -> Module:
        """The implementation whose configuration this is; `ValueError` if there is none."""
        return self._entries[self.name_of(config)].module

    def __getitem__(self, name: str) -> Entry[Module]:
        return self._entries[self._known(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _known(self, name: str) -> str:
        if name not in self._entries:
            raise KeyError(f"there is no {self.kind} {name!r}; valid: {', '.join(self._entries)}")
        return name


def _same_definition(one: Any, other: Any) -> bool:
    """Whether two classes, or the classes of two objects, have the same module and name."""
    classes = [value if isinstance(value, type) else type(value) for value in (one, other)]
    first, second = ((cls.__module__, cls.__qualname__) for cls in classes)
    return first == second
