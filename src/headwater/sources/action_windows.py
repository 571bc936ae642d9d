"""Windows of observations around logged actions, from which actions can be inferred."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Action, ActionWindows
from headwater.core.source import AbstractSource
from headwater.sources.replay import NoState


class ActionWindowReplay(AbstractSource[NoState, ActionWindows]):
    """Draws windows around the actions of `rows` uniformly, with replacement.

    The columns of the log are kept as they are, and windows are cut out of them when drawn.

    **Arguments:** `observations`, `next_observations`: `[row, observation]`; `actions`: `[row, …]`;
    `first`: the first row of the episode of each row, `[row]`; `last`: the last one of it whose
    next observation may be read, `[row]`; `rows`: those that are drawn; `history`: earlier
    observations in a window; `future`: later ones; `batch_size`: windows per draw.
    """

    observations: Float[Array, "row observation"]
    next_observations: Float[Array, "row observation"]
    actions: Action
    first: Int[Array, " row"]
    last: Int[Array, " row"]
    rows: Int[Array, " drawn"]
    history: int = eqx.field(static=True, default=1)
    future: int = eqx.field(static=True, default=1)
    batch_size: int = eqx.field(static=True, default=256)

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        chosen = jax.random.randint(key, (self.batch_size,), 0, self.rows.shape[0])
        return state, self.windows(self.rows[chosen])

    def windows(self, rows: Int[Array, " chosen"]) -> ActionWindows:
        """The windows around the actions of the given rows of the log."""
        back = jnp.arange(self.history, -1, -1)
        first = jnp.broadcast_to(self.first[rows][:, None], (rows.shape[0], back.shape[0]))
        seen = self.observations[jnp.maximum(rows[:, None] - back[None, :], first)]
        ahead = jnp.arange(self.future)
        last = jnp.broadcast_to(self.last[rows][:, None], (rows.shape[0], self.future))
        following = self.next_observations[jnp.minimum(rows[:, None] + ahead[None, :], last)]
        return ActionWindows(jnp.concatenate([seen, following], axis=1), self.actions[rows])
