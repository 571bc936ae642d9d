"""Partially observed processes of several tasks that share how the hidden state moves: the laws of
what is observed, and the most likely models of what was.

Models of different tasks have the same first states and transitions and each its own emissions.
Hidden states have no names: of two models only the laws of observations can be compared.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

_SWEEPS = 3
"""Times that each step of a policy is improved."""
_BLOCK = 128
"""Episodes of each task that are looked at together: as many as a cache holds."""
_Expected = tuple[Array, Array, Array, Array]
"""Counts of first states, of moves and of emissions, and the log-likelihood."""


class TiedModels(eqx.Module):
    """Models of several tasks.

    **Arguments:** `initial`, `transition`: of the hidden state, in all tasks; `emission`: of an
    observation, in each.
    """

    initial: Float[Array, "*restart hidden"]
    transition: Float[Array, "*restart hidden action hidden"]
    emission: Float[Array, "*restart task hidden observation"]


class Sequences(eqx.Module):
    """What was observed, and done between, in episodes of several tasks.

    **Arguments:** `observation`; `action`; `weight`: how often each episode counts, zero where none
    was seen.
    """

    observation: Int[Array, "task episode step_1"]
    action: Int[Array, "task episode step"]
    weight: Float[Array, "task episode"]


def no_sequences(tasks: int, episodes: int, steps: int) -> Sequences:
    """Room for so many episodes of each task."""
    room = tasks, episodes
    observation = jnp.zeros((*room, steps + 1), jnp.int32)
    return Sequences(observation, jnp.zeros((*room, steps), jnp.int32), jnp.zeros(room))


def remember(
    data: Sequences,
    before: Int[Array, ""],
    observation: Int[Array, "task new step_1"],
    action: Int[Array, "task new step"],
) -> Sequences:
    """With new episodes in the place of the oldest, after `before` that were so remembered."""
    room, number = data.weight.shape[1], action.shape[1]
    # What the same batch overwrites is left out: which of two would stay is not defined.
    kept = min(room, number)
    place = (before + number - kept + jnp.arange(kept)) % room
    return Sequences(
        data.observation.at[:, place].set(observation[:, -kept:]),
        data.action.at[:, place].set(action[:, -kept:]),
        data.weight.at[:, place].set(1.0),
    )


def random_models(
    tasks: int, hidden: int, actions: int, observations: int, *, key: PRNGKeyArray
) -> TiedModels:
    """Every row from a flat Dirichlet distribution."""
    keys = jax.random.split(key, 3)

    def rows(key, *shape):
        # Shares of exponential numbers are so distributed, and compile much faster.
        return _normalised(jax.random.exponential(key, shape))

    return TiedModels(
        rows(keys[0], hidden),
        rows(keys[1], hidden, actions, hidden),
        rows(keys[2], tasks, hidden, observations),
    )


def observation_law(
    initial: Float[Array, " hidden"],
    transition: Float[Array, "hidden action hidden"],
    emission: Float[Array, "hidden observation"],
    *,
    steps: int,
) -> Float[Array, "plan sequence"]:
    """How likely each sequence of `steps + 1` observations is, for each sequence of actions.

    Sequences are counted like numbers whose first digit is the first observation or action.
    """
    forwards = (initial[:, None] * emission).T[None]
    for _ in range(steps):
        moved = jnp.einsum("pqs,sat->paqt", forwards, transition)
        seen = moved[:, :, :, None, :] * emission.T[None, None, None]
        plans, actions, sequences, observations, hidden = seen.shape
        forwards = seen.reshape(plans * actions, sequences * observations, hidden)
    return jnp.sum(forwards, axis=-1)


def total_variation(
    first: Float[Array, "plan sequence"], second: Float[Array, "plan sequence"]
) -> Float[Array, " plan"]:
    """Half of the sum of the differences of two laws, for each sequence of actions."""
    return 0.5 * jnp.sum(jnp.abs(first - second), axis=-1)


def most_disputed_plan(
    models: TiedModels, likely: Bool[Array, " restart"], *, steps: int
) -> tuple[Int[Array, "task step"], Float[Array, " task"]]:
    """Of the two likely models that are farthest apart, the actions under which they are.

    How far apart two are is the sum over tasks of the largest total variation distance of their
    laws under any sequence of actions, which is that task's plan.

    **Returns:** plans, and that distance in each task: zero where a single model is likely.
    """
    actions = models.transition.shape[-2]

    def of_task(emission):
        laws = jax.lax.map(
            lambda each: observation_law(*each, steps=steps),
            (models.initial, models.transition, emission),
        )

        def against(law):
            apart = jax.lax.map(lambda other: total_variation(law, other), laws)
            return jnp.argmax(apart, axis=-1), jnp.max(apart, axis=-1)

        return jax.lax.map(against, laws)

    plan, apart = jax.lax.map(of_task, jnp.swapaxes(models.emission, 0, 1))
    both = likely[:, None] & likely[None]
    farthest = jnp.argmax(jnp.where(both, jnp.sum(apart, axis=0), -1.0))
    chosen = plan.reshape(len(plan), -1)[:, farthest]
    digits = actions ** jnp.arange(steps - 1, -1, -1)
    return chosen[:, None] // digits[None] % actions, apart.reshape(len(plan), -1)[:, farthest]


def memoryless_policy(
    initial: Float[Array, " hidden"],
    transition: Float[Array, "hidden action hidden"],
    emission: Float[Array, "hidden observation"],
    reward: Float[Array, "horizon observation action"],
) -> Float[Array, "horizon observation action"]:
    """A policy by the last observation no step of which can be improved alone, as a rule.

    Each sweep goes from the last step back and takes what is best given the hidden states that the
    steps before lead to and what the steps after earn, so that the return never falls.
    """

    def forward(hidden, policy):
        moved = jnp.einsum("s,so,oa,sat->t", hidden, emission, policy, transition)
        return moved, hidden

    def backward(after, step):
        hidden, reward = step
        onward = transition @ after
        joint = hidden[:, None] * emission
        value = jnp.sum(joint, axis=0)[:, None] * reward + jnp.einsum("so,sa->oa", joint, onward)
        chosen = jax.nn.one_hot(jnp.argmax(value, axis=-1), reward.shape[-1])
        worth = jnp.einsum("so,oa,oa->s", emission, chosen, reward)
        return worth + jnp.einsum("so,oa,sa->s", emission, chosen, onward), chosen

    def sweep(policy, _):
        hidden = jax.lax.scan(forward, initial, policy)[1]
        steps = hidden, reward
        return jax.lax.scan(backward, jnp.zeros_like(initial), steps, reverse=True)[1], None

    even = jnp.full_like(reward, 1.0 / reward.shape[-1])
    return jax.lax.scan(sweep, even, length=_SWEEPS)[0]


def likeliest_models(
    data: Sequences,
    start: TiedModels,
    *,
    iterations: int,
    smoothing: float | Float[Array, ""],
    frozen: Bool[Array, ""] | bool = False,
) -> tuple[TiedModels, Float[Array, ""]]:
    """Baum–Welch with the first states and transitions tied over tasks; the log-likelihood.

    **Arguments:** `start`: where it begins, of which it finds a local maximum; `smoothing`: added
    to every expected count; `frozen`: fit emissions only.
    """
    expected = _in_blocks(data)

    # The last pass is for the likelihood alone: one program for both compiles in half the time.
    def one(carry, last):
        models, _ = carry
        initial, moves, emits, likelihood = expected(models)
        new = TiedModels(
            _normalised(initial + smoothing),
            _normalised(moves + smoothing),
            _normalised(emits + smoothing),
        )
        new = TiedModels(
            jnp.where(frozen | last, models.initial, new.initial),
            jnp.where(frozen | last, models.transition, new.transition),
            jnp.where(last, models.emission, new.emission),
        )
        return (new, likelihood), None

    last = jnp.arange(iterations + 1) == iterations
    return jax.lax.scan(one, (start, jnp.zeros(())), last)[0]


def _in_blocks(data: Sequences) -> Callable[[TiedModels], _Expected]:
    """Expected counts given models. Room in which nothing is remembered takes no time."""
    room = data.weight.shape[1]
    size = min(room, _BLOCK)
    pad = lambda x: jnp.pad(x, [(0, 0), (0, -room % size)] + [(0, 0)] * (x.ndim - 2))
    padded = jax.tree.map(pad, data)
    used = jnp.max(jnp.where(jnp.any(data.weight > 0.0, axis=0), jnp.arange(1, room + 1), 0))

    def expected(models: TiedModels) -> _Expected:
        def add(block, total):
            part = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, block * size, size, axis=1), padded
            )
            return jax.tree.map(jnp.add, total, _expected_counts(part, models))

        parts = models.initial, models.transition, models.emission, jnp.zeros(())
        nothing: Any = jax.tree.map(jnp.zeros_like, parts)
        return jax.lax.fori_loop(0, (used + size - 1) // size, add, nothing)

    return expected


def _expected_counts(data: Sequences, models: TiedModels) -> _Expected:
    """Of first states, moves and emissions, and the log-likelihood of all episodes.

    Episodes are the last axis everywhere, which is long; everything else is a handful of numbers.
    """
    hidden, actions, _ = models.transition.shape
    rows = models.transition.reshape(hidden * actions, hidden)
    observations, number = models.emission.shape[-1], data.weight.size
    # [step, what, task, episode]
    seen, done = (jnp.moveaxis(x, -1, 0) for x in (data.observation, data.action))
    shown = jax.nn.one_hot(seen, observations, dtype=rows.dtype, axis=1)
    chosen = jax.nn.one_hot(done, actions, dtype=rows.dtype, axis=1).reshape(-1, actions, number)
    weight = data.weight.reshape(1, number)

    def likely(shown):
        emission = jnp.moveaxis(models.emission, 0, -1)[..., None]
        return jnp.sum(emission * shown[None], axis=1).reshape(hidden, number)

    def scaled(joint):
        # What no model thinks possible counts as next to impossible.
        total = jnp.maximum(jnp.sum(joint, axis=0, keepdims=True), 1e-30)
        return joint / total, jnp.log(total)

    def forward(before, step):
        shown, chosen = step
        joint = (before[:, None] * chosen[None]).reshape(hidden * actions, number)
        moved = rows.T @ joint
        now, log = scaled(moved * likely(shown))
        return now, (joint, moved, now, log)

    def backward(carry, step):
        after, moves, emits = carry
        shown, chosen, joint, moved, now = step
        emits += _emitted(now * after, shown, weight)
        ahead = likely(shown) * after
        # The joint of two steps is known up to a factor, which makes it add up to the weight.
        total = jnp.maximum(jnp.sum(moved * ahead, axis=0, keepdims=True), 1e-30)
        moves += joint @ (ahead * (weight / total)).T
        back = (rows @ ahead).reshape(hidden, actions, number)
        before, _ = scaled(jnp.sum(back * chosen[None], axis=1))
        return (before, moves, emits), None

    first, log = scaled(models.initial[:, None] * likely(shown[0]))
    _, (joint, moved, now, logs) = jax.lax.scan(forward, first, (shown[1:], chosen))
    start = jnp.ones_like(first), jnp.zeros_like(rows), jnp.zeros_like(models.emission)
    steps = shown[1:], chosen, joint, moved, now
    (earliest, moves, emits), _ = jax.lax.scan(backward, start, steps, reverse=True)
    states = first * earliest
    emits += _emitted(states, shown[0], weight)
    initial = jnp.sum(states * (weight / _total(states)), axis=1)
    likelihood = jnp.sum(weight * (log + jnp.sum(logs, axis=0)))
    return initial, (moves * rows).reshape(models.transition.shape), emits, likelihood


def _emitted(states: Array, shown: Array, weight: Array) -> Float[Array, "task hidden observation"]:
    """Expected counts of what hidden states showed in one step."""
    states *= weight / _total(states)
    return jnp.einsum("sie,oie->iso", states.reshape(len(states), *shown.shape[1:]), shown)


def _total(states: Array) -> Array:
    return jnp.maximum(jnp.sum(states, axis=0, keepdims=True), 1e-30)


def _normalised(counts: Array) -> Array:
    total = jnp.sum(counts, axis=-1, keepdims=True)
    even = jnp.full_like(counts, 1.0 / counts.shape[-1])
    return jnp.where(total > 0.0, counts / jnp.where(total > 0.0, total, 1.0), even)
