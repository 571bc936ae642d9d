"""A network that predicts the reward of arms, trained a pull at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.networks.mlp import MLP


class RewardNetwork(eqx.Module):
    """The network as it is, and the number of pulls it has seen."""

    network: MLP
    pulls: Int[Array, ""]


def begin_network(
    problem: Arms, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray
) -> RewardNetwork:
    """Before any pull."""
    size = problem.arms * max(problem.context_size, 1) + problem.feature_size
    return RewardNetwork(MLP(size, 1, hidden_sizes, key=key), jnp.zeros((), jnp.int32))


def block_inputs(
    context: Float[Array, " context"], features: Float[Array, "arm feature"]
) -> Float[Array, "arm size"]:
    """For each arm the context (or a one) in a block of its own, zeros elsewhere, its features."""
    arms = features.shape[0]
    own = context if context.shape[0] else jnp.ones(1)
    blocks = jnp.eye(arms)[:, :, None] * own[None, None, :]
    return jnp.concatenate([blocks.reshape(arms, -1), features], axis=1)


def outputs(
    state: RewardNetwork, context: Float[Array, " context"], features: Float[Array, "arm feature"]
) -> Float[Array, " arm"]:
    """What the network says of each arm."""
    return state.network(block_inputs(context, features))[:, 0]


def descend_once(state: RewardNetwork, data: Pulls, loss, rate: Float[Array, ""]):
    """One step of gradient descent, with the mean loss before it.

    **Arguments:** `loss`: from outputs and rewards `[row]` to losses `[row]`; `rate`: of the step.
    """
    inputs = jax.vmap(block_inputs)(data.context, data.features)
    own = jnp.take_along_axis(inputs, data.arm[:, None, None], axis=1)[:, 0]

    def mean_loss(network):
        return jnp.mean(loss(network(own)[:, 0], data.reward))

    value, gradients = jax.value_and_grad(mean_loss)(state.network)
    network = jax.tree.map(lambda x, g: x - rate * g, state.network, gradients)
    return RewardNetwork(network, state.pulls + data.arm.shape[0]), value


def falling_rate(rate: float | Array, pulls: Int[Array, ""]) -> Float[Array, ""]:
    r"""$\eta / \sqrt{1 + t / 500}$ after $t$ pulls."""
    return rate / jnp.sqrt(1.0 + pulls / 500.0)
