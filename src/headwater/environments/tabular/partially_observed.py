"""Partially observed processes of several tasks, of which methods see one observation at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import (
    AbstractFiniteSimulator,
    AbstractPartialView,
    FiniteProblem,
    FiniteStep,
    draw_index,
)
from headwater.core.hypotheses import FiniteTask


class ObservedProcess(AbstractFiniteSimulator, AbstractPartialView):
    """A hidden state moves, and what methods take for the state is drawn from it at each step.

    Nothing depends on the step but the reward, which is of what is seen. Several can be stacked
    along a leading axis.

    **Arguments:** `initial`, `transition`: of the hidden state; `emission`: of the observation;
    `reward`: from zero to one.
    """

    initial: Float[Array, "*task hidden"]
    transition: Float[Array, "*task hidden action hidden"]
    emission: Float[Array, "*task hidden observation"]
    reward: Float[Array, "*task horizon observation action"]

    @property
    def horizon(self) -> int:
        """Steps in an episode."""
        return self.reward.shape[-3]

    @property
    def states(self) -> int:
        """Number of observations."""
        return self.reward.shape[-2]

    @property
    def actions(self) -> int:
        """Number of actions."""
        return self.reward.shape[-1]

    def problem(self) -> FiniteProblem:
        """What a method for several tasks is told of stacked processes: sizes and rewards."""
        tasks = self.reward.shape[0]
        return FiniteProblem(self.states, self.actions, self.horizon, None, self.reward, tasks)

    def reset(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        if self.initial.ndim > 1:
            # Sources look at a first state before they act in each of several.
            return jax.tree.map(lambda x: x[0], self).reset(key=key)
        hidden, seen = jax.random.uniform(key, (2,))
        return self._show(draw_index(self.initial, hidden), seen)

    def step(
        self,
        time: Int[Array, ""],
        state: Int[Array, ""],
        action: Int[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> FiniteStep:
        moves, seen = jax.random.uniform(key, (2,))
        hidden = draw_index(self.transition[state // self.states, action], moves)
        return FiniteStep(self._show(hidden, seen), self.reward[time, self.show(state), action])

    def show(self, state: Int[Array, ""]) -> Int[Array, ""]:
        return state % self.states

    def _show(self, hidden: Int[Array, ""], uniform: Float[Array, ""]) -> Int[Array, ""]:
        return hidden * self.states + draw_index(self.emission[hidden], uniform)


def partially_observed_tasks(
    *,
    tasks: int = 8,
    hidden: int = 4,
    actions: int = 3,
    observations: int = 4,
    horizon: int = 4,
    concentration: float = 0.3,
    emission_concentration: float = 0.35,
    shared: bool = True,
    key: PRNGKeyArray,
) -> FiniteTask:
    """Stacked `ObservedProcess`es whose hidden states move alike, but look different.

    Transitions and emissions are drawn from Dirichlet distributions, rewards uniformly from zero to
    one, each task's own; every hidden state is equally likely at first.

    **Arguments:** `concentration`, `emission_concentration`: of the Dirichlet distributions;
    `shared`: if false, every task has its own transitions (a control).

    Raises `SpecificationError` for sizes below one or a concentration that is not above zero.
    """
    sizes = {"tasks": tasks, "hidden": hidden, "actions": actions, "horizon": horizon}
    for name, size in {**sizes, "observations": observations}.items():
        if size < 1:
            raise SpecificationError(f"{name} = {size} must be at least one")
    given = {
        "concentration": concentration,
        "emission_concentration": emission_concentration,
    }
    for name, value in given.items():
        if not value > 0.0:
            raise SpecificationError(f"{name} = {value:g} must be above zero")
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = np.full(hidden, concentration)
    moves = random.dirichlet(rows, (1 if shared else tasks, hidden, actions))
    shows = random.dirichlet(np.full(observations, emission_concentration), (tasks, hidden))
    reward = jnp.asarray(random.random((tasks, horizon, observations, actions)), jnp.float32)
    process = ObservedProcess(
        jnp.full((tasks, hidden), 1.0 / hidden, jnp.float32),
        jnp.asarray(np.broadcast_to(moves, (tasks, *moves.shape[1:])), jnp.float32),
        jnp.asarray(shows, jnp.float32),
        reward,
    )
    return FiniteTask(process.problem(), process)
