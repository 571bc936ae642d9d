"""Finite processes of which only a few rewards, models or values are thought possible."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.errors import DataError, SpecificationError
from headwater.core.finite import FiniteProblem


class FiniteHypotheses(eqx.Module):
    """A finite process, and lists of rewards and of models one of which is right.

    **Arguments:** `problem`: what is known for certain; `rewards`; `transitions`: a single one if
    the model is known.

    Raises `SpecificationError` if shapes are not the problem's.
    """

    problem: FiniteProblem
    rewards: Float[Array, "reward horizon state action"]
    transitions: Float[Array, "model horizon state action state"]

    def __check_init__(self):
        sizes = self.problem.sizes
        for name, array, wanted in (
            ("rewards", self.rewards, sizes),
            ("transitions", self.transitions, (*sizes, self.problem.states)),
        ):
            if array.ndim != len(wanted) + 1 or array.shape[1:] != wanted or not len(array):
                raise SpecificationError(
                    f"{name} has shape {array.shape}, but the problem needs at least one array of "
                    f"shape {wanted}, stacked along a first axis"
                )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Horizon, states and actions."""
        return self.problem.sizes

    @property
    def tasks(self) -> int | None:
        """How many processes are learned at once, if there are several."""
        return self.problem.tasks


class ValueClass(eqx.Module):
    """A finite problem and the functions among which its optimal action values are sought.

    `from_arrays` checks what it is given.

    **Arguments:** `problem`: with known first states; `candidates`: one of them should be right;
    `helpers`: functions that the backups of candidates are compared with, separately at each step;
    they should hold every backup (completeness), and without any, all functions of state and action
    are meant.
    """

    problem: FiniteProblem
    candidates: Float[Array, "candidate horizon state action"]
    helpers: Float[Array, "helper horizon state action"] | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Horizon, states and actions."""
        return self.problem.sizes

    @property
    def tasks(self) -> int | None:
        """How many processes are learned at once."""
        return self.problem.tasks

    @classmethod
    def from_arrays(cls, problem: FiniteProblem, candidates: Any, helpers: Any = None):
        """The class with these functions, checked.

        Raises `SpecificationError` if shapes do not fit the problem or its first states are not
        known, `DataError` for a value that is not finite.
        """
        if problem.initial is None:
            raise SpecificationError(
                "optimism needs to know where episodes start: give `initial` to the problem"
            )
        given = {"candidates": candidates, "helpers": helpers}
        checked = {}
        for name, values in given.items():
            if values is None:
                checked[name] = None
                continue
            values = np.asarray(values, np.float32)
            if values.ndim != 4 or values.shape[1:] != problem.sizes or not len(values):
                raise SpecificationError(
                    f"{name} has shape {values.shape}: it must be (functions, *{problem.sizes}), "
                    "for the problem's horizon, states and actions"
                )
            if not np.isfinite(values).all():
                at = np.argwhere(~np.isfinite(values))[0].tolist()
                raise DataError(
                    f"{name}: function {at[0]} is not finite at step {at[1]}, state {at[2]}, "
                    f"action {at[3]}"
                )
            checked[name] = jnp.asarray(values)
        return cls(problem, checked["candidates"], checked["helpers"])
