"""Fresh experience of the current policy, used once."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Transition, Transitions
from headwater.core.source import AbstractSource
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.interaction import Act, Copies, begin, interact


class Walking(eqx.Module):
    """Where the copies of the environment are."""

    copies: Copies
    steps: Int[Array, ""]


class Rollout(AbstractSource[Walking, Transitions]):
    """Acts for `steps` steps in every copy and returns just those, `[steps, copy, …]`.

    Episodes go on across draws. Nothing is kept: this is the source of on-policy methods.

    **Arguments:** `environment`; `steps`: per copy and draw; `copies`: of the environment.
    """

    environment: AbstractEnvironment
    steps: int = eqx.field(static=True, default=128)
    copies: int = eqx.field(static=True, default=8)

    def init(self, *, key: PRNGKeyArray) -> Walking:
        return Walking(begin(self.environment, self.copies, key=key), jnp.zeros((), jnp.int32))

    def draw(self, state: Walking, agent: Agent, *, key: PRNGKeyArray):
        def act(observation, key):
            return agent.act(observation, key=key, explore=True)[0]

        at, rows = interact(self.environment, state.copies, act, steps=self.steps, key=key)
        return Walking(at, state.steps + self.steps * self.copies), rows

    def environment_steps(self, state: Walking) -> Int[Array, ""]:
        return state.steps


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
