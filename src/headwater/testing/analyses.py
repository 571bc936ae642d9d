"""The contract that every analysis keeps, as one call."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def check_analysis(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    expected: Any,
    *,
    rows: Mapping[str, int | None] | None = None,
    rtol: float = 1e-4,
) -> None:
    """Checks an analysis on a small case with a known answer.

    The same arguments give the same bits, the answer is the one that is expected, and rows in
    another order give the same numbers in that order.

    **Arguments:** `arguments`: of `function`, by name; `expected`: a tree of numbers from an
    independent computation; `rows`: which arguments are rows, and along which axis of every answer
    (`None`: along none) these stand; `rtol`: largest difference, as a share of the largest number
    of that answer.

    Raises `AssertionError`, which says what is wrong.
    """
    name = getattr(function, "__name__", str(function))
    answer = _numbers(function(**arguments))
    again = _numbers(function(**arguments))
    assert all(x.tobytes() == y.tobytes() for x, y in zip(answer, again, strict=True)), (
        f"{name}: the same arguments give other numbers"
    )
    _same(answer, _numbers(expected), rtol, f"{name} is not what is expected")
    for argument, axis in (rows or {}).items():
        count = jax.tree.leaves(arguments[argument])[0].shape[0]
        assert count > 1, f"{name}: {argument} needs two rows at least to be put in another order"
        order = np.random.default_rng(0).permutation(count)
        if np.array_equal(order, np.arange(count)):
            order = order[::-1]
        turned = jax.tree.map(lambda x, order=order: x[order], arguments[argument])
        found = _numbers(function(**{**arguments, argument: turned}))
        expected_parts = answer if axis is None else [np.take(x, order, axis) for x in answer]
        _same(found, expected_parts, rtol, f"{name}: {argument} in another order")


def _numbers(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _same(
    found: list[np.ndarray], expected_parts: list[np.ndarray], rtol: float, what: str
) -> None:
    assert len(found) == len(expected_parts), (
        f"{what}: {len(found)} answers, not {len(expected_parts)}"
    )
    for x, y in zip(found, expected_parts):
        largest = float(np.max(np.abs(y), initial=0.0))
        np.testing.assert_allclose(x, y, rtol=0.0, atol=rtol * largest, err_msg=what)
