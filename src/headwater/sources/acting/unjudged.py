"""Acting whose rewards nobody tells."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Transitions
from headwater.core.source import AbstractHostSource, AbstractSource, Keys
from headwater.sources.mixed import HostMixed, Mixed, mixed


class Unjudged(AbstractSource[Any, Transitions]):
    """Draws as `source` does, with NaN for every reward. **Arguments:** `source`: acts."""

    source: AbstractSource

    def init(self, *, key: PRNGKeyArray) -> Any:
        return self.source.init(key=key)

    def prepare(self, state: Any, agent: Agent, *, key: PRNGKeyArray) -> Any:
        return self.source.prepare(state, agent, key=key)

    def draw(self, state: Any, agent: Agent, *, key: PRNGKeyArray):
        state, data = self.source.draw(state, agent, key=key)
        return state, _without_rewards(data)

    def environment_steps(self, state: Any) -> Int[Array, ""]:
        return self.source.environment_steps(state)


class HostUnjudged(AbstractHostSource[Any, Transitions]):
    """The host twin of `Unjudged`, with the same argument and semantics."""

    source: AbstractHostSource

    def init(self, *, keys: Keys) -> Any:
        return self.source.init(keys=keys)

    def prepare(self, state: Any, agent: Agent, *, keys: Keys) -> Any:
        return self.source.prepare(state, agent, keys=keys)

    def draw(self, state: Any, agent: Agent, *, keys: Keys):
        state, data = self.source.draw(state, agent, keys=keys)
        return state, _without_rewards(data)

    def environment_steps(self, state: Any) -> int:
        return self.source.environment_steps(state)

    def save(self, state: Any) -> dict[str, np.ndarray]:
        return self.source.save(state)

    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> Any:
        return self.source.load(saved, keys=keys)

    def close(self, state: Any) -> None:
        self.source.close(state)


def unjudged(source: Any) -> Mixed | HostMixed:
    """The mixture of a log and of acting, in which the rewards of acting are NaN.

    **Arguments:** `source`: `Mixed` or `HostMixed`, of a log and of what acts, in this order.
    """
    log, acts = source.sources
    hidden = Unjudged(acts) if isinstance(acts, AbstractSource) else HostUnjudged(acts)
    return mixed([log, hidden])


def _without_rewards(data: Transitions) -> Transitions:
    return dataclasses.replace(data, reward=jnp.full_like(data.reward, jnp.nan))
