"""How agents fare that learn by a learned rule."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.method import AbstractMethod, AbstractUpdateRule
from headwater.ops.tabular.planning import expected_return


class Lifetimes(NamedTuple):
    """What agents earned while they learned, one in each task.

    **Arguments:** `returns`: exact expected returns after each update; `entropy`: of the policies,
    in nats, the mean over steps and states.
    """

    returns: Float[Array, "task update"]
    entropy: Float[Array, "task update"]


def lifetimes(
    method: AbstractMethod, state: Any, tasks: FiniteProcess, lifetime: int, *, key: PRNGKeyArray
) -> Lifetimes:
    """Lets an agent learn in each of `tasks`, from nothing, by the rule that `state` holds.

    **Arguments:** `tasks`: with a leading axis; `lifetime`: updates of each agent. Raises
    `SpecificationError` if the method learns no rule.
    """
    if not isinstance(method, AbstractUpdateRule):
        raise SpecificationError(
            f"{type(method).__name__} learns no update rule: take a method such as TALPG"
        )

    def one(task, key):
        policies = method.apply_rule(state, task, lifetime, key=key)
        returns = jax.vmap(lambda policy: expected_return(task, policy))(policies)
        surprise = -jnp.log(jnp.maximum(policies, 1e-30))
        entropy = jnp.mean(jnp.sum(policies * surprise, axis=-1), axis=(-2, -1))
        return returns, entropy

    keys = jax.random.split(key, tasks.reward.shape[0])
    return Lifetimes(*jax.vmap(one)(tasks, keys))
