"""Value networks."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.spaces import Spaces
from headwater.networks.mlp import MLP, Ensemble


class Critic(eqx.Module):
    """An action value: of observation and action joined, or one output per discrete action."""

    network: MLP
    discrete: bool = eqx.field(static=True)

    def __init__(self, spaces: Spaces, widths: tuple[int, ...], *, key: PRNGKeyArray, **options):
        self.discrete = spaces.discrete
        inputs = spaces.observation_size + (0 if self.discrete else spaces.action_size)
        outputs = spaces.action_size if self.discrete else 1
        self.network = MLP(inputs, outputs, widths, key=key, **options)

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

    def __init__(self, spaces: Spaces, widths: tuple[int, ...], *, key: PRNGKeyArray, **options):
        self.network = MLP(spaces.observation_size, 1, widths, key=key, **options)

    def __call__(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch"]:
        return self.network(observation)[..., 0]


def critics(
    spaces: Spaces, widths: tuple[int, ...], members: int, *, key: PRNGKeyArray, **options
) -> Ensemble:
    """An ensemble of `Critic`s; calling it gives `[member, *batch]`."""
    return Ensemble(lambda k: Critic(spaces, widths, key=k, **options), members, key=key)
