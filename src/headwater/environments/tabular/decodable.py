"""Partially observed processes whose last few observations and actions reveal the hidden state."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import DataError, SpecificationError
from headwater.core.finite import (
    AbstractFiniteSimulator,
    AbstractPartialView,
    FiniteProcess,
    FiniteStep,
)

_MOST_WINDOWS = 100_000
"""Windows of one step: above that, no table over them is of use."""


class PartiallyObservedProcess(eqx.Module):
    """A finite process (`hidden`) of which only observations are seen (a POMDP).

    The hidden state moves and is rewarded as in `hidden`; at each step one observation is drawn
    from it. `from_arrays` checks what it is given.

    **Arguments:** `hidden`: how the hidden state moves, what it earns; `emission`: probability of
    every observation, at each step.
    """

    hidden: FiniteProcess
    emission: Float[Array, "horizon hidden observation"]

    @property
    def observations(self) -> int:
        """Number of observations."""
        return self.emission.shape[-1]

    @classmethod
    def from_arrays(
        cls,
        transition: Any,
        emission: Any,
        reward: Any,
        initial: Any = 0,
        *,
        horizon: int,
        noisy: bool = False,
    ) -> "PartiallyObservedProcess":
        """The process with these arrays, checked.

        **Arguments:** as for `FiniteProcess.from_arrays`, of the hidden states; `emission`:
        `[state, observation]`, or with a leading `step` axis.

        Raises `SpecificationError` if shapes do not fit, `DataError` for a row of `emission` that
        is no distribution, and what `FiniteProcess.from_arrays` raises.
        """
        hidden = FiniteProcess.from_arrays(
            transition, reward, initial, horizon=horizon, noisy=noisy
        )
        try:
            emission = np.asarray(emission, np.float64)
        except (TypeError, ValueError):
            raise SpecificationError("emission is not an array of numbers") from None
        sizes = (hidden.horizon, hidden.states)
        fits = emission.shape[:-1] in (sizes, sizes[1:])
        if not fits or emission.shape[-1] < 1:
            raise SpecificationError(
                f"emission has shape {emission.shape}: it must be [state, observation] or [step, "
                f"state, observation] with {sizes[1]} states and {sizes[0]} steps"
            )
        sums = emission.sum(axis=-1)
        wrong = ~np.isfinite(sums) | (np.abs(sums - 1.0) > 1e-5) | (emission < 0.0).any(axis=-1)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0].tolist())
            place = ", ".join(f"{name} {i}" for name, i in zip(("step", "state")[-len(at) :], at))
            raise DataError(
                f"emission: the row of {place} is no distribution over observations (it adds up to "
                f"{sums[at]:.7g}, its lowest entry is {emission[at].min():g})"
            )
        emission = np.broadcast_to(emission / sums[..., None], (*sizes, emission.shape[-1]))
        return cls(hidden, jnp.asarray(emission, jnp.float32))


class Windows(AbstractFiniteSimulator, AbstractPartialView):
    """A partially observed process whose states, to a method, are windows.

    A window is the last `memory` observations and the actions between them, shorter in the first
    steps. Only windows that can occur are counted, for each step on its own, so that state 3 of one
    step and state 3 of the next have nothing to do with each other; a step that has fewer windows
    than another has states that never occur. Any tabular method learns this simulator; whether a
    window is enough to act upon is for `decoder` to say. Made by `windows`.

    **Arguments:** `process`; `memory`; `first`: window of each first observation; `following`:
    window of the next step, by window, action and next observation (zero where that cannot
    happen); `possible`: which hidden states a window leaves possible; `names`: windows of each step
    in the order of their numbers, as `o a o … o`.
    """

    process: PartiallyObservedProcess
    memory: int = eqx.field(static=True)
    first: Int[Array, " observation"]
    following: Int[Array, "step window action observation"]
    possible: Float[Array, "horizon window hidden"]
    names: tuple[tuple[tuple[int, ...], ...], ...] = eqx.field(static=True)

    @property
    def horizon(self) -> int:
        """Steps in an episode."""
        return self.process.hidden.horizon

    @property
    def states(self) -> int:
        """Most windows of any step."""
        return self.possible.shape[1]

    @property
    def actions(self) -> int:
        """Number of actions."""
        return self.process.hidden.actions

    def reset(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        hidden_key, key = jax.random.split(key)
        hidden = self.process.hidden.reset(key=hidden_key)
        return self._pack(hidden, self.first[self._observe(0, hidden, key)])

    def step(
        self,
        time: Int[Array, ""],
        state: Int[Array, ""],
        action: Int[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> FiniteStep:
        hidden, window = state % self.process.hidden.states, self.show(state)
        step_key, key = jax.random.split(key)
        moved = self.process.hidden.step(time, hidden, action, key=step_key)
        # Nothing is decided after the last step: what is seen there does not matter.
        if self.horizon == 1:
            return FiniteStep(self._pack(moved.state, jnp.zeros_like(window)), moved.reward)
        later = jnp.minimum(time + 1, self.horizon - 1)
        seen = self._observe(later, moved.state, key)
        window = jnp.where(
            time + 1 < self.horizon, self.following[later - 1, window, action, seen], 0
        )
        return FiniteStep(self._pack(moved.state, window), moved.reward)

    def show(self, state: Int[Array, ""]) -> Int[Array, ""]:
        return state // self.process.hidden.states

    def _observe(self, time: int | Int[Array, ""], hidden: Int[Array, ""], key: PRNGKeyArray):
        return jax.random.categorical(key, jnp.log(self.process.emission[time, hidden]))

    def _pack(self, hidden: Int[Array, ""], window: Int[Array, ""]) -> Int[Array, ""]:
        return (window * self.process.hidden.states + hidden).astype(jnp.int32)


class _Step(NamedTuple):
    """Windows of one step: their numbers, and which hidden states each leaves possible."""

    number: dict[tuple[int, ...], int]
    possible: list[np.ndarray]

    def at(self, window: tuple[int, ...], hidden: int) -> int:
        """Number of a window, which is new or known, now that `hidden` is possible in it."""
        number = self.number.setdefault(window, len(self.number))
        if number == len(self.possible):
            self.possible.append(np.zeros(hidden))
        return number


def windows(process: PartiallyObservedProcess, memory: int) -> Windows:
    """The process as seen through the last `memory` observations and the actions between them.

    Raises `SpecificationError` if `memory` is below one or longer than an episode, or if there are
    too many windows for a table.
    """
    horizon, states, actions = process.hidden.reward.shape
    if isinstance(memory, bool) or not isinstance(memory, int | np.integer) or memory < 1:
        raise SpecificationError(f"memory = {memory!r} must be a whole number of at least one")
    if memory > horizon:
        raise SpecificationError(
            f"memory = {memory} is longer than an episode: it has {horizon} observations to act on"
        )
    emitted = np.asarray(process.emission) > 0.0
    moves = np.asarray(process.hidden.transition) > 0.0
    starts = np.asarray(process.hidden.initial) > 0.0
    observations = process.observations

    steps = [_Step({}, [])]
    first = np.zeros(observations, np.int32)
    for seen in range(observations):
        left = starts & emitted[0, :, seen]
        if left.any():
            first[seen] = steps[0].at((seen,), states)
            steps[0].possible[first[seen]][left] = 1.0
    tables: list[dict[tuple[int, int, int], int]] = []
    for time in range(horizon - 1):
        here, there, table = steps[-1], _Step({}, []), {}
        for window, number in here.number.items():
            for action in range(actions):
                reached = moves[time, here.possible[number] > 0.0, action].any(axis=0)
                # Drops the oldest observation and the action after it once the window is full.
                kept = window[2:] if len(window) == 2 * memory - 1 else window
                for seen in np.flatnonzero(emitted[time + 1, reached].any(axis=0)):
                    longer = (*kept, action, int(seen)) if memory > 1 else (int(seen),)
                    index = there.at(longer, states)
                    there.possible[index][reached & emitted[time + 1, :, seen]] = 1.0
                    table[number, action, int(seen)] = index
            if len(there.number) > _MOST_WINDOWS:
                raise SpecificationError(
                    f"memory = {memory} makes more than {_MOST_WINDOWS} windows at step {time + 1}:"
                    " take a shorter one"
                )
        steps.append(there)
        tables.append(table)

    most = max(len(step.number) for step in steps)
    following = np.zeros((horizon - 1, most, actions, observations), np.int32)
    for time, table in enumerate(tables):
        for at, index in table.items():
            following[(time, *at)] = index
    possible = np.zeros((horizon, most, states), np.float32)
    for time, step in enumerate(steps):
        possible[time, : len(step.possible)] = step.possible
    return Windows(
        process,
        int(memory),
        jnp.asarray(first),
        jnp.asarray(following),
        jnp.asarray(possible),
        tuple(tuple(step.number) for step in steps),
    )


def decodable(seen: Windows) -> bool:
    """Whether every window that can occur leaves one hidden state possible."""
    return bool(np.all(np.asarray(seen.possible).sum(axis=-1) <= 1.0))


def decoder(seen: Windows) -> Int[Array, "horizon window"]:
    """The hidden state that each window reveals; zero for windows that never occur.

    Raises `SpecificationError`, naming a window, if some leaves several states possible.
    """
    possible = np.asarray(seen.possible)
    wrong = np.argwhere(possible.sum(axis=-1) > 1.0)
    if len(wrong):
        time, window = wrong[0].tolist()
        left = ", ".join(map(str, np.flatnonzero(possible[time, window])))
        raise SpecificationError(
            f"the last {seen.memory} observations do not reveal the hidden state: at step {time}, "
            f"{_spell(seen.names[time][window])} leaves states {left} possible; take a longer "
            "memory"
        )
    return jnp.asarray(possible.argmax(axis=-1), jnp.int32)


def window_process(seen: Windows) -> FiniteProcess:
    """The exact process over windows, to plan in; its best policy is the best of all policies.

    Raises `SpecificationError` if windows do not reveal the hidden state: then they are no process.
    """
    return _window_process(seen, decoder(seen))


@jax.jit
def _window_process(seen: Windows, hidden: Int[Array, "horizon window"]) -> FiniteProcess:
    model, emission = seen.process.hidden, seen.process.emission
    initial = jnp.einsum("s,so->o", model.initial, emission[0])
    initial = jnp.zeros(seen.states).at[seen.first].add(initial)
    occurs = jnp.any(seen.possible > 0.0, axis=-1)
    reward = jax.vmap(lambda reward, hidden: reward[hidden])(model.reward, hidden)

    def one(transition, hidden, emission, following):
        probabilities = jnp.einsum("wat,to->wao", transition[hidden], emission)
        window = jnp.arange(seen.states)[:, None, None]
        action = jnp.arange(seen.actions)[None, :, None]
        rows = jnp.zeros((seen.states, seen.actions, seen.states))
        return rows.at[window, action, following].add(probabilities)

    rows = jax.vmap(one)(model.transition[:-1], hidden[:-1], emission[1:], seen.following)
    stay = jnp.zeros((seen.horizon, seen.states, seen.actions, seen.states)).at[..., 0].set(1.0)
    rows = jnp.concatenate([rows, stay[-1:]])
    return FiniteProcess(
        jnp.where(occurs[:, :, None, None], rows, stay),
        jnp.where(occurs[:, :, None], reward, 0.0),
        initial,
        noisy=model.noisy,
    )


@jax.jit
def window_return(seen: Windows, policy: Float[Array, "horizon window action"]) -> Float[Array, ""]:
    """Exact expected return of a policy over windows, whether or not they reveal the hidden state.

    Goes forwards over the joint distribution of hidden state and window; no belief is needed.

    Raises `SpecificationError` if the policy's shape is not that of the windows.
    """
    if policy.shape != (seen.horizon, seen.states, seen.actions):
        raise SpecificationError(
            f"the policy has shape {policy.shape}, but (horizon, window, action) is "
            f"{(seen.horizon, seen.states, seen.actions)}"
        )
    model, emission = seen.process.hidden, seen.process.emission
    start = model.initial[:, None] * emission[0]
    joint = jnp.zeros((model.states, seen.states)).at[:, seen.first].add(start)
    # The last step's rows lead nowhere; they only give the scan arrays of one length.
    following = jnp.concatenate([seen.following, jnp.zeros_like(seen.following[:1])])[
        : seen.horizon
    ]
    if seen.horizon == 1:
        following = jnp.zeros((1, seen.states, seen.actions, seen.process.observations), jnp.int32)
    later = jnp.concatenate([emission[1:], emission[-1:]])

    def one(joint, step):
        probabilities, reward, transition, emission, following = step
        taken = joint[:, :, None] * probabilities[None]
        moved = jnp.einsum("swa,sat->wat", taken, transition)
        arrived = jnp.einsum("wat,to->twao", moved, emission)
        flat = arrived.reshape(model.states, -1)
        joint = jnp.zeros_like(joint).at[:, following.reshape(-1)].add(flat)
        return joint, jnp.einsum("swa,sa->", taken, reward)

    steps = (policy, model.reward, model.transition, later, following)
    return jnp.sum(jax.lax.scan(one, joint, steps)[1])


def ring(
    *, positions: int = 6, horizon: int = 8, reversal: float = 0.1, goal: int = 3
) -> PartiallyObservedProcess:
    """Walk around a ring in a direction that is not seen; two positions in a row reveal it.

    Actions: keep the direction (0) or turn round (1). Then the direction is reversed with
    probability `reversal`, and the position moves on by one. Only the position is seen. Arriving at
    `goal` earns one (its expectation, before the direction is known). Episodes start at position 0
    going up. Hidden state `2 * position + (0 if going up else 1)`.

    Raises `SpecificationError` for fewer than three positions, where both directions lead to the
    same place, or a goal or reversal out of range.
    """
    if positions < 3:
        raise SpecificationError(
            f"positions = {positions}: with fewer than three, both directions lead to one place"
        )
    if horizon < 1:
        raise SpecificationError(f"horizon = {horizon} must be at least one")
    if not 0.0 <= reversal <= 1.0:
        raise SpecificationError(f"reversal = {reversal:g} must be a probability")
    if not 0 <= goal < positions:
        raise SpecificationError(f"goal = {goal} is not one of the positions 0 … {positions - 1}")
    transition = np.zeros((positions, 2, 2, positions, 2))
    for position in range(positions):
        for direction in range(2):
            for action in range(2):
                meant = direction ^ action
                for going, chance in ((meant, 1.0 - reversal), (1 - meant, reversal)):
                    arrived = (position + (1, -1)[going]) % positions
                    transition[position, direction, action, arrived, going] += chance
    reward = transition[:, :, :, goal].sum(axis=-1).reshape(2 * positions, 2)
    emission = np.repeat(np.eye(positions), 2, axis=0)
    size = 2 * positions
    return PartiallyObservedProcess.from_arrays(
        transition.reshape(size, 2, size), emission, reward, horizon=horizon
    )


def random_decodable(
    *,
    symbols: int,
    actions: int,
    horizon: int,
    memory: int,
    copies: int = 1,
    key: PRNGKeyArray,
) -> PartiallyObservedProcess:
    """A process, drawn at random, that `memory` observations reveal and fewer, as a rule, do not.

    The hidden state is the last `memory` symbols (`symbols^memory` of them), one of which is
    added at each step with probabilities from a flat Dirichlet distribution; rewards are uniform
    between zero and one. The first symbol counts as having been there before the start. The newest
    symbol is seen as any of its `copies` observations, equally likely: with more of them there
    are more observations but no more hidden states.

    Raises `SpecificationError` for sizes below one, or a memory that is longer than an episode.
    """
    sizes = {"symbols": symbols, "actions": actions, "horizon": horizon, "memory": memory}
    for name, size in {**sizes, "copies": copies}.items():
        if size < 1:
            raise SpecificationError(f"{name} = {size} must be at least one")
    if memory > horizon:
        raise SpecificationError(
            f"memory = {memory} is longer than an episode: it has {horizon} observations to act on"
        )
    states = symbols**memory
    next_key, reward_key, start_key = jax.random.split(key, 3)
    added = np.asarray(jax.random.dirichlet(next_key, jnp.ones(symbols), (states, actions)))
    newest = np.arange(states) % symbols
    transition = np.zeros((states, actions, states))
    for state in range(states):
        for symbol in range(symbols):
            transition[state, :, (state * symbols + symbol) % states] = added[state, :, symbol]
    initial = np.zeros(states)
    # One symbol repeated: its digits in base `symbols` are all the same.
    repeated = (states - 1) // max(symbols - 1, 1)
    starts = np.asarray(jax.random.dirichlet(start_key, jnp.ones(symbols)))
    for symbol in range(symbols):
        initial[symbol * repeated if symbols > 1 else 0] = starts[symbol]
    emission = np.repeat(np.eye(symbols)[newest], copies, axis=1) / copies
    return PartiallyObservedProcess.from_arrays(
        transition,
        emission,
        np.asarray(jax.random.uniform(reward_key, (states, actions))),
        initial,
        horizon=horizon,
    )


def _spell(window: tuple[int, ...]) -> str:
    kinds = ("observation", "action")
    return ", ".join(f"{kinds[i % 2]} {number}" for i, number in enumerate(window))
