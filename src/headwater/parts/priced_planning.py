"""Planning under constraints by prices of costs, compiled."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.finite import FiniteProcess
from headwater.ops.tabular.approachability import mixed_policy, response
from headwater.ops.tabular.planning import occupancy

Objective = Callable[[Float[Array, ""]], Float[Array, ""]]
"""Concave and not falling, of the expected reward."""
Constraint = Callable[[Float[Array, " constraint"]], Float[Array, " limit"]]
"""Convex and not falling, of the expected costs; kept to where none is above zero."""


class PricedPlan(eqx.Module):
    """What a few rounds of pricing came to.

    **Arguments:** `price`: of each limit, after the last round; `average`: the policy that is best
    for the average price; `mixture`: one that earns and spends what the rounds' policies do on
    average; `earned`, `spent`: by the mixture, weighted towards later rounds.
    """

    price: Float[Array, " limit"]
    average: Float[Array, "horizon state action"]
    mixture: Float[Array, "horizon state action"]
    mean_reward: Float[Array, ""]
    spent: Float[Array, " constraint"]


def price_costs(
    process: FiniteProcess,
    price: Float[Array, " limit"],
    *,
    objective: Objective,
    constraint: Constraint,
    rounds: int,
    rate: float | Float[Array, ""],
) -> PricedPlan:
    r"""Maximises $f(R)$ subject to $g(C) \le 0$, R and C the expected sums of reward and costs.

    In every round the policy is best for $f'(R) r - \lambda \cdot g'(C) c$ at the average R and C
    so far, and the price moves by gradient ascent, $\lambda \leftarrow \max\{0, \lambda +
    \text{rate} \cdot (g(C) + g'(C)(C_\pi - C))\}$. With $f(R) = R$ and $g(C) = C - \text{budgets}$
    this is the usual Lagrangian method; the mixture approaches the best, though each policy is
    deterministic.

    **Arguments:** `process`: with costs; `price`: to start from; `rounds`; `rate`: of the ascent.
    """
    cost = process.cost
    assert cost is not None

    def one(carry, time):
        price, mean_reward, spent = carry
        limits, pull = constraint(spent), jax.jacobian(constraint)(spent)
        weight = jax.grad(objective)(mean_reward)
        policy = response(process, weight * process.reward - cost @ (price @ pull))
        visited = occupancy(process, policy)
        new_reward = jnp.sum(visited * process.reward)
        now_spent = jnp.einsum("hsa,hsac->c", visited, cost)
        price = jnp.maximum(price + rate * (limits + pull @ (now_spent - spent)), 0.0)
        # The first round's policy replaces the guess that its gradients were taken at.
        share = 2.0 / (time + 1.0)
        mean_reward += share * (new_reward - mean_reward)
        spent += share * (now_spent - spent)
        return (price, mean_reward, spent), (price, visited)

    # Gradients of the first round are taken at what the uniform policy earns and spends.
    visited = occupancy(process, jnp.full_like(process.reward, 1.0 / process.actions))
    first = (
        price,
        jnp.sum(visited * process.reward),
        jnp.einsum("hsa,hsac->c", visited, cost),
    )
    times = jnp.arange(1, rounds + 1, dtype=jnp.float32)
    (price, mean_reward, spent), (prices, visits) = jax.lax.scan(one, first, times)
    pull, weight = jax.jacobian(constraint)(spent), jax.grad(objective)(mean_reward)
    average = jnp.mean(prices, axis=0)
    best = response(process, weight * process.reward - cost @ (average @ pull))
    # The weights that the averages above give to the rounds.
    shares = times / jnp.sum(times)
    mixture = mixed_policy(jnp.einsum("t,thsa->hsa", shares, visits))
    return PricedPlan(price, best, mixture, mean_reward, spent)
