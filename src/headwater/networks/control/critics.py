"""Value networks."""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.spaces import Spaces
from headwater.networks.mlp import MLP, Ensemble


class Critic(eqx.Module):
    """An action value: of observation and action joined, or one output per discrete action."""

    network: MLP
    discrete: bool = eqx.field(static=True)

    def __init__(
        self, spaces: Spaces, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray, **options
    ):
        self.discrete = spaces.discrete
        inputs = spaces.observation_size + (0 if self.discrete else spaces.action_size)
        outputs = spaces.action_size if self.discrete else 1
        self.network = MLP(inputs, outputs, hidden_sizes, key=key, **options)

    def __call__(
        self,
        observation: Float[Array, "*batch observation"],
        action: Float[Array, "*batch action"] | Int[Array, "*batch"],
    ) -> Float[Array, "*batch"]:
        if self.discrete:
            return jnp.take_along_axis(self.values(observation), action[..., None], -1)[..., 0]
        return self.network(jnp.concatenate([observation, action], axis=-1))[..., 0]

    def values(
        self, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch action"]:
        """The value of every discrete action."""
        return self.network(observation)


class StateValue(eqx.Module):
    """The value of an observation."""

    network: MLP

    def __init__(
        self, spaces: Spaces, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray, **options
    ):
        self.network = MLP(spaces.observation_size, 1, hidden_sizes, key=key, **options)

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch"]:
        return self.network(observation)[..., 0]


def critics(
    spaces: Spaces, hidden_sizes: tuple[int, ...], members: int, *, key: PRNGKeyArray, **options
) -> Ensemble:
    """An ensemble of `Critic`s; calling it gives `[member, *batch]`."""
    return Ensemble(lambda k: Critic(spaces, hidden_sizes, key=k, **options), members, key=key)


def candidate_values(
    ensemble: Ensemble,
    observation: Float[Array, "*batch observation"],
    actions: Float[Array, "candidate *batch action"] | Int[Array, "candidate *batch"],
) -> Float[Array, "member candidate *batch"]:
    """What the critics of `ensemble` think of several actions in each observation.

    Discrete critics are evaluated once, whatever the number of candidates.
    """
    critic = ensemble.stacked
    assert isinstance(critic, Critic)
    if critic.discrete:
        values = jnp.moveaxis(ensemble.each(_all_values(observation)), -1, 1)
        chosen = jnp.broadcast_to(actions[None], (values.shape[0], *actions.shape))
        return jnp.take_along_axis(values, chosen, axis=1)
    # One long matrix is multiplied faster than a stack of short ones.
    repeated = jnp.broadcast_to(observation[None], (actions.shape[0], *observation.shape))
    rows = ensemble(
        repeated.reshape(-1, observation.shape[-1]), actions.reshape(-1, actions.shape[-1])
    )
    return rows.reshape(rows.shape[0], *actions.shape[:-1])


_Network = TypeVar("_Network", Critic, StateValue, Ensemble)


def raised(network: _Network, level: float | Float[Array, ""]) -> _Network:
    """`network` with values that are larger by `level`; its last layer is linear."""

    def last(network):
        inner = network.stacked if isinstance(network, Ensemble) else network
        assert isinstance(inner, Critic | StateValue)
        return inner.network.biases[-1]

    return eqx.tree_at(last, network, last(network) + level)


def alike(one: Ensemble | None, other: Ensemble | None) -> bool:
    """Whether two ensembles have the same parts, of the same shapes; shapes alone may be given."""
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    return all(a.shape == b.shape for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))


def divided(ensemble: Ensemble, scale: Float[Array, ""]) -> Ensemble:
    """`ensemble` with values that are `scale` times smaller; its last layers are linear."""

    def last(ensemble: Ensemble):
        assert isinstance(ensemble.stacked, Critic)
        network = ensemble.stacked.network
        return network.weights[-1], network.biases[-1]

    return eqx.tree_at(last, ensemble, tuple(part / scale for part in last(ensemble)))


def _all_values(observation: Array) -> Callable[[eqx.Module], Array]:
    def values(critic: eqx.Module) -> Array:
        assert isinstance(critic, Critic)
        return critic.values(observation)

    return values
