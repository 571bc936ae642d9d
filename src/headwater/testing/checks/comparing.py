"""Trees of numbers and settings, compared and changed."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np

from headwater.core.method import AbstractMethod


def numbers(tree: Any) -> list[np.ndarray]:
    """The leaves of `tree` on the host."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def names(tree: Any) -> list[str]:
    """Where in `tree` each leaf is."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def same(a: Any, b: Any) -> bool:
    """Whether two trees hold the same bits (a NaN equals a NaN)."""
    left, right = numbers(a), numbers(b)
    return len(left) == len(right) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
        for x, y in zip(left, right)
    )


def assert_close(a: Any, b: Any, what: str) -> None:
    """Equality up to the order of summation."""
    for name, x, y in zip(names(a), numbers(a), numbers(b), strict=True):
        np.testing.assert_allclose(
            x, y, rtol=2e-3, atol=2e-5, equal_nan=True, err_msg=f"{what}: {name}"
        )


def swept(method: AbstractMethod) -> dict[str, float | int]:
    """The settings that are numbers and not static, by name."""
    found = {}
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        static = field.metadata.get("static", False)
        if isinstance(value, int | float) and not isinstance(value, bool) and not static:
            found[field.name] = value
    return found


def with_setting(method: AbstractMethod, name: str, value: Any) -> AbstractMethod:
    """`method` with one number replaced, by an array if need be."""
    return eqx.tree_at(lambda m: getattr(m, name), method, value)
