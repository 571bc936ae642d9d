"""Exact planning in finite-horizon processes by backward induction, compiled.

All functions take one `FiniteProcess`; `jax.vmap` plans for stacked ones. A policy is an array
`[horizon, state, action]` of probabilities. One plan costs of the order of `S²AH` operations.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess


class Plan(eqx.Module):
    """A policy and what it is worth from every step, state and action on.

    **Arguments:** `policy`: probabilities of actions; `action_value`; `value`: one step longer,
    zero after the last.
    """

    policy: Float[Array, "horizon state action"]
    action_value: Float[Array, "horizon state action"]
    value: Float[Array, "horizon+1 state"]


@jax.jit
def optimal_values(process: FiniteProcess) -> Plan:
    """The best policy, deterministic; of equally good actions it takes the first."""

    def choose(transition, reward, following, _):
        return greedy_table(reward + transition @ following)

    return _backwards(process, choose)


@jax.jit
def policy_values(process: FiniteProcess, policy: Float[Array, "horizon state action"]) -> Plan:
    """What `policy` is worth. Raises `SpecificationError` if its shape is not the process's."""
    _require_shape(process, policy)

    def choose(transition, reward, following, probabilities):
        action_value = reward + transition @ following
        return probabilities, action_value, jnp.sum(probabilities * action_value, axis=-1)

    return _backwards(process, choose, policy)


@jax.jit
def soft_values(process: FiniteProcess, temperature: float | Float[Array, ""]) -> Plan:
    """The policy that is best in reward plus `temperature` times entropy, and its soft values.

    **Arguments:** `temperature`: above zero; entropy in nats.
    """

    def choose(transition, reward, following, _):
        action_value = reward + transition @ following
        best = jnp.max(action_value, axis=-1, keepdims=True)
        scaled = (action_value - best) / temperature
        value = best[:, 0] + temperature * jax.nn.logsumexp(scaled, axis=-1)
        return jax.nn.softmax(scaled, axis=-1), action_value, value

    return _backwards(process, choose)


@jax.jit
def robust_values(
    process: FiniteProcess,
    radius: float | Float[Array, ""] | Float[Array, "horizon state action"],
) -> Plan:
    """The policy that is best against the worst model near by, and its worst-case values.

    Every row of `transition` may be replaced, independently of the others, by any distribution
    within a total variation distance of `radius` (half of the L1 distance), also onto states that
    it never reaches.

    **Arguments:** `radius`: at least zero; one for all rows, or one for each.
    """

    def choose(transition, reward, following, near):
        return greedy_table(reward + worst_expectation(transition, following, near))

    each = jnp.broadcast_to(jnp.asarray(radius, process.reward.dtype), process.reward.shape)
    return _backwards(process, choose, each)


@jax.jit
def occupancy(
    process: FiniteProcess, policy: Float[Array, "horizon state action"]
) -> Float[Array, "horizon state action"]:
    """Probability with which `policy` is in a state and takes an action, at each step.

    Raises `SpecificationError` if the policy's shape is not the process's.
    """
    _require_shape(process, policy)

    def forwards(here, step):
        transition, probabilities = step
        visited = here[:, None] * probabilities
        return jnp.einsum("sa,sat->t", visited, transition), visited

    return jax.lax.scan(forwards, process.initial, (process.transition, policy))[1]


@jax.jit
def expected_return(
    process: FiniteProcess, policy: Float[Array, "horizon state action"]
) -> Float[Array, ""]:
    """Expected sum of rewards of an episode of `policy`, exact.

    Raises `SpecificationError` if the policy's shape is not the process's.
    """
    return jnp.dot(process.initial, policy_values(process, policy).value[0])


def uniform_policy(process: FiniteProcess) -> Float[Array, "horizon state action"]:
    """The policy that takes every action equally often."""
    return jnp.full_like(process.reward, 1.0 / process.actions)


def _backwards(
    process: FiniteProcess,
    choose: Callable[..., tuple[Array, Array, Array]],
    extra: Float[Array, "horizon state action"] | None = None,
) -> Plan:
    """Backward induction.

    **Arguments:** `choose`: from a step's transitions and rewards, the values of the next step's
    states and the step's part of `extra`, to policy, action values and values.
    """

    def one(following, step):
        transition, reward, here = step
        policy, action_value, value = choose(transition, reward, following, here)
        return value, (policy, action_value, value)

    _, (policy, action_value, value) = jax.lax.scan(
        one,
        jnp.zeros_like(process.initial),
        (process.transition, process.reward, extra),
        reverse=True,
    )
    return Plan(policy, action_value, jnp.concatenate([value, jnp.zeros_like(value[:1])]))


def greedy_table(
    action_value: Float[Array, "*step state action"],
) -> tuple[
    Float[Array, "*step state action"],
    Float[Array, "*step state action"],
    Float[Array, "*step state"],
]:
    """Policy, action values and values of the best action; of equally good ones the first."""
    best = jnp.argmax(action_value, axis=-1)
    policy = jax.nn.one_hot(best, action_value.shape[-1], dtype=action_value.dtype)
    return policy, action_value, jnp.max(action_value, axis=-1)


def worst_expectation(
    transition: Float[Array, "state action state"],
    following: Float[Array, " state"],
    radius: Float[Array, "state action"],
) -> Float[Array, "state action"]:
    """Lowest expectation of `following` under any row within `radius` in total variation.

    The worst row is known exactly: it takes the mass from the best states and gives it to the
    worst, also where the row never leads.
    """
    order = jnp.argsort(following, descending=True)
    mass, ordered_values = transition[:, :, order], following[order]
    before = jnp.cumsum(mass, axis=-1) - mass
    moved = jnp.clip(radius[:, :, None] - before, 0.0, mass)
    # Mass of the worst state that is moved only comes back to it.
    return transition @ following - moved @ (ordered_values - ordered_values[-1])


def _require_shape(process: FiniteProcess, policy: Float[Array, "horizon state action"]) -> None:
    if policy.shape != process.reward.shape:
        raise SpecificationError(
            f"the policy has shape {policy.shape}, but the process has (horizon, state, action) = "
            f"{process.reward.shape}"
        )
