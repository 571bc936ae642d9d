"""Follow the regularised leader in linear processes, with loss estimates of small magnitude."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive, probability
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.bandits.distributions import exponential_weights, with_uniform
from headwater.ops.linear.least_squares import FeatureSums, add_episodes, features_of, no_sums
from headwater.ops.linear_algebra import solve

_NEWTON_STEPS = 30
LossEstimator = Literal["magnitude_reduced", "plain"]


class LinearFTRLState(eqx.Module):
    """Features, sums of all data, and of each action the estimated losses less bonuses in all."""

    features: Float[Array, "horizon state action feature"]
    sums: FeatureSums
    losses: Float[Array, "horizon state action"]
    problem: FiniteProblem


class LinearFTRL(
    AbstractMethod[FiniteProblem, Episodes, LinearFTRLState], AbstractTablePolicy[LinearFTRLState]
):
    r"""Plays in each state the regularised leader of the losses that its actions were estimated at.

    Losses may change with every episode; of each update's policy one episode is learned from, and
    the others stand for a simulator. With $\phi$ of the former at step $h$, its later losses $L$
    and $\Sigma^\dagger = (\gamma I + \hat E[\phi \phi^\top])^{-1}$ of some of the others, $z(s, a)
    = \phi(s, a)^\top \Sigma^\dagger \phi$ and $\hat Q = z L$ is the plain estimate, as low as
    $-H \max |z|$. The magnitude-reduced one is $z L - H \min(z, 0) + H \hat E[\min(z, 0)]$, where
    the last part is the mean over the rest of the episodes: its expectation is the same and its
    first two parts are positive, so that larger learning rates are stable. Bonuses $\beta
    (\|\phi(s, a)\|^2_{\Sigma^\dagger} + E_{a' \sim \pi} \|\phi(s, a')\|^2_{\Sigma^\dagger})$ and
    $1 + 1/H$ times those that follow are taken off.

    **Arguments:**

    - `learning_rate`: η.
    - `regulariser`: the negative entropy, or the log-barrier $\sum_a \ln(1/p_a)$, which bears
      estimates that are arbitrarily negative.
    - `loss_estimator`: magnitude-reduced or plain.
    - `exploration_rate`: with which an action is drawn uniformly.
    - `bonus_scale`: β.
    - `ridge`: γ.
    - `num_simulated`: episodes of each policy beside the one that is learned from.

    **Reference:** Dai, Luo, Wei and Zimmert (2023), arXiv:2301.12942.

    **Differences from the paper:** the simulator's trajectories are episodes of the same process;
    $\Sigma^\dagger$ is an inverse and not resampled geometrically; what bonuses follow is regressed
    on the features from all data, not simulated; $H$ is the steps that are left; a uniform share is
    mixed in. With fewer than three episodes the same serve for everything, which biases estimates.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "dai2023refined",
        summary="the regularised leader of loss estimates of small magnitude",
        parents=("EXP3",),
    )

    learning_rate: float = positive(0.1)
    regulariser: Literal["entropy", "log_barrier"] = choice("entropy")
    loss_estimator: LossEstimator = choice("magnitude_reduced")
    exploration_rate: float = probability(0.02)
    bonus_scale: float = non_negative(0.01)
    ridge: float = positive(1e-3)
    num_simulated: int = integer(40)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> LinearFTRLState:
        problem.require_one_task("LinearFTRL")
        features = features_of(problem, "LinearFTRL")
        losses = jnp.zeros(features.shape[:3])
        return LinearFTRLState(features, no_sums(features), losses, problem)

    def update(self, state: LinearFTRLState, data: Episodes, *, key: PRNGKeyArray):
        features, problem = state.features, state.problem
        steps = features.shape[0]
        action = data.action.reshape(-1, steps)
        visited = features[jnp.arange(steps), data.state.reshape(-1, steps + 1)[:, :-1], action]
        loss = 1.0 - problem.in_unit(jnp.asarray(data.reward)).reshape(-1, steps)[0]
        own, inner, outer = visited[0], visited[1::2], visited[2::2]
        if visited.shape[0] < 3:
            inner = outer = visited
        size = features.shape[-1]
        covariance = jnp.einsum("nhf,nhg->hfg", inner, inner) / inner.shape[0]
        inverse = jax.vmap(lambda x: solve(x + self.ridge * jnp.eye(size), jnp.eye(size)))(
            covariance
        )
        later = jnp.cumsum(loss[::-1])[::-1]
        found = estimates(self.loss_estimator, features, inverse, own, later, outer)
        sums = add_episodes(state.sums, features, data, problem)
        losses = state.losses + found - self._bonus(features, inverse, sums, self._policy(state))
        # Only differences between actions count, and these keep their digits.
        losses = losses - jnp.min(losses, axis=-1, keepdims=True)
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "lowest_estimate": jnp.min(found),
        }
        return LinearFTRLState(features, sums, losses, problem), metrics

    def policy(self, state: LinearFTRLState, *, explore: bool):
        if not explore:
            return self._leader(state)
        found = self._policy(state)
        return jnp.broadcast_to(found, (1 + self.num_simulated, *found.shape))

    def _leader(self, state: LinearFTRLState) -> Float[Array, "horizon state action"]:
        if self.regulariser == "entropy":
            return exponential_weights(state.losses, self.learning_rate)
        return log_barrier_leader(state.losses, self.learning_rate)

    def _policy(self, state: LinearFTRLState) -> Float[Array, "horizon state action"]:
        return with_uniform(self._leader(state), self.exploration_rate)

    def _bonus(self, features: Array, inverse: Array, sums: FeatureSums, policy: Array) -> Array:
        """Of each action, with those that follow, dilated."""
        steps, size = features.shape[0], features.shape[-1]
        norm = jnp.einsum("hsaf,hfg,hsag->hsa", features, inverse, features)
        own = self.bonus_scale * (norm + jnp.sum(policy * norm, axis=-1, keepdims=True))
        covariance = sums.covariance.total + jnp.eye(size)[None]

        def one(value, step):
            features, own, policy, covariance, following = step
            expected = features @ solve(covariance, following @ value)
            # A regression may go beyond what it is of.
            expected = jnp.clip(expected, 0.0, jnp.max(value))
            bonus = own + (1.0 + 1.0 / steps) * expected
            return jnp.sum(policy * bonus, axis=-1), bonus

        each = (features, own, policy, covariance, sums.following.total)
        start = jnp.zeros(features.shape[1])
        return jax.lax.scan(one, start, each, reverse=True)[1]


def estimates(
    estimator: LossEstimator,
    features: Float[Array, "horizon state action feature"],
    inverse: Float[Array, "horizon feature feature"],
    own: Float[Array, "horizon feature"],
    later: Float[Array, " horizon"],
    simulated: Float[Array, "episode horizon feature"],
) -> Float[Array, "horizon state action"]:
    """What one episode says of the losses of all actions.

    **Arguments:** `inverse`: Σ†; `own`: features of the episode, `later`: its losses from each step
    on; `simulated`: features of other episodes of the same policy.
    """
    turned = jnp.einsum("hsaf,hfg->hsag", features, inverse)
    product = jnp.einsum("hsaf,hf->hsa", turned, own)
    plain = product * later[:, None, None]
    if estimator == "plain":
        return plain
    left = jnp.arange(features.shape[0], 0, -1, dtype=plain.dtype)[:, None, None]
    others = jnp.minimum(jnp.einsum("hsaf,nhf->nhsa", turned, simulated), 0.0)
    return plain - left * jnp.minimum(product, 0.0) + left * jnp.mean(others, axis=0)


def log_barrier_leader(
    losses: Float[Array, "*some action"], rate: float | Float[Array, ""]
) -> Float[Array, "*some action"]:
    r"""The distribution that minimises $\eta \, p \cdot L + \sum_a \ln(1 / p_a)$."""
    scaled = rate * (losses - jnp.min(losses, axis=-1, keepdims=True))

    # Newton's method from below, where the sum is convex and at least one: it never overshoots.
    def step(_, shift):
        shares = 1.0 / (scaled + shift)
        excess = jnp.sum(shares, axis=-1, keepdims=True) - 1.0
        return shift + excess / jnp.sum(shares**2, axis=-1, keepdims=True)

    shift = jax.lax.fori_loop(0, _NEWTON_STEPS, step, jnp.ones_like(scaled[..., :1]))
    found = 1.0 / (scaled + shift)
    return found / jnp.sum(found, axis=-1, keepdims=True)
