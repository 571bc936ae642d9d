"""Reward-free exploration by upper bounds of the error of estimation."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, non_negative, probability
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractCertificate, AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.control.exploration import shared_among_best
from headwater.ops.tabular.counts import Counts, at_least_once, expected_next
from headwater.ops.tabular.experience import count_steps, learned_process, no_steps
from headwater.ops.tabular.planning import optimal_values


class RFUCRLState(eqx.Module):
    """Counts, and bounds of the error of any policy's value in the model made from them."""

    counts: Counts
    error: Float[Array, "horizon state action"]
    problem: FiniteProblem


class RFUCRL(
    AbstractMethod[FiniteProblem, Episodes, RFUCRLState],
    AbstractTablePolicy[RFUCRLState],
    AbstractCertificate[RFUCRLState],
):
    r"""Goes where the values of policies, for whatever rewards, are known least.

    $E_h = \min\{H - h,\; (H - h)\sqrt{2 \beta / N} + \hat P \max_b E_{h+1}(\cdot, b)\}$, with
    $\beta = \ln(2SAH/\delta) + (S - 1) \ln(e (1 + N / (S - 1)))$, bounds the error of the value of
    every policy under every reward in [0, 1], with probability $1 - \delta$; episodes are played
    greedily in it. What is planned for in the learned model afterwards falls short by at most
    $2 E_1$, for any number of rewards that may be chosen only then.

    **Arguments:**

    - `stationary`: the process is the same at every step, so counts are added up over steps.
    - `bonus_scale`: multiplies $\sqrt{2 \beta / N}$. With 1 the bound holds; about 0.02 explores
      well, and its errors are none (the certified bound does not depend on it).
    - `failure_probability`: δ.

    **Reference:** Kaufmann, Ménard, Domingues, Jonsson, Leurent, Valko (2021), arXiv:2006.06294.

    **Differences from the paper:** not discounted; of equally uncertain actions one is taken at
    random, and actions never taken are as uncertain as can be even if the bonus is scaled; it
    explores for as long as it is run instead of stopping at $E_1 \le \varepsilon / 2$. The greedy
    policy is that for the known rewards, and where there are none, the exploring one.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "kaufmann2021adaptive",
        summary="explores a finite process without rewards, to plan for any of them later",
    )

    stationary: bool = flag(False)
    bonus_scale: float = non_negative(1.0)
    failure_probability: float = probability(0.1)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> RFUCRLState:
        problem.require_one_task("RFUCRL")
        counts = no_steps(problem, stationary=self.stationary)
        return RFUCRLState(counts, self._errors(counts, problem, self.bonus_scale), problem)

    def update(self, state: RFUCRLState, data: Episodes, *, key: PRNGKeyArray):
        counts = count_steps(state.counts, data, state.problem)
        error = self._errors(counts, state.problem, self.bonus_scale)
        seen = jnp.mean((counts.visits > 0.0).astype(jnp.float32))
        highest = jnp.max(error[0], axis=-1)[data.state[..., 0]]
        metrics = {"error": jnp.mean(highest), "seen": seen}
        return RFUCRLState(counts, error, state.problem), metrics

    def policy(self, state: RFUCRLState, *, explore: bool):
        if explore or state.problem.reward is None:
            return shared_among_best(state.error)
        return self.plan(state, state.problem.reward)

    def plan(
        self, state: RFUCRLState, reward: Float[Array, "horizon state action"]
    ) -> Float[Array, "horizon state action"]:
        """The policy that is best for these rewards in the learned model."""
        return optimal_values(self.model(state, reward)).policy

    def model(
        self,
        state: RFUCRLState,
        reward: Float[Array, "horizon state action"],
        cost: Float[Array, "horizon state action constraint"] | None = None,
    ) -> FiniteProcess:
        """The learned model with these rewards and costs: see `ops.experience.learned_process`."""
        return learned_process(state.counts, state.problem, reward=reward, cost=cost)

    def suboptimality_bound(self, state: RFUCRLState) -> Float[Array, ""]:
        """For the policy of the known rewards, whatever the `bonus_scale`.

        Without known rewards it is as much as returns can differ: the exploring policy is not meant
        to earn anything. Raises `SpecificationError` if it is not known where episodes start.
        """
        if state.problem.reward is None:
            state.problem.require_initial("RFUCRL")
            return jnp.asarray(state.problem.horizon * state.problem.reward_scale, jnp.float32)
        return self.planning_bound(state)

    def planning_bound(self, state: RFUCRLState) -> Float[Array, ""]:
        """How much what `plan` makes falls short at most, for all rewards in the range at once.

        Raises `SpecificationError` if it is not known where episodes start.
        """
        problem = state.problem
        initial = problem.require_initial("RFUCRL")
        # What explores may have another scale; the guarantee is that of the theorem's.
        bound = jnp.dot(initial, jnp.max(self._errors(state.counts, problem, 1.0)[0], axis=-1))
        return problem.reward_scale * jnp.minimum(2.0 * bound, problem.horizon)

    def _errors(self, counts: Counts, problem: FiniteProblem, scale: float | Array):
        horizon, states, actions = problem.sizes
        others = max(states - 1, 1)
        beta = jnp.log(2.0 * states * actions * horizon / self.failure_probability)
        beta += (states - 1) * (1.0 + jnp.log1p(counts.visits / others))
        width = scale * jnp.sqrt(2.0 * beta / at_least_once(counts.visits))

        def one(value, time):
            at = 0 if self.stationary else time
            visits, remaining = counts.visits[at], (horizon - 1 - time).astype(jnp.float32)
            mean = expected_next(counts.following[at], visits, value)[0]
            error = jnp.minimum(remaining * width[at] + mean, remaining)
            error = jnp.where(visits > 0.0, error, remaining)
            return jnp.max(error, axis=-1), error

        return jax.lax.scan(one, jnp.zeros(states), jnp.arange(horizon), reverse=True)[1]
