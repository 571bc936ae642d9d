"""Finite processes of which only a few rewards and models are thought possible."""

import equinox as eqx
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError
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
