"""Monotonic value propagation."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, probability
from headwater.core.finite import FiniteProblem
from headwater.core.method import (
    AbstractCertificate,
    AbstractMethod,
    AbstractTablePolicy,
    Info,
)
from headwater.core.records import Episodes
from headwater.ops.tabular.bonus import ValueCap, highest_values
from headwater.ops.tabular.counts import (
    Counts,
    at_least_once,
    count,
    estimated_unit_reward,
    expected_next,
    no_counts,
    reward_variance,
)
from headwater.ops.tabular.planning import greedy_table
from headwater.parts.planned_values import episode_metrics, greedy_gap


class MVPState(eqx.Module):
    """All counts, those at each tuple's last doubling, those that were planned with, and the plan.

    **Arguments:** `counts`: of everything; `doubled`: at the last doubling; `model`: what the plan
    rests on.
    """

    counts: Counts
    doubled: Counts
    model: Counts
    action_value: Float[Array, "horizon state action"]
    problem: FiniteProblem


class MVP(
    AbstractMethod[FiniteProblem, Episodes, MVPState],
    AbstractTablePolicy[MVPState],
    AbstractCertificate[MVPState],
):
    r"""Plans optimistically, and again only when some step has been taken twice as often.

    When the visits of a step, state and action reach 1, 2, 4, 8, …, its model becomes the samples
    since the last time (the later half of all), and the plan is made anew after the episode:
    $Q_h = \min\{H, \hat r + \hat P V_{h+1} + b_h\}$, $V_h = \max_a Q_h$,

    $b = c_1\sqrt{\mathrm{Var}_{\hat P}(V_{h+1})\,L/N} + c_2\sqrt{\mathrm{Var}(r)\,L/N} +
    c_3 HL/N$, with $c_1 = 460/9$, $c_2 = 2\sqrt2$, $c_3 = 544/9$, $L = \ln(200SAH^2K^2/\delta)$ and
    the $N$ samples of the model. There are at most $SAH(\lfloor\log_2 K\rfloor + 1)$ plans.

    **Arguments:**

    - `bonus_scale`: multiplies the bonus. 1 is the theorem's, whose values stay at the horizon for
      thousands of visits; about 0.0003 is practical. Up to 0.023 the bonus keeps the monotonicity
      that the method is named for without help from slack constants.
    - `failure_probability`: δ.
    - `num_episodes`: K, over which the guarantee holds.
    - `samples_used`: the later half, or all of them as in the method's first version (2021).
    - `value_cap`: what no value may exceed.

    **Reference:** Zhang, Chen, Lee, Du (2023), arXiv:2307.13586; first version: Zhang, Ji, Du
    (2021), arXiv:2009.13503.

    **Differences from the paper:** what was never seen has the highest value, at any `bonus_scale`;
    where rewards are known they are used and $c_2$'s part falls away; of episodes that arrive
    together, a tuple's doubling is noticed after the last.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "zhang2023settling",
        summary="optimistic planning, anew only when a count has doubled, without a burn-in",
        parents=("UCBVI",),
    )

    bonus_scale: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    num_episodes: float = non_negative(10_000.0)
    samples_used: Literal["later_half", "all"] = choice("later_half")
    value_cap: ValueCap = choice("horizon")

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> MVPState:
        problem.require_one_task("MVP")
        highest = highest_values(problem, self.value_cap)
        # Each with arrays of its own: the loop takes them over, and may take each only once.
        counts, doubled, model = (no_counts(problem) for _ in range(3))
        return MVPState(counts, doubled, model, highest, problem)

    def update(self, state: MVPState, data: Episodes, *, key: PRNGKeyArray):
        counts = count(state.counts, data, state.problem)
        step = jnp.broadcast_to(jnp.arange(data.action.shape[-1]), data.action.shape)
        at = step, data.state[..., :-1], data.action
        # There is a leading zero less whenever a count reaches or passes a power of two.
        zeros = lambda visits: jax.lax.clz(visits[at])
        doubled = zeros(counts.visits) < zeros(state.counts.visits)
        earlier = state.doubled
        if self.samples_used == "later_half":
            used = lambda now, then: now[at] - then[at]
        else:
            used = lambda now, _: now[at]
        model = jax.tree.map(
            lambda old, now, then: _where(old, at, doubled, used(now, then)),
            state.model,
            counts,
            earlier,
        )
        earlier = jax.tree.map(lambda e, now: _where(e, at, doubled, now[at]), earlier, counts)
        replanned = jnp.any(doubled)
        action_value = jax.lax.cond(
            replanned, lambda: self._plan(model, state.problem), lambda: state.action_value
        )
        metrics = episode_metrics(data, action_value, "optimistic_value", state.problem)
        metrics["replanned"] = replanned.astype(jnp.float32)
        return MVPState(counts, earlier, model, action_value, state.problem), metrics

    def policy(self, state: MVPState, *, explore: bool):
        return greedy_table(state.action_value)[0]

    def suboptimality_bound(self, state: MVPState) -> Float[Array, ""]:
        return greedy_gap(state.counts, state.action_value, state.problem, self.failure_probability)

    def _plan(self, model: Counts, problem: FiniteProblem):
        horizon, states, actions = problem.sizes
        tuples = states * actions * jnp.square(horizon * self.num_episodes)
        log = jnp.log(200.0 * tuples / self.failure_probability)
        visits = at_least_once(model.visits)
        fixed = 544.0 / 9.0 * horizon * log / visits
        if problem.reward is None:
            fixed += jnp.sqrt(8.0 * log * reward_variance(model) / visits)
        slow = 460.0 / 9.0 * jnp.sqrt(log / visits)

        def one(value, step):
            following, visits, reward, fixed, slow, highest = step
            mean, variance = expected_next(following, visits, value)
            bonus = self.bonus_scale * (fixed + slow * jnp.sqrt(variance))
            action_value = jnp.minimum(reward + mean + bonus, highest)
            action_value = jnp.where(visits > 0.0, action_value, highest)
            return jnp.max(action_value, axis=-1), action_value

        reward = estimated_unit_reward(model, problem)
        highest = highest_values(problem, self.value_cap)
        steps = (model.following, model.visits, reward, fixed, slow, highest)
        return jax.lax.scan(one, jnp.zeros(states), steps, reverse=True)[1]


def _where(old: Array, at: tuple, changed: Array, new: Array) -> Array:
    """`old` with `new` at the places that changed; places may repeat, then with equal `new`."""
    changed = changed.reshape(*changed.shape, *(1,) * (new.ndim - changed.ndim))
    return old.at[at].set(jnp.where(changed, new, old[at]))
