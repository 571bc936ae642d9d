"""Global optimism over a class of value functions, for processes that a short memory reveals."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, probability
from headwater.core.hypotheses import ValueClass
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.sums import CompensatedSum, add_to, no_sum
from headwater.ops.tabular.counts import at_least_once
from headwater.ops.tabular.planning import greedy_table
from headwater.parts.value_class import first_values, following_values, most_optimistic


class MGOLFState(eqx.Module):
    """What was seen, as sums of every candidate's targets, and the version space left by it."""

    visits: Int[Array, "horizon state action"]
    target: CompensatedSum
    alive: Bool[Array, " candidate"]
    chosen: Int[Array, ""]
    problem: ValueClass


class MGOLF(AbstractMethod[ValueClass, Episodes, MGOLFState], AbstractTablePolicy[MGOLFState]):
    r"""Follows the most optimistic value function that no data contradicts.

    With data $D_h$ of steps $(z_h, a_h, r_h, z_{h+1})$ and
    $L_h(g, f) = \sum_{D_h} (g(z_h, a_h) - r_h - \max_a f_{h+1}(z_{h+1}, a))^2$, iteration $k$

    1. takes $f^k = \arg\max_{f \in B} E \max_a f_1(z_1, a)$, greedy policy $\pi^k$;
    2. plays for every $h$ one episode: $\pi^k$ until step $h - m$, then $m$ uniform actions up to
       step $h$, whose tuple goes into $D_h$ (moment matching needs no more than the last $m$
       actions to be free);
    3. keeps $B = \{f : L_h(f_h, f) - \min_{g \in G_h} L_h(g, f) \le \beta \;\forall h\}$,
       $\beta = \log(K H |F| |G| / \delta)$.

    States are windows of the last $m$ observations and actions. With `memory_length` 0 it is GOLF:
    one episode of $\pi^k$ for all steps; with 1, GOLF for processes whose states are seen
    (V-type). Exact for the enumerable classes that `ValueClass` holds; larger ones need an
    optimiser over a parametrised version space, which nobody has in general.

    **Arguments:**

    - `memory_length`: m.
    - `radius_scale`: multiplies β. The paper leaves the constant open; with returns in [0, 1],
      1/2 keeps the truth with probability 1 - δ (tested), 0.1 to 0.2 is practical.
    - `failure_probability`: δ.
    - `num_episodes`: K, iterations over which the guarantee holds.

    **Reference:** Efroni, Jin, Krishnamurthy, Miryoosefi (2022), arXiv:2202.03983; GOLF is Jin,
    Liu, Miryoosefi (2021), arXiv:2102.00815.

    **Differences from the paper:** it is judged by its latest policy, not by a random one of those
    that it played; if no candidate is left (the class was wrong, or β too small), it follows
    the one that is contradicted least.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "efroni2022provable",
        summary="optimism over the value functions of short windows that data has not refuted",
    )

    memory_length: int = integer(1, low=0)
    radius_scale: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    num_episodes: float = non_negative(1_000.0)

    def init(self, problem: ValueClass, *, key: PRNGKeyArray) -> MGOLFState:
        problem.problem.require_one_task("MGOLF")
        if problem.problem.initial is None:
            raise SpecificationError("MGOLF needs to know where episodes start: give `initial`")
        if not 0 <= self.memory_length <= problem.problem.horizon:
            raise SpecificationError(
                f"MGOLF: memory = {self.memory_length} must lie between 0 and the horizon, "
                f"{problem.problem.horizon}"
            )
        count = problem.candidates.shape[0]
        alive = jnp.ones(count, bool)
        return MGOLFState(
            jnp.zeros(problem.sizes, jnp.int32),
            no_sum((*problem.sizes, count)),
            alive,
            most_optimistic(problem, alive, jnp.zeros(count)),
            problem,
        )

    def update(self, state: MGOLFState, data: Episodes, *, key: PRNGKeyArray):
        problem = state.problem
        horizon = problem.problem.horizon
        data = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), _without_cost(data))
        if self.memory_length and len(data.action) != horizon:
            raise SpecificationError(
                f"MGOLF with a memory learns from one episode for each of the {horizon} steps, "
                f"not from {len(data.action)} episodes"
            )
        # Each of the episodes was free for one step; without a memory all steps of all count.
        used = jnp.eye(horizon) if self.memory_length else jnp.ones(data.action.shape)
        used = used.astype(jnp.int32)
        value = following_values(problem)
        step = jnp.broadcast_to(jnp.arange(horizon), data.action.shape)
        at = step, data.state[:, :-1], data.action
        target = data.reward[..., None] + value[step, data.state[:, 1:]]
        visits = state.visits.at[at].add(used)
        targets = add_to(state.target, at, used[..., None] * target)

        seen = visits.astype(jnp.float32)
        excess = jnp.max(excess_loss(seen, targets.total, problem), axis=0)
        radius = self.radius(problem)
        alive = excess <= radius
        chosen = most_optimistic(problem, alive, excess)
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "alive": jnp.mean(alive.astype(jnp.float32)),
            "contradiction": excess[chosen] / radius,
            "optimistic_value": first_values(problem)[chosen],
        }
        return MGOLFState(visits, targets, alive, chosen, problem), metrics

    def policy(self, state: MGOLFState, *, explore: bool):
        greedy = greedy_table(state.problem.candidates[state.chosen])[0]
        if not (explore and self.memory_length):
            return greedy
        horizon = greedy.shape[0]
        episode, step = jnp.arange(horizon)[:, None], jnp.arange(horizon)[None, :]
        free = (step <= episode) & (step > episode - self.memory_length)
        return jnp.where(free[:, :, None, None], 1.0 / greedy.shape[-1], greedy[None])

    def radius(self, problem: ValueClass) -> Float[Array, ""]:
        """β, by how much a candidate may fit its own targets worse than the best helper does."""
        candidates = problem.candidates.shape[0]
        helpers = candidates if problem.helpers is None else problem.helpers.shape[0]
        size = self.num_episodes * problem.problem.horizon * candidates * helpers
        # Of squares, so that it grows with the square of what rewards are counted in.
        unit = jnp.square(jnp.asarray(problem.problem.reward_scale))
        return self.radius_scale * unit * jnp.log(jnp.asarray(size / self.failure_probability))


def excess_loss(
    visits: Float[Array, "horizon state action"],
    target: Float[Array, "horizon state action candidate"],
    problem: ValueClass,
) -> Float[Array, "horizon candidate"]:
    """How much worse each candidate fits its own targets than the best helper, in squared error.

    The spread of targets within a state and action is common to all functions and left out.
    """
    horizon, candidates = visits.shape[0], target.shape[-1]
    mean = target / at_least_once(visits)[..., None]
    weight = visits[..., None]
    own = jnp.sum(weight * jnp.square(jnp.moveaxis(problem.candidates, 0, -1) - mean), (1, 2))
    if problem.helpers is None:
        return own
    count = problem.helpers.shape[0]
    helpers = jnp.moveaxis(problem.helpers, 0, 1).reshape(horizon, count, -1)
    mean, weight = mean.reshape(horizon, -1, candidates), visits.reshape(horizon, 1, -1)
    fit = jnp.sum(weight * jnp.square(helpers), axis=-1)[..., None] - 2.0 * (
        (weight * helpers) @ mean
    )
    return own - jnp.min(fit, axis=1) - jnp.sum(visits.reshape(horizon, -1, 1) * mean**2, 1)


def _without_cost(data: Episodes) -> Episodes:
    return Episodes(data.state, data.action, data.reward)
