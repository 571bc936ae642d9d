"""Where the next batch comes from."""

import abc
from typing import Generic, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PRNGKeyArray

from headwater.core.method import Agent

Data = TypeVar("Data")
SourceState = TypeVar("SourceState")

Keys = Key[Array, " seed"]
"""One random key for each seed."""


class AbstractSource(eqx.Module, Generic[SourceState, Data]):
    """A source in pure JAX: drawn from inside the compiled loop, once per seed under `vmap`.

    Its arrays (a dataset, say) are shared by all seeds; whatever changes is in its state.
    """

    @abc.abstractmethod
    def init(self, *, key: PRNGKeyArray) -> SourceState:
        """The state before anything was drawn."""

    @abc.abstractmethod
    def draw(
        self, state: SourceState, agent: Agent, *, key: PRNGKeyArray
    ) -> tuple[SourceState, Data]:
        """The next batch, drawn with the current `agent` where it matters."""

    def prepare(self, state: SourceState, agent: Agent, *, key: PRNGKeyArray) -> SourceState:
        """What must happen once, before the first draw and without learning (warm-up)."""
        return state

    def environment_steps(self, state: SourceState) -> Int[Array, ""]:
        """Environment steps taken so far: the cost that a learning curve is drawn against."""
        return jnp.asarray(0)

    def check(self, state: SourceState) -> None:
        """Raises `DataError` if what was drawn so far is not what was declared.

        Called on the host, now and then: arrays may have a leading seed axis.
        """


class AbstractHostSource(eqx.Module, Generic[SourceState, Data]):
    """A source that runs on the host: a simulator in another language, files larger than memory.

    It serves all seeds at once: `keys` and every array that it returns have a leading `seed` axis.
    The loop draws from it between compiled updates with the same semantics, so that a pure source
    and its host twin give the same numbers.
    """

    @abc.abstractmethod
    def init(self, *, keys: Keys) -> SourceState:
        """Opens what has to be open (environments, files) and returns the state."""

    @abc.abstractmethod
    def draw(self, state: SourceState, agent: Agent, *, keys: Keys) -> tuple[SourceState, Data]:
        """The next batch for every seed; `agent.state` has a leading `seed` axis."""

    @abc.abstractmethod
    def save(self, state: SourceState) -> dict[str, np.ndarray]:
        """The state as named NumPy arrays, enough to continue exactly."""

    @abc.abstractmethod
    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> SourceState:
        """The state again from what `save` returned."""

    def prepare(self, state: SourceState, agent: Agent, *, keys: Keys) -> SourceState:
        """What must happen once, before the first draw and without learning (warm-up)."""
        return state

    def environment_steps(self, state: SourceState) -> int:
        """Environment steps taken so far, per seed."""
        return 0

    def close(self, state: SourceState) -> None:
        """Releases what `init` opened."""

    @property
    def uses_agent(self) -> bool:
        """Whether `draw` looks at the agent; if not, the loop may draw ahead."""
        return True
