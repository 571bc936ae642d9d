"""Off-policy learning of a policy over arms from logged pulls."""

import dataclasses
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, non_negative, positive, sizes
from headwater.core.method import AbstractArmPolicy, AbstractMethod, Info
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.networks.mlp import MLP
from headwater.ops.bandits.distributions import best_arms
from headwater.ops.control.gradient_steps import begin, descend
from headwater.parts.streaming import RunningMoments

_MOST_ROWS = 1_000_000
"""Rows after which scales of contexts and features stay as they are."""


class CRMState(eqx.Module):
    """The network of the policy and, where it is needed, one that predicts rewards, with Adam's.

    `context` and `features` have the scales of what was seen; `range` is that of rewards.
    """

    context: RunningMoments
    features: RunningMoments
    range: Float[Array, ""]
    policy: MLP
    rewards: MLP | None
    policy_optimiser: optax.OptState
    rewards_optimiser: optax.OptState | None


class CRM(AbstractMethod[Arms, Pulls, CRMState], AbstractArmPolicy[CRMState]):
    r"""Climbs an estimate of what the policy would have earned in the logged rounds.

    With the weight $w = \min(\pi(a|x)/p, M)$ of a row whose arm was pulled with probability $p$,
    a row says $w r$ (`ips`), $v + w (r - v) / \bar w$ with $v = \overline{w r} / \bar w$
    (`self_normalised`), or $\sum_a \pi(a|x) \hat r(x, a) + w (r - \hat r(x, a))$
    (`doubly_robust`), where $\hat r$ is a second network that learns rewards with the square loss
    at the same time. The loss is $-\bar u + \lambda \sqrt{V(u) / n}$ for what the $n$ rows of a
    batch say, $u$, with their variance $V$. The policy is a softmax over what a network says of
    each arm; it is judged by the arm it thinks best. Contexts and features are standardised by what
    was seen of them, and rewards divided by their range.

    **Arguments:**

    - `estimator`: which of the three. `ips` depends on the level of rewards (if they are all
      positive it imitates the log, if all negative it avoids what was logged); `self_normalised`
      does not, and `doubly_robust` only until $\hat r$ has learned it.
    - `max_weight`: $M$; infinite where weights are not clipped.
    - `variance_weight`: $\lambda$.
    - `learning_rate`: of Adam, of both networks.
    - `hidden_sizes`: of both networks.

    **Reference:** Swaminathan and Joachims (2015), Batch learning from logged bandit feedback
    through counterfactual risk minimization; the self-normalised estimator (2015) and the doubly
    robust one (Dudík, Langford and Li, 2011) as objectives.

    **Differences from the paper:** gradients of batches with Adam instead of bounds that are
    minimised one after the other; a network instead of a linear score; clipped from above only.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "swaminathan2015batch",
        summary="a policy over arms from logged pulls, by importance weights: clipped, "
        "self-normalised or doubly robust",
    )

    estimator: Literal["ips", "self_normalised", "doubly_robust"] = choice("doubly_robust")
    max_weight: float = positive(100.0, infinite=True)
    variance_weight: float = non_negative(0.1)
    learning_rate: float = positive(1e-3)
    hidden_sizes: tuple[int, ...] = sizes((64, 64))

    def init(self, problem: Arms, *, key: PRNGKeyArray) -> CRMState:
        policy_key, rewards_key = jax.random.split(key)
        adam = optax.adam(0.0)
        policy = self._network(problem, key=policy_key)
        rewards = None
        if self.estimator == "doubly_robust":
            rewards = self._network(problem, key=rewards_key)
        return CRMState(
            RunningMoments((problem.context_size,)),
            RunningMoments((problem.feature_size,)),
            jnp.asarray(problem.high - problem.low if problem.bounded else 1.0, jnp.float32),
            policy,
            rewards,
            begin(adam, policy),
            None if rewards is None else begin(adam, rewards),
        )

    def update(self, state: CRMState, data: Pulls, *, key: PRNGKeyArray):
        # What raises all arms alike has slopes of rounding alone, of which Adam would make steps.
        adam = optax.adam(self.learning_rate, eps=1e-5)
        rows, arms, size = data.features.shape
        context = _moments(state.context, data.context)
        features = _moments(state.features, data.features.reshape(rows * arms, size))
        data = dataclasses.replace(
            data,
            context=context.standardised(data.context),
            features=features.standardised(data.features),
            reward=data.reward / state.range,
        )
        predicted, rewards, rewards_optimiser = None, state.rewards, state.rewards_optimiser
        metrics = {}
        if rewards is not None and rewards_optimiser is not None:
            predicted = _each_arm(rewards, data.context, data.features)
            error, slopes = jax.value_and_grad(_square_loss)(rewards, data)
            rewards, rewards_optimiser = descend(adam, slopes, rewards_optimiser, rewards)
            metrics["reward_loss"] = error
        (loss, (value, largest)), slopes = jax.value_and_grad(self._loss, has_aux=True)(
            state.policy, data, predicted
        )
        policy, policy_optimiser = descend(adam, slopes, state.policy_optimiser, state.policy)
        metrics |= {
            "loss": loss,
            "estimated_reward": value * state.range,
            "largest_weight": largest,
        }
        return CRMState(
            context, features, state.range, policy, rewards, policy_optimiser, rewards_optimiser
        ), metrics

    def probabilities(
        self, state: CRMState, context: Array, features: Array, *, key, explore: bool
    ) -> Float[Array, " arm"]:
        scores = _each_arm(
            state.policy, state.context.standardised(context), state.features.standardised(features)
        )
        return jax.nn.softmax(scores) if explore else best_arms(scores)

    def _network(self, problem: Arms, *, key: PRNGKeyArray) -> MLP:
        if problem.feature_size:
            size, outputs = problem.context_size + problem.feature_size, 1
        else:
            size, outputs = max(problem.context_size, 1), problem.arms
        return MLP(size, outputs, self.hidden_sizes, key=key)

    def _loss(self, policy: MLP, data: Pulls, predicted: Float[Array, "row arm"] | None):
        """The loss, and for the log what the policy is estimated to earn and the largest weight."""
        chances = jax.nn.softmax(_each_arm(policy, data.context, data.features))
        weight = jnp.minimum(_of_arm(chances, data.arm) / data.propensity, self.max_weight)
        if predicted is not None:
            known = jnp.sum(chances * predicted, axis=-1)
            said = known + weight * (data.reward - _of_arm(predicted, data.arm))
        elif self.estimator == "self_normalised":
            mean = jnp.maximum(jnp.mean(weight), 1e-6)
            value = jnp.mean(weight * data.reward) / mean
            said = value + weight * (data.reward - value) / mean
        else:
            said = weight * data.reward
        # The small number is for rows that all say the same, where a root has no slope.
        spread = jnp.sqrt(jnp.var(said) / said.shape[0] + 1e-12)
        value = jnp.mean(said)
        return -value + self.variance_weight * spread, (value, jnp.max(weight))


def _moments(known: RunningMoments, rows: Float[Array, "row number"]) -> RunningMoments:
    counts = known.count < _MOST_ROWS
    return jax.tree.map(lambda new, old: jnp.where(counts, new, old), known.with_many(rows), known)


def _each_arm(
    network: MLP, context: Float[Array, "*row context"], features: Float[Array, "*row arm feature"]
) -> Float[Array, "*row arm"]:
    """What the network says of each arm: from the context, and from the arm's features if any."""
    *rows, arms, size = features.shape
    if not size:
        return network(context if context.shape[-1] else jnp.ones((*rows, 1)))
    shown = jnp.broadcast_to(context[..., None, :], (*rows, arms, context.shape[-1]))
    return network(jnp.concatenate([shown, features], axis=-1))[..., 0]


def _of_arm(each: Float[Array, "row arm"], arm) -> Float[Array, " row"]:
    return jnp.take_along_axis(each, arm[:, None], axis=-1)[:, 0]


def _square_loss(rewards: MLP, data: Pulls) -> Float[Array, ""]:
    said = _of_arm(_each_arm(rewards, data.context, data.features), data.arm)
    return jnp.mean((said - data.reward) ** 2)
