"""Short rollouts of the current policy in a model, on the device, begun from logged states."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent, Observation, UnbatchedAction
from headwater.core.records import ModelStep, Transitions
from headwater.core.source import AbstractSource
from headwater.core.spaces import Spaces
from headwater.sources.ring import Ring, empty, push, sample


class AbstractModel(eqx.Module):
    """A model of a process: where an action leads from any observation, learned or known."""

    @abc.abstractmethod
    def step(
        self, observation: Observation, action: UnbatchedAction, *, key: PRNGKeyArray
    ) -> ModelStep:
        """One step from `observation`. **Arguments:** `action`: canonical."""


class ModelRollouts(AbstractSource[Ring, Transitions]):
    """Follows the policy for a few steps from logged states, and draws from what it saw.

    MBPO's data: before each draw `rollouts` begin at states drawn uniformly from `starts`, and end
    after `rollout_steps` or where the model says that nothing follows. The last step of a rollout
    is truncated: its next state counts in targets, though no rollout may ever go on from it (the
    edge of reach). A draw is split into the stage's `updates_per_draw` equal pieces, so
    `batch_size` counts them all. Mix it with a `Replay` of the log to keep real rows in every
    batch.

    **Arguments:** `model`: `None` for that of the agent, which has the capability
    `AbstractModelBased`; `spaces`: of the process; `starts`: `[row, observation]`;
    `rollout_steps`: of a rollout; `rollouts`: before each draw; `kept`: draws after which rows are
    forgotten; `batch_size`: rows per draw; `continuation`: what is earned, discounted, after the
    last step of a rollout, where that is known: it is added to that step's reward, and the step is
    terminal.
    """

    model: AbstractModel | None
    spaces: Spaces
    starts: Float[Array, "row observation"]
    rollout_steps: int = eqx.field(static=True, default=5)
    rollouts: int = eqx.field(static=True, default=100)
    kept: int = eqx.field(static=True, default=5)
    batch_size: int = eqx.field(static=True, default=256)
    continuation: Callable[[Observation], Float[Array, ""]] | None = None

    def __check_init__(self):
        for name in ("rollout_steps", "rollouts", "kept", "batch_size"):
            if getattr(self, name) < 1:
                raise SpecificationError(
                    f"ModelRollouts: {name} = {getattr(self, name)} must be at least 1"
                )

    def init(self, *, key: PRNGKeyArray) -> Ring:
        return empty(self.spaces, self.rollout_steps * self.rollouts * self.kept)

    def draw(self, state: Ring, agent: Agent, *, key: PRNGKeyArray):
        roll_key, sample_key = jax.random.split(key)
        rows, valid = self._roll(agent, roll_key)
        state = push(state, rows, valid)
        return state, sample(state, self.batch_size, key=sample_key)

    def _roll(self, agent: Agent, key: PRNGKeyArray) -> tuple[Transitions, Bool[Array, " row"]]:
        """The rows of all rollouts, and which of them come before nothing follows."""
        start_key, walk_key = jax.random.split(key)
        begun = jax.random.randint(start_key, (self.rollouts,), 0, self.starts.shape[0])

        def step(carry, key):
            observation, alive = carry
            keys = jax.random.split(key, self.rollouts)

            def one(observation, key):
                act_key, model_key = jax.random.split(key)
                action = agent.act(observation, key=act_key, explore=True)[0]
                ask = agent.imagine if self.model is None else self.model.step
                return action, ask(observation, action, key=model_key)

            action, found = jax.vmap(one)(observation, keys)
            row = (observation, action, found.reward, found.next_observation, found.terminal)
            return (found.next_observation, alive & ~found.terminal), (row, alive)

        carry = self.starts[begun], jnp.ones(self.rollouts, bool)
        keys = jax.random.split(walk_key, self.rollout_steps)
        _, (row, alive) = jax.lax.scan(step, carry, keys)
        observation, action, reward, following, terminal = row
        last = jnp.zeros_like(terminal).at[-1].set(True) & ~terminal
        truncated = last
        if self.continuation is not None:
            later = jax.vmap(jax.vmap(self.continuation))(following)
            reward = reward + jnp.where(last, later, 0.0)
            terminal, truncated = terminal | last, jnp.zeros_like(last)
        rows = Transitions(observation, action, reward, following, terminal, truncated)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (rows, alive))
