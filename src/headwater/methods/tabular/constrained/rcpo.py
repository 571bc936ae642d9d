"""Reward-constrained policy optimisation."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.tabular.experience import require_budgets, require_costs


class RCPOState(eqx.Module):
    """Preferences of actions, values of states, prices of the budgets."""

    logits: Float[Array, "state action"]
    value: Float[Array, " state"]
    optimiser: optax.OptState
    price: Float[Array, " constraint"]
    problem: FiniteProblem


class RCPO(AbstractMethod[FiniteProblem, Episodes, RCPOState], AbstractTablePolicy[RCPOState]):
    r"""An actor-critic for the reward less priced costs, whose prices move slowest.

    With $\tilde r = r - \lambda \cdot c$ and the sum G of it over the rest of the episode, the
    actor ascends $\ln \pi(a|s)\,(G - V(s))$ plus entropy, the critic V descends $(G - V(s))^2$, and
    $\lambda \leftarrow \max\{0, \lambda + \text{price rate} \cdot (C - \text{budget})\}$ with the
    costs C of the episodes just played. It explores by its own randomness alone: the model-free
    baseline of constrained methods that explore on purpose.

    **Arguments:**

    - `learning_rate`: of actor and critic, by Adam.
    - `multiplier_learning_rate`: of the prices.
    - `entropy_weight`: of the entropy in the actor's objective.
    - `value_weight`: of the critic's error.
    - `episodes_per_update`: episodes that are played with one policy before each update.

    **Reference:** Tessler, Mankowitz, Mannor (2019), arXiv:1805.11074.

    **Differences from the paper:** tables instead of networks, whole episodes instead of
    bootstrapped steps, no discount, no step in the observation.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "tessler2019reward",
        summary="actor-critic with slowly moving prices of costs",
        parents=("Actor-critic",),
    )

    learning_rate: float = non_negative(0.03)
    multiplier_learning_rate: float = non_negative(0.01)
    entropy_weight: float = non_negative(0.01)
    value_weight: float = non_negative(0.5)
    episodes_per_update: int = integer(1)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> RCPOState:
        problem.require_one_task("RCPO")
        budgets = require_budgets(problem, "RCPO")
        logits = jnp.zeros((problem.states, problem.actions))
        value = jnp.zeros(problem.states)
        optimiser = optax.adam(self.learning_rate).init((logits, value))
        return RCPOState(logits, value, optimiser, jnp.zeros_like(budgets), problem)

    def update(self, state: RCPOState, data: Episodes, *, key: PRNGKeyArray):
        budgets = require_budgets(state.problem, "RCPO")
        costs = require_costs(data, budgets.shape[0], "RCPO")
        reward = data.reward - costs @ state.price
        ahead = jnp.flip(jnp.cumsum(jnp.flip(reward, axis=-1), axis=-1), axis=-1)
        here = data.state[..., :-1]

        def loss(tables):
            logits, value = tables
            log_probabilities = jax.nn.log_softmax(logits)
            advantage = ahead - value[here]
            gain = log_probabilities[here, data.action] * jax.lax.stop_gradient(advantage)
            entropy = -jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)[here]
            error = jnp.mean(jnp.square(advantage))
            actor = -jnp.mean(gain + self.entropy_weight * entropy)
            return actor + self.value_weight * error, error

        tables = state.logits, state.value
        grad, error = jax.grad(loss, has_aux=True)(tables)
        step, optimiser = optax.adam(self.learning_rate).update(grad, state.optimiser)
        step: Any = step
        logits, value = state.logits + step[0], state.value + step[1]
        spent = jnp.mean(jnp.sum(costs, axis=-2).reshape(-1, budgets.shape[0]), axis=0)
        price = jnp.maximum(state.price + self.multiplier_learning_rate * (spent - budgets), 0.0)
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "cost": jnp.mean(spent),
            "price": jnp.mean(price),
            "value_error": error,
        }
        return RCPOState(logits, value, optimiser, price, state.problem), metrics

    def policy(self, state: RCPOState, *, explore: bool):
        table = jnp.broadcast_to(jax.nn.softmax(state.logits), state.problem.sizes)
        if not explore:
            return table
        return jnp.broadcast_to(table, (self.episodes_per_update, *table.shape))
