"""Experience as it happens: one step, used once."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Transition
from headwater.core.source import AbstractSource
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.interaction import Act, Copies, begin, interact


class Streaming(eqx.Module):
    """Where the environment is, and how many steps it took."""

    copies: Copies
    steps: Int[Array, ""]


class Stream(AbstractSource[Streaming, Transition]):
    """Takes one step in a pure-JAX environment and returns it. Nothing is kept.

    Episodes follow each other. Under `vmap` there are as many streams as seeds.

    **Arguments:** `environment`; `act`: from an observation and a key to an action, for methods
    that predict and do not act; by default the method itself acts, exploring.
    """

    environment: AbstractEnvironment
    act: Act | None = eqx.field(static=True, default=None)

    def init(self, *, key: PRNGKeyArray) -> Streaming:
        return Streaming(begin(self.environment, 1, key=key), jnp.zeros((), jnp.int32))

    def draw(self, state: Streaming, agent: Agent, *, key: PRNGKeyArray):
        def act(observation, key):
            return agent.act(observation, key=key, explore=True)[0]

        copies, rows = interact(self.environment, state.copies, self.act or act, steps=1, key=key)
        row = jax.tree.map(lambda x: x[0, 0], rows)
        step = Transition(
            row.observation,
            row.action,
            row.reward,
            row.next_observation,
            row.terminal,
            row.truncated,
        )
        return Streaming(copies, state.steps + 1), step

    def environment_steps(self, state: Streaming) -> Int[Array, ""]:
        return state.steps
