"""A network that says what a policy has to pay for drifting away from what it was."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.networks.mlp import MLP

_MARGIN = 1e-6
"""What the network has to exceed, so that the drift is flat where nothing has changed."""


class Drift(eqx.Module):
    r"""The drift $f(r, A) = \max(g(x) - \xi, 0)$ with a network $g$ without biases.

    All inputs $x$ vanish at $r = 1$, so that $f$ and its slope do too: the policy is still improved
    by a small step in the direction of the advantage, whatever was learned.

    Its inputs come a second time, multiplied by the share of the lifetime that has passed.

    **Arguments:** `hidden_size`: units of each of its two hidden layers.
    """

    weights: tuple[Float[Array, "fan_in fan_out"], ...]

    def __init__(self, hidden_size: int, *, key: PRNGKeyArray):
        network = MLP(
            16,
            1,
            (hidden_size, hidden_size),
            key=key,
            activation="tanh",
            initialiser="lecun",
        )
        self.weights = network.weights

    def __call__(
        self,
        ratio: Float[Array, "*batch"],
        advantage: Float[Array, "*batch"],
        passed: Float[Array, ""],
    ) -> Float[Array, "*batch"]:
        """**Arguments:** `ratio`: $r$, of probabilities now to those before, above zero;
        `advantage`: $A$; `passed`: the share of the lifetime that has passed, or 0
        where it is not to be known."""
        less, log = 1.0 - ratio, jnp.log(ratio)
        plain = (less, less**2, log, log**2)
        inputs = jnp.stack([*plain, *(x * advantage for x in plain)], axis=-1)
        inputs = jnp.concatenate([inputs, passed * inputs], axis=-1)
        for weight in self.weights[:-1]:
            inputs = jnp.tanh(inputs @ weight)
        return jax.nn.relu((inputs @ self.weights[-1])[..., 0] - _MARGIN)
