"""Bonuses, counts and exact policies of low-rank models in NumPy loops."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes

TASKS, HORIZON, STATES, ACTIONS, BATCH, RANK = 2, 3, 3, 2, 4, 2


DELTA = 0.1


def data_of(seed: int, lead: tuple[int, ...]) -> Episodes:
    random = np.random.default_rng(seed)
    shape = (*lead, BATCH, HORIZON)
    state = random.integers(0, STATES, (*shape, HORIZON + 1))
    action = random.integers(0, ACTIONS, (*shape, HORIZON))
    reward = random.uniform(size=(*shape, HORIZON)).astype(np.float32)
    return Episodes(jnp.asarray(state), jnp.asarray(action), jnp.asarray(reward))


def problem(lead: tuple[int, ...]) -> FiniteProblem:
    random = np.random.default_rng(9)
    return FiniteProblem(
        STATES,
        ACTIONS,
        HORIZON,
        initial=jnp.asarray(random.dirichlet(np.ones(STATES), lead or None), jnp.float32),
        reward=jnp.asarray(random.uniform(size=(*lead, HORIZON, STATES, ACTIONS)), jnp.float32),
        tasks=lead[0] if lead else None,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def learn(method, lead, data):
    state = method.init(problem(lead), key=jax.random.key(0))
    for seed, each in enumerate(data):
        state, metrics = method.update(state, each, key=jax.random.key(seed))
    return state, metrics


def both_constants(cls, lead):
    data = tuple(data_of(seed, lead) for seed in range(2))
    for constants in ("practical", "theorem"):
        method = cls(rank=RANK, episodes_per_step=BATCH, constants=constants, num_restarts=2)
        yield constants, *learn(method, lead, data), data


def log_classes(updates: int) -> tuple[float, float]:
    features = STATES * ACTIONS * np.log(RANK)
    return features, RANK * STATES * np.log(1.0 + updates)


def bonus_of(feature, pairs, scale, ridge, highest):
    """`pairs[step]`: the pairs of state and action that were seen."""
    bonus = np.zeros((HORIZON, STATES, ACTIONS))
    for step in range(HORIZON):
        matrix = ridge * np.eye(RANK)
        for state, action in pairs[step]:
            matrix += np.outer(feature[step, state, action], feature[step, state, action])
        inverse = np.linalg.inv(matrix)
        for state, action in np.ndindex(STATES, ACTIONS):
            phi = feature[step, state, action]
            bonus[step, state, action] = min(scale * np.sqrt(phi @ inverse @ phi), highest)
    return bonus


def targets(data, lead, back=0):
    """Pairs seen at each step by the episodes that were played for the step `back` after it."""
    pairs = [[] for _ in range(HORIZON)]
    for each in data:
        state, action = np.asarray(each.state)[lead], np.asarray(each.action)[lead]
        for episode, target in np.ndindex(BATCH, HORIZON):
            step = target - back
            if step >= 0:
                at = episode, target, step
                pairs[step].append((state[at], action[at]))
    return pairs


def model_of(state):
    feature = np.asarray(state.factors.feature, np.float64)
    measure = np.asarray(state.factors.measure, np.float64)
    return feature, np.einsum("hsaf,htfn->thsan", feature, measure)


def policies():
    """All deterministic policies."""
    for choice in itertools.product(range(ACTIONS), repeat=HORIZON * STATES):
        yield np.eye(ACTIONS)[np.reshape(choice, (HORIZON, STATES))]


def expected_of(model, initial, reward, policy):
    """What a policy earns at each step."""
    here, earned = np.asarray(initial, np.float64), []
    for step in range(HORIZON):
        visited = here[:, None] * policy[step]
        earned.append(np.sum(visited * reward[step]))
        here = np.einsum("sa,san->n", visited, model[step])
    return np.asarray(earned)


def expect_practical_constants(cls):
    """Fails unless the constants that work in practice are the default."""
    fields = {field.name: field.default for field in dataclasses.fields(cls)}
    chosen = fields["constants"], fields["bonus_scale"], fields["ridge"]
    assert chosen == ("practical", 1.0, 1.0)
