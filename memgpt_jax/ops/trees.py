"""Functions on the arrays of a tree: sizes, names, and a choice by rows."""

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from memgpt_jax.shapes import Array, Bool

Tree = TypeVar("Tree")


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree; `jax.ShapeDtypeStruct`s count as the arrays that they describe."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def path_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf by its path from `jax.tree_util`, such as "blocks/0/attention/output/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by `path_name`, in the order of `jax.tree.leaves`."""
    return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def where_rows(condition: Bool[Array, "*b"], yes: Tree, no: Tree) -> Tree:
    """`yes` where the condition, an array over the leading axes, holds; else `no`."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(*condition.shape, *(1,) * (a.ndim - condition.ndim)), a, b)

    return jax.tree.map(choose, yes, no)
