"""Optimistic planning that is drawn towards a policy learned from demonstrations."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import non_negative, positive, probability
from headwater.core.finite import FiniteProblem
from headwater.core.method import (
    AbstractCertificate,
    AbstractMethod,
    AbstractTablePolicy,
    Info,
)
from headwater.core.records import Episodes
from headwater.ops.tabular.counts import (
    Counts,
    at_least_once,
    certified_gap,
    count,
    estimated_unit_reward,
    expected_next,
    no_counts,
)
from headwater.ops.tabular.planning import greedy_table


class DemonstrationRegularisedState(eqx.Module):
    """Counts, the policy to stay near, the plan made of them, and where to leave the plan next."""

    counts: Counts
    anchor: Float[Array, "horizon state action"]
    target: Float[Array, "horizon state action"]
    uncertainty: Float[Array, "horizon state action"]
    gap: Float[Array, " state"]
    left_at: Int[Array, ""]
    problem: FiniteProblem


class DemonstrationRegularised(
    AbstractMethod[FiniteProblem, Episodes, DemonstrationRegularisedState],
    AbstractTablePolicy[DemonstrationRegularisedState],
    AbstractCertificate[DemonstrationRegularisedState],
):
    r"""UCBVI-Ent+: seeks the policy of highest return less λ times its divergence from an anchor.

    The anchor $\tilde\pi$ is what demonstrations taught (`TabularCloning`), uniform if there were
    none; `around` starts from it. After every episode, backwards from the last step, with n visits,
    $\beta^* = \ln(3SAH/\delta) + \ln 8e(n+1)$ and $\beta = \ln(3SAH/\delta) + S \ln 8e(n+1)$:

    - $\overline Q = r + \hat P \overline V + b$ and $\underline Q = r + \hat P \underline V - b$,
      clipped to what the steps left can earn, with $b = 3\sqrt{\mathrm{Var}_{\hat P}(\overline V)
      \beta^* / n} + 9H^2 \beta / n + \hat P(\overline V - \underline V) / H$;
    - $V(s) = \lambda \ln \sum_a \tilde\pi(a|s) e^{Q(s,a)/\lambda}$, for both; $\bar\pi \propto
      \tilde\pi e^{\overline Q/\lambda}$ is the policy that is judged;
    - $G(s) = \max_a (\overline Q - \underline Q)^2 / 2\lambda + \sum_a \bar\pi(a|s) [(1 + 1/H) \hat
      P G + 4H^2 \beta / n]$ bounds how much $\bar\pi$ falls short in the regularised return: the
      metric `gap`, by which to stop.

    An episode follows $\bar\pi$, except at one step drawn at random, where it takes the action with
    the largest $\overline Q - \underline Q$.

    **Arguments:**

    - `kl_weight`: λ, in units of the reward; about ε over the divergence between expert and anchor,
      so in proportion to the number of demonstrations.
    - `bonus_scale`: multiplies b (but for its last part) and the last part of G. 1 is the
      theorem's; since $9H^2\beta$ is large, about 0.00003 is practical.
    - `failure_probability`: δ.

    **Reference:** Tiapkin et al. (2023), arXiv:2310.17303.

    **Differences from the paper:** rewards that are not known are estimated, which adds
    $\sqrt{\beta^*/2n}$ to b. Values are clipped to the steps left instead of H, and G has the terms
    that pay for $\hat P$ in the place of P. `suboptimality_bound` is that of the return alone, from
    the counts, since G is that of the regularised one.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "tiapkin2024demonstration",
        summary="optimistic planning near a policy that demonstrations taught",
        parents=("TabularCloning", "UCBVI"),
    )

    kl_weight: float = positive(1.0, infinite=True)
    bonus_scale: float = non_negative(1.0)
    failure_probability: float = probability(0.1)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> DemonstrationRegularisedState:
        problem.require_one_task("DemonstrationRegularised")
        return self.around(problem, jnp.full(problem.sizes, 1.0 / problem.actions), key=key)

    def around(
        self, problem: FiniteProblem, anchor: Array, *, key: PRNGKeyArray
    ) -> DemonstrationRegularisedState:
        """The state before any episode, with a policy to stay near: for `Stage.begin`.

        **Arguments:** `anchor`: `[horizon, state, action]`; actions to which it gives no
        probability are never taken but to explore.

        Raises `SpecificationError` if it does not fit the problem.
        """
        if anchor.shape != problem.sizes:
            raise SpecificationError(
                f"DemonstrationRegularised got an anchor of shape {anchor.shape}, but the problem "
                f"has (horizon, state, action) = {problem.sizes}"
            )
        return self._planned(no_counts(problem), anchor.astype(jnp.float32), problem, key)

    def update(self, state: DemonstrationRegularisedState, data: Episodes, *, key: PRNGKeyArray):
        counts = count(state.counts, data, state.problem)
        planned = self._planned(counts, state.anchor, state.problem, key)
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "gap": state.problem.reward_scale * jnp.mean(planned.gap[data.state[..., 0]]),
        }
        return planned, metrics

    def policy(self, state: DemonstrationRegularisedState, *, explore: bool):
        if not explore:
            return state.target
        here = jnp.arange(state.problem.horizon) == state.left_at
        return jnp.where(here[:, None, None], greedy_table(state.uncertainty)[0], state.target)

    def suboptimality_bound(self, state: DemonstrationRegularisedState) -> Float[Array, ""]:
        return certified_gap(state.counts, state.target, state.problem, self.failure_probability)

    def _planned(self, counts: Counts, anchor, problem: FiniteProblem, key: PRNGKeyArray):
        horizon, states, actions = problem.sizes
        visits = at_least_once(counts.visits)
        event = jnp.log(3.0 * states * actions * horizon / self.failure_probability)
        grown = jnp.log(8.0 * jnp.e * (counts.visits + 1.0))
        narrow, wide = event + grown, event + states * grown
        reward = estimated_unit_reward(counts, problem)
        kl_weight = self.kl_weight / problem.reward_scale
        fixed = 9.0 * horizon**2 * wide / visits
        if problem.reward is None:
            fixed += jnp.sqrt(narrow / (2.0 * visits))
        left = jnp.arange(horizon, 0.0, -1.0)

        def one(following_values, step):
            upper, lower, gap = following_values
            following, visits, reward, fixed, narrow, wide, anchor, left = step
            times = at_least_once(visits)
            high, variance = expected_next(following, visits, upper)
            low, gap_next = (expected_next(following, visits, v)[0] for v in (lower, gap))
            width = self.bonus_scale * (3.0 * jnp.sqrt(variance * narrow / times) + fixed)
            width = width + (high - low) / horizon
            unseen = visits == 0.0
            above = jnp.where(unseen, left, jnp.clip(reward + high + width, 0.0, left))
            below = jnp.where(unseen, 0.0, jnp.clip(reward + low - width, 0.0, left))
            target, upper = _softly(above, anchor, kl_weight)
            lower = _softly(below, anchor, kl_weight)[1]
            uncertainty = above - below
            price = self.bonus_scale * 4.0 * horizon**2 * wide / times
            each = jnp.where(unseen, left, (1.0 + 1.0 / horizon) * gap_next + price)
            gap = jnp.square(jnp.max(uncertainty, axis=-1)) / (2.0 * kl_weight)
            gap = jnp.minimum(gap + jnp.sum(target * each, axis=-1), left)
            return (upper, lower, gap), (target, uncertainty)

        zero = jnp.zeros(states)
        steps = (counts.following, counts.visits, reward, fixed, narrow, wide, anchor, left)
        last, (target, uncertainty) = jax.lax.scan(one, (zero, zero, zero), steps, reverse=True)
        left_at = jax.random.randint(key, (), 0, horizon, jnp.int32)
        return DemonstrationRegularisedState(
            counts, anchor, target, uncertainty, last[2], left_at, problem
        )


def _softly(action_value: Array, anchor: Array, temperature: float | Array) -> tuple[Array, Array]:
    """The best policy in value less `temperature` times divergence from `anchor`; its value."""
    scaled = action_value / temperature + jnp.log(anchor)
    policy = jax.nn.softmax(scaled, axis=-1)
    return policy, temperature * jax.nn.logsumexp(scaled, axis=-1)
