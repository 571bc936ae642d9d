"""A network that says which arm to pull next, and which to recommend, for any number of arms."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.networks.mlp import MLP

_INPUTS = 8
"""What the network sees of each arm."""


class Sampler(eqx.Module):
    """Logits of arms from how often each was pulled and what it earned.

    All arms go through the same network, so that their order means nothing. It begins by pulling
    every arm, and recommending every arm, with equal probability.

    **Arguments:** `hidden_sizes`: units of each hidden layer.
    """

    network: MLP

    def __init__(self, hidden_sizes: tuple[int, ...], *, key: PRNGKeyArray):
        self.network = MLP(
            _INPUTS,
            2,
            hidden_sizes,
            key=key,
            activation="tanh",
            initialiser="lecun",
            last_scale=1e-3,
        )

    def __call__(
        self,
        pulls: Float[Array, "*batch arm"],
        earned: Float[Array, "*batch arm"],
        left: Float[Array, "*batch"],
    ) -> tuple[Float[Array, "*batch arm"], Float[Array, "*batch arm"]]:
        """Logits of pulling and of recommending each arm.

        **Arguments:** `pulls`: of each arm so far; `earned`: the sum of its rewards, zero or one
        each; `left`: the share of the budget that is left.
        """
        mean = (earned + 1.0) / (pulls + 2.0)
        tried = jnp.log1p(pulls)
        # What each arm has to beat: the best of the others.
        first = jax.nn.one_hot(jnp.argmax(mean, axis=-1), mean.shape[-1])
        top, second = (jnp.max(x, axis=-1, keepdims=True) for x in (mean, mean - first))
        rival = top + first * (second - top)
        spread = jnp.sqrt(mean * (1.0 - mean) / (pulls + 3.0))
        whole = (jnp.mean(mean, -1), jnp.max(tried, -1), left)
        columns = [mean, tried, mean - rival, spread, 1.0 / (pulls + 1.0)]
        columns += [jnp.broadcast_to(x[..., None], mean.shape) for x in whole]
        # What is added to all arms alike changes nothing, so that its slope would be mere rounding.
        network = eqx.tree_at(lambda n: n.biases[-1], self.network, jnp.zeros(2))
        found = network(jnp.stack(columns, axis=-1))
        return found[..., 0], found[..., 1]
