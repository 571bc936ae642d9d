"""Explores at random, and regresses a few steps of value iteration on what it saw."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import flag, integer
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.sums import CompensatedSum, add_to, no_sum
from headwater.ops.tabular.counts import at_least_once
from headwater.ops.tabular.planning import greedy_table


class SQIRLState(eqx.Module):
    """Sums over steps whose action was random, and the action values frozen so far."""

    visits: Int[Array, "horizon state action"]
    following: Int[Array, "horizon state action state"]
    reward: CompensatedSum
    to_go: CompensatedSum
    action_value: Float[Array, "horizon state action"]
    frozen: Int[Array, ""]
    problem: FiniteProblem


class SQIRL(AbstractMethod[FiniteProblem, Episodes, SQIRLState], AbstractTablePolicy[SQIRLState]):
    r"""Shallow Q-iteration via reinforcement learning: exploration by chance, learning apart.

    Iteration $i$ plays `episodes_per_iteration` (m) episodes: greedy in the frozen $Q^k_t$ at steps
    $t < i$, actions at random from step $i$ on. Regression on the random steps gives

    - $Q^1_t(s, a)$, from the sum of rewards until the end (the value of acting at random);
    - $Q^{j+1}_t(s, a)$, from $r + \max_{a'} Q^j_{t+1}(s', a')$, one step of fitted Q-iteration;

    then $Q^k_i$ is frozen. One update is one iteration, and as many of them as the horizon has
    steps make the whole policy, from $T m$ episodes. The regressor is the table of means, which is
    linear regression on one-hot features; a state and action that was never tried counts as worth
    nothing.

    It needs about $T^3 A^{\bar H}$ steps, $\bar H = \min_k k + \log_A(1 / \Delta_k^2)$ the
    *stochastic effective horizon* (`headwater.analysis.effective_horizon`).

    **Arguments:**

    - `lookahead`: k, how many actions are chosen before acting at random.
    - `episodes_per_iteration`: m, episodes in an iteration.
    - `reuse_samples`: learn from the random steps of all iterations so far, not of the latest
      alone.

    **Reference:** Laidlaw, Zhu, Russell, Dragan (2023), arXiv:2312.08369.

    **Differences from the paper:** the paper uses each iteration's data once
    (`reuse_samples=False`); its code keeps all of it, as the default here does. Means replace the
    network.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "laidlaw2024effective",
        summary="a few fitted steps of value iteration on top of the values of acting at random",
        parents=("GORP", "Fitted Q iteration"),
    )

    lookahead: int = integer(1)
    episodes_per_iteration: int = integer(16)
    reuse_samples: bool = flag(True)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> SQIRLState:
        problem.require_one_task("SQIRL")
        for name, value in (
            ("lookahead", self.lookahead),
            ("episodes_per_iteration", self.episodes_per_iteration),
        ):
            if value < 1:
                raise SpecificationError(f"SQIRL: {name} = {value} must be at least one")
        if self.lookahead > problem.horizon:
            raise SpecificationError(
                f"SQIRL: lookahead = {self.lookahead} looks further than an episode has steps, "
                f"{problem.horizon}"
            )
        visits = jnp.zeros(problem.sizes, jnp.int32)
        following = jnp.zeros((*problem.sizes, problem.states), jnp.int32)
        reward, to_go = no_sum(problem.sizes), no_sum(problem.sizes)
        value, frozen = jnp.zeros(problem.sizes), jnp.zeros((), jnp.int32)
        return SQIRLState(visits, following, reward, to_go, value, frozen, problem)

    def update(self, state: SQIRLState, data: Episodes, *, key: PRNGKeyArray):
        step = jnp.arange(state.problem.horizon)
        weight = jnp.broadcast_to((step >= state.frozen).astype(jnp.int32), data.action.shape)
        at = jnp.broadcast_to(step, data.action.shape), data.state[..., :-1], data.action
        to_go = jnp.flip(jnp.cumsum(jnp.flip(data.reward, -1), axis=-1), -1)

        def start(sums):
            return sums if self.reuse_samples else jax.tree.map(jnp.zeros_like, sums)

        visits = start(state.visits).at[at].add(weight)
        following = start(state.following).at[(*at, data.state[..., 1:])].add(weight)
        reward = add_to(start(state.reward), at, weight * data.reward)
        sums = add_to(start(state.to_go), at, weight * to_go)

        times = at_least_once(visits)
        action_value = sums.total / times
        for _ in range(self.lookahead - 1):
            value = jnp.max(action_value, axis=-1)
            value = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
            # Past the end nothing follows: there the mean of rewards is all there is, as in Q¹.
            action_value = (reward.total + jnp.einsum("hsat,ht->hsa", following, value)) / times
        kept = jnp.where((step == state.frozen)[:, None, None], action_value, state.action_value)
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "frozen": state.frozen.astype(jnp.float32),
            "tried": jnp.mean((visits > 0.0).astype(jnp.float32)),
        }
        frozen = jnp.minimum(state.frozen + 1, state.problem.horizon)
        after = SQIRLState(visits, following, reward, sums, kept, frozen, state.problem)
        return after, metrics

    def policy(self, state: SQIRLState, *, explore: bool):
        horizon, states, actions = state.problem.sizes
        greedy = greedy_table(state.action_value)[0]
        if not explore:
            return greedy
        late = (jnp.arange(horizon) >= state.frozen)[:, None, None]
        table = jnp.where(late, 1.0 / actions, greedy)
        return jnp.broadcast_to(table, (self.episodes_per_iteration, horizon, states, actions))
