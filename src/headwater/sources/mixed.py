"""Batches joined from several sources."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.method import Agent
from headwater.core.records import Transitions
from headwater.core.source import AbstractHostSource, AbstractSource, Keys


class Mixed(AbstractSource[tuple, Transitions]):
    """Joins the batches of pure sources; each source's own `batch_size` sets its share.

    Rows are interleaved evenly, so that any contiguous piece of the batch holds every source in
    proportion (RLPD's symmetric sampling survives the split into update-to-data pieces).

    **Arguments:** `sources`: what to draw from.
    """

    sources: tuple[AbstractSource, ...]

    def init(self, *, key: PRNGKeyArray) -> tuple:
        keys = jax.random.split(key, len(self.sources))
        return tuple(source.init(key=k) for source, k in zip(self.sources, keys))

    def prepare(self, state: tuple, agent: Agent, *, key: PRNGKeyArray) -> tuple:
        keys = jax.random.split(key, len(self.sources))
        return tuple(
            source.prepare(s, agent, key=k) for source, s, k in zip(self.sources, state, keys)
        )

    def draw(self, state: tuple, agent: Agent, *, key: PRNGKeyArray):
        keys = jax.random.split(key, len(self.sources))
        drawn = [source.draw(s, agent, key=k) for source, s, k in zip(self.sources, state, keys)]
        return tuple(s for s, _ in drawn), interleave([data for _, data in drawn])

    def environment_steps(self, state: tuple) -> Int[Array, ""]:
        return sum(
            (source.environment_steps(s) for source, s in zip(self.sources, state)), jnp.asarray(0)
        )


class HostMixed(AbstractHostSource[list, Transitions]):
    """Joins the batches of sources of which some run on the host. See `Mixed`."""

    sources: tuple[AbstractSource | AbstractHostSource, ...]

    def init(self, *, keys: Keys) -> list:
        return [
            source.init(keys=k) if isinstance(source, AbstractHostSource) else _init(source, k)
            for source, k in zip(self.sources, self._keys(keys))
        ]

    def prepare(self, state: list, agent: Agent, *, keys: Keys) -> list:
        return [
            source.prepare(s, agent, keys=k)
            if isinstance(source, AbstractHostSource)
            else _prepare(source, s, agent, k)
            for source, s, k in zip(self.sources, state, self._keys(keys))
        ]

    def draw(self, state: list, agent: Agent, *, keys: Keys):
        drawn = [
            source.draw(s, agent, keys=k)
            if isinstance(source, AbstractHostSource)
            else _draw(source, s, agent, k)
            for source, s, k in zip(self.sources, state, self._keys(keys))
        ]
        return [s for s, _ in drawn], _interleave_each([data for _, data in drawn])

    def environment_steps(self, state: list) -> int:
        return sum(
            int(source.environment_steps(s))
            for source, s in zip(self.sources, state)
            if isinstance(source, AbstractHostSource)
        )

    def save(self, state: list) -> dict[str, np.ndarray]:
        saved = {}
        for i, (source, s) in enumerate(zip(self.sources, state)):
            if isinstance(source, AbstractHostSource):
                part = source.save(s)
            else:
                part = {str(j): np.asarray(leaf) for j, leaf in enumerate(jax.tree.leaves(s))}
            saved.update({f"{i}.{name}": value for name, value in part.items()})
        return saved

    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> list:
        states = []
        for i, (source, k) in enumerate(zip(self.sources, self._keys(keys))):
            prefix = f"{i}."
            part = {n.removeprefix(prefix): v for n, v in saved.items() if n.startswith(prefix)}
            if isinstance(source, AbstractHostSource):
                states.append(source.load(part, keys=k))
            else:
                structure = jax.tree.structure(_init(source, k))
                leaves = [jnp.asarray(part[str(j)]) for j in range(structure.num_leaves)]
                states.append(jax.tree.unflatten(structure, leaves))
        return states

    def close(self, state: list) -> None:
        for source, s in zip(self.sources, state):
            if isinstance(source, AbstractHostSource):
                source.close(s)

    @property
    def uses_agent(self) -> bool:
        return any(not isinstance(s, AbstractHostSource) or s.uses_agent for s in self.sources)

    def _keys(self, keys: Keys):
        split = jax.vmap(lambda k: jax.random.split(k, len(self.sources)))(keys)
        return [split[:, i] for i in range(len(self.sources))]


def mixed(sources: Sequence[AbstractSource | AbstractHostSource]) -> Mixed | HostMixed:
    """The mixture of `sources`: compiled if all are pure JAX, on the host if one is not."""
    pure = [source for source in sources if isinstance(source, AbstractSource)]
    return Mixed(tuple(pure)) if len(pure) == len(sources) else HostMixed(tuple(sources))


def interleave(batches: Sequence[Transitions]) -> Transitions:
    """One batch holding every row, the rows of each batch spread evenly along it.

    Optional columns stay only where every batch has them, and `whole_log`, of one log, nowhere.
    """
    sizes = [batch.reward.shape[0] for batch in batches]
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in sizes])
    order = np.argsort(places, kind="stable")
    columns = {}
    for field in dataclasses.fields(Transitions):
        if field.name == "whole_log":
            continue
        parts = [getattr(batch, field.name) for batch in batches]
        if all(part is not None for part in parts):
            columns[field.name] = jnp.concatenate(parts)[order]
    return Transitions(**columns)


@eqx.filter_jit
def _interleave_each(batches):
    return jax.vmap(lambda *each: interleave(each))(*batches)


@eqx.filter_jit
def _init(source, keys):
    return jax.vmap(lambda k: source.init(key=k))(keys)


@eqx.filter_jit
def _prepare(source, states, agent, keys):
    def one(state, agent_state, key):
        return source.prepare(state, Agent(agent.method, agent_state), key=key)

    return jax.vmap(one)(states, agent.state, keys)


@eqx.filter_jit
def _draw(source, states, agent, keys):
    def one(state, agent_state, key):
        return source.draw(state, Agent(agent.method, agent_state), key=key)

    return jax.vmap(one)(states, agent.state, keys)
