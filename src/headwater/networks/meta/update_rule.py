"""A recurrent network that says how an agent is to change, from the episodes that it played."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.networks.mlp import MLP

_EMBEDDING = (16,)
"""Hidden layers of the network that makes one number of a prediction."""


class UpdateRule(eqx.Module):
    """Reads an episode from its end to its start, and says at each step what is to be learned.

    **Arguments:** `predictions`: entries of what an agent predicts in each state; `recurrent_size`:
    units that remember the rest of the episode.
    """

    embedding: MLP
    cell: eqx.nn.GRUCell
    head: MLP

    def __init__(self, predictions: int, recurrent_size: int, *, key: PRNGKeyArray):
        embedding_key, cell_key, head_key = jax.random.split(key, 3)
        self.embedding = MLP(predictions, 1, _EMBEDDING, key=embedding_key, initialiser="lecun")
        self.cell = eqx.nn.GRUCell(7, recurrent_size, key=cell_key)
        self.head = MLP(recurrent_size, 1 + predictions, (), key=head_key, initialiser="lecun")

    def __call__(
        self,
        reward: Float[Array, " step"],
        probability: Float[Array, " step"],
        prediction: Float[Array, "step prediction"],
        clock: Float[Array, "2"],
    ) -> tuple[Float[Array, " step"], Float[Array, "step prediction"]]:
        """How much more likely each action is to become, and the logits of what to predict.

        **Arguments:** of one episode: `probability`: of the action that was taken; `prediction`: a
        distribution, in each state; `clock`: what is told of the lifetime, see `clock_of`.
        """
        last = jnp.arange(reward.shape[0]) == reward.shape[0] - 1
        here = self.embedding(prediction)[:, 0]
        following = jnp.where(last, 0.0, jnp.roll(here, -1))
        columns = [reward, last.astype(jnp.float32), probability, here, following]
        columns += [jnp.broadcast_to(clock[i], reward.shape) for i in range(2)]

        def read(memory, seen):
            memory = self.cell(seen, memory)
            return memory, memory

        start = jnp.zeros(self.cell.hidden_size)
        seen = jnp.stack(columns, axis=-1)
        memories = jax.lax.scan(read, start, seen, reverse=True, unroll=len(seen) == 1)[1]
        found = self.head(memories)
        return found[:, 0], found[:, 1:]


def clock_of(step: Array, lifetime: Array) -> Float[Array, "2"]:
    """What a rule is told of a lifetime: the share of it that has passed, and its logarithm."""
    length = jnp.asarray(lifetime, jnp.float32)
    return jnp.stack([jnp.minimum(step / length, 1.0), jnp.log(length)])
