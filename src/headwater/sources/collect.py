"""Acting in an environment and replaying what was seen."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import Transitions
from headwater.core.source import AbstractHostSource, AbstractSource, Keys
from headwater.environments.environment import (
    AbstractEnvironment,
    AbstractHostEnvironments,
    AbstractHostTask,
    HostStep,
)
from headwater.environments.interaction import Copies, begin, interact, random_action
from headwater.sources.ring import Ring, empty, push, sample

_WARM_UP_BLOCK = 1000
"""Most environment steps that one compiled piece of a warm-up holds."""

HostAct = Callable[[np.ndarray, Keys, int], Any]
"""From observations `[seed, copy, …]`, the keys of a walk and the step in it to actions."""


class Collecting(eqx.Module):
    """Where the copies of the environment are, and what they have seen."""

    copies: Copies
    ring: Ring
    steps: Int[Array, ""]


class Collect(AbstractSource[Collecting, Transitions]):
    """Acts in a pure-JAX environment with the current policy and draws from a ring buffer.

    The update-to-data ratio is the stage's `updates_per_draw` over `steps_per_draw`; the batch that
    a draw returns is split into `updates_per_draw` equal pieces, so `batch_size` counts them all.

    **Arguments:** `environment`; `capacity`: of the buffer; `batch_size`: rows per draw;
    `steps_per_draw`: environment steps before each draw, over all copies together; `copies`: of the
    environment; `random_steps`: uniformly random steps before the first draw; `warm_up_steps`:
    steps of the starting policy, exploring, after those and before the first draw (WSRL).
    """

    environment: AbstractEnvironment
    capacity: int = eqx.field(static=True, default=1_000_000)
    batch_size: int = eqx.field(static=True, default=256)
    steps_per_draw: int = eqx.field(static=True, default=1)
    copies: int = eqx.field(static=True, default=1)
    random_steps: int = eqx.field(static=True, default=5_000)
    warm_up_steps: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        check_collection(self)

    def init(self, *, key: PRNGKeyArray) -> Collecting:
        return Collecting(
            begin(self.environment, self.copies, key=key),
            empty(self.environment.spaces, self.capacity),
            jnp.zeros((), jnp.int32),
        )

    def prepare(self, state: Collecting, agent: Agent, *, key: PRNGKeyArray) -> Collecting:
        random_key, warm_key = jax.random.split(key)

        def at_random(observation, key):
            return random_action(self.environment.spaces, key=key)

        def by_policy(observation, key):
            return agent.act(observation, key=key, explore=True)[0]

        state = self._fill(state, at_random, self.random_steps, random_key)
        return self._fill(state, by_policy, self.warm_up_steps, warm_key)

    def draw(self, state: Collecting, agent: Agent, *, key: PRNGKeyArray):
        act_key, sample_key = jax.random.split(key)
        state = self._walk(
            state,
            lambda observation, k: agent.act(observation, key=k, explore=True)[0],
            self.steps_per_draw // self.copies,
            act_key,
        )
        return state, sample(state.ring, self.batch_size, key=sample_key)

    def environment_steps(self, state: Collecting) -> Int[Array, ""]:
        return state.steps

    def _walk(self, state: Collecting, act, steps: int, key) -> Collecting:
        at, rows = interact(self.environment, state.copies, act, steps=steps, key=key)
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
        return Collecting(at, push(state.ring, rows), state.steps + steps * self.copies)

    def _fill(self, state: Collecting, act, steps: int, key) -> Collecting:
        # One compiled body for all the whole blocks, another for what is left over.
        blocks = _blocks(steps, self)
        whole = blocks.count(blocks[0]) if blocks else 0
        if whole:
            state = jax.lax.fori_loop(
                0,
                whole,
                lambda i, s: self._walk(s, act, blocks[0], jax.random.fold_in(key, i)),
                state,
            )
        for i in range(whole, len(blocks)):
            state = self._walk(state, act, blocks[i], jax.random.fold_in(key, i))
        return state


class HostCollecting:
    """Open simulators and, for each seed, the ring buffer. Mutable: it lives on the host."""

    def __init__(self, environments, observation, rings, steps, capacity):
        self.environments: AbstractHostEnvironments = environments
        self.observation: np.ndarray = observation
        self.rings: Ring = rings
        self.steps: int = steps
        self.capacity: int = capacity


class HostCollect(AbstractHostSource[HostCollecting, Transitions]):
    """Acts in a host environment with the current policy and draws from a ring buffer.

    The host twin of `Collect`, with the same arguments and semantics; the buffer is on the device.
    Long blocks (`steps_per_draw` of 64, say, with as many updates) keep the compiled part busy.
    """

    task: AbstractHostTask
    capacity: int = eqx.field(static=True, default=1_000_000)
    batch_size: int = eqx.field(static=True, default=256)
    steps_per_draw: int = eqx.field(static=True, default=1)
    copies: int = eqx.field(static=True, default=1)
    random_steps: int = eqx.field(static=True, default=5_000)
    warm_up_steps: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        check_collection(self)

    def init(self, *, keys: Keys) -> HostCollecting:
        seeds = keys.shape[0]
        environments = self.task.open(seeds * self.copies)
        observation = environments.reset(environment_seeds(keys, self.copies))
        rings = jax.vmap(lambda _: empty(self.task.spaces, self.capacity))(jnp.arange(seeds))
        shape = (seeds, self.copies, -1)
        return HostCollecting(environments, observation.reshape(shape), rings, 0, self.capacity)

    def prepare(self, state: HostCollecting, agent: Agent, *, keys: Keys):
        keys = jax.vmap(jax.random.split)(keys)
        for act, steps, these in (
            (self._random_actor(), self.random_steps, keys[:, 0]),
            (policy_actor(agent), self.warm_up_steps, keys[:, 1]),
        ):
            for i, block in enumerate(_blocks(steps, self)):
                block_keys = _fold_each(these, i)
                state = self._walk(state, act, block, block_keys)
        return state

    def draw(self, state: HostCollecting, agent: Agent, *, keys: Keys):
        keys = _split_each(keys)
        act = policy_actor(agent)
        state = self._walk(state, act, self.steps_per_draw // self.copies, keys[:, 0])
        return state, _sample_each(state.rings, keys[:, 1], self.batch_size)

    def environment_steps(self, state: HostCollecting) -> int:
        return state.steps

    def save(self, state: HostCollecting) -> dict[str, np.ndarray]:
        present = min(int(np.max(np.asarray(state.rings.written))), self.capacity)
        saved = {f"environment.{k}": v for k, v in state.environments.save().items()}
        saved["steps"] = np.asarray(state.steps)
        saved["written"] = np.asarray(state.rings.written)
        for name, column in _columns(state.rings.data).items():
            # Rows that were never written need no room on the disk.
            saved[f"ring.{name}"] = np.asarray(column[:, :present])
        return saved

    def load(self, saved: dict[str, np.ndarray], *, keys: Keys) -> HostCollecting:
        state = self.init(keys=keys)
        prefix = "environment."
        inside = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
        observation = state.environments.load(inside)
        state.observation = observation.reshape(state.observation.shape)
        state.steps = int(saved["steps"])
        columns: dict[str, Any] = {
            name: column.at[:, : saved[f"ring.{name}"].shape[1]].set(saved[f"ring.{name}"])
            for name, column in _columns(state.rings.data).items()
        }
        state.rings = Ring(Transitions(**columns), jnp.asarray(saved["written"]))
        return state

    def close(self, state: HostCollecting) -> None:
        state.environments.close()

    def _random_actor(self):
        spaces = self.task.spaces

        def act(observation, keys, t):
            return _random_actions(spaces, keys, t, self.copies)

        return act

    def _walk(self, state: HostCollecting, act, steps: int, keys) -> HostCollecting:
        shape = state.observation.shape[:2]
        if steps:
            state.observation, rows, valid = walk_on_host(
                state.environments, state.observation, act, steps, keys
            )
            # [seed, step, copy, …] to [seed, step · copy, …]
            rows = jax.tree.map(lambda x: x.reshape(shape[0], -1, *x.shape[3:]), rows)
            state.rings = _push_each(state.rings, rows, valid.reshape(shape[0], -1))
        state.steps += steps * shape[1]
        return state


def walk_on_host(
    environments: AbstractHostEnvironments,
    observation: Float[np.ndarray, "seed copy observation"],
    act: HostAct,
    steps: int,
    keys: Keys,
) -> tuple[np.ndarray, Transitions, Bool[np.ndarray, "seed step copy"]]:
    """Acts for `steps` steps, of which there is at least one, in every copy of each seed.

    **Returns:** what to act on next, transitions `[seed, step, copy, …]`, and which of them are
    steps rather than resets that a simulator reports as such.
    """
    shape = observation.shape[:2]
    rows, valid = [], []
    for t in range(steps):
        action = np.asarray(act(observation, keys, t))
        step: HostStep = environments.step(action.reshape(-1, *action.shape[2:]))
        rows.append(
            (
                observation,
                action,
                *(
                    x.reshape(*shape, *x.shape[1:])
                    for x in (step.reward, step.next_observation, step.terminal, step.truncated)
                ),
            )
        )
        valid.append(step.valid.reshape(shape))
        observation = step.observation.reshape(*shape, -1)
    columns: list[Any] = [np.stack(column, 1) for column in zip(*rows)]
    return observation, Transitions(*columns), np.stack(valid, 1)


def collect(task: AbstractEnvironment | AbstractHostTask, **sizes: int) -> Collect | HostCollect:
    """The collecting source of `task`, with the fields of `Collect` given in `sizes`."""
    if isinstance(task, AbstractEnvironment):
        return Collect(task, **sizes)
    return HostCollect(task, **sizes)


def check_collection(source: Any) -> None:
    """Raises `SpecificationError` if the sizes of a collecting source do not fit each other."""
    name = type(source).__name__
    if source.steps_per_draw % source.copies:
        raise SpecificationError(
            f"{name}: steps_per_draw={source.steps_per_draw} is no multiple of "
            f"copies={source.copies}"
        )
    if source.steps_per_draw > source.capacity:
        raise SpecificationError(
            f"{name}: a draw of {source.steps_per_draw} steps does not fit into a buffer of "
            f"{source.capacity}"
        )
    if source.random_steps + source.warm_up_steps + source.steps_per_draw < 1:
        raise SpecificationError(f"{name}: there must be at least one step before the first draw")


def _blocks(steps: int, source: Any) -> list[int]:
    """Steps per copy, in pieces that fit into the buffer."""
    remaining = math.ceil(steps / source.copies)
    largest = max(1, min(_WARM_UP_BLOCK, source.capacity // source.copies))
    whole, rest = divmod(remaining, largest)
    return [largest] * whole + [rest] * (rest > 0)


def _columns(data: Transitions) -> dict[str, Array]:
    return {k: v for k, v in vars(data).items() if v is not None}


def environment_seeds(keys: Keys, copies: int) -> Int[np.ndarray, " copy"]:
    """A seed for every copy of each seed's environment, one after the other."""
    bits = jax.vmap(lambda k: jax.random.bits(k, (copies,), jnp.uint32))(keys)
    return np.asarray(bits).reshape(-1).astype(np.int64) % (2**31 - 1)


@jax.jit
def _split_each(keys):
    return jax.vmap(jax.random.split)(keys)


@jax.jit
def _fold_each(keys, i):
    return jax.vmap(lambda k: jax.random.fold_in(k, i))(keys)


@partial(jax.jit, static_argnums=(0, 3))
def _random_actions(spaces, keys, t, copies):
    keys = jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, t), copies))(keys)
    split = jax.vmap(jax.vmap(lambda k: jax.random.split(k, 3)[0]))(keys)
    return jax.vmap(jax.vmap(lambda k: random_action(spaces, key=k)))(split)


def policy_actor(agent: Agent) -> HostAct:
    """How `agent`, whose state has a leading seed axis, acts in every copy, exploring."""

    def act(observation, keys, t):
        return _act_each(agent.method, agent.state, observation, keys, t)

    return act


# Plain `jax.jit` dispatches in a fraction of the time that filtering the tree would take, and this
# is called once per environment step. It can be used because a state holds arrays only.
@partial(jax.jit, static_argnums=0)
def _act_each(method, state, observation, keys, t):
    def one_seed(state, observation, key):
        agent = Agent(method, state)
        keys = jax.random.split(jax.random.fold_in(key, t), observation.shape[0])
        # The same sub-key as in `interact`, so that host and compiled collection agree.
        keys = jax.vmap(lambda k: jax.random.split(k, 3)[0])(keys)
        return jax.vmap(lambda o, k: agent.act(o, key=k, explore=True)[0])(observation, keys)

    return jax.vmap(one_seed)(state, observation, keys)


@partial(jax.jit, donate_argnums=0)
def _push_each(rings, rows, valid):
    return jax.vmap(push)(rings, rows, valid)


@partial(jax.jit, static_argnums=2)
def _sample_each(rings, keys, rows):
    return jax.vmap(lambda ring, key: sample(ring, rows, key=key))(rings, keys)
