"""Sizes and names of the arrays of a tree."""

import math
from typing import Any

import jax


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree; `jax.ShapeDtypeStruct`s count as the arrays that they describe."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def path_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf by its path from `jax.tree_util`, such as "blocks/0/attention/output/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by `path_name`, in the order of `jax.tree.leaves`."""
    return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
