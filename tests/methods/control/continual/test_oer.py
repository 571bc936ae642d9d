"""OER against TD3+BC and NumPy, and on tasks whose answers are known."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import TaskLog, Transitions
from headwater.core.spaces import Box, Spaces, Statistics
from headwater.evidence.claim import with_numbers
from headwater.methods.control.continual.oer import OER
from headwater.methods.control.offline.td3_bc import TD3BC
from headwater.networks.normaliser import Normaliser
from headwater.parts.continual.kept_experience import (
    KeptExperience,
    choose_rows,
    rows_along_rollouts,
)
from headwater.runs.learn import learn
from headwater.sources.replay import Replay

from ..numpy_twin import Perceptron, batch, begin, leaves, problem, standardised, update

_FIELDS = {"target_policy_noise": 0.0, "learning_rate": 1e-2, "hidden_sizes": (8, 8)}


# Which rows are kept ----------------------------------------------------------------------------


def _corridor(ends: int | None = None) -> TaskLog:
    """Ten places in a row, logged in another order; the second component never changes."""
    place = np.random.default_rng(0).permutation(10)
    observation = np.stack([place, np.full(10, 7.0)], axis=-1).astype(np.float32)
    rows = Transitions(
        observation=jnp.asarray(observation),
        action=jnp.asarray(-observation[:, :1]),
        reward=jnp.asarray(np.abs(place - 4.25), jnp.float32),
        next_observation=jnp.asarray(observation),
        terminal=jnp.asarray(place == ends),
        truncated=jnp.zeros(10, bool),
    )
    return TaskLog(rows, jnp.asarray(np.flatnonzero(place == 0)))


def _places(log: TaskLog, rows) -> list[int]:
    return np.asarray(log.rows.observation[rows, 0], int).tolist()


@pytest.mark.oracle
def test_rollouts_go_on_from_the_logged_rows_so_that_errors_do_not_add_up():
    log, key = _corridor(), jax.random.key(0)
    # Each step is wrong by 0.4, and the component that never changes by much more.
    step = lambda x: x + jnp.asarray([[2.4, 90.0]])
    rows = rows_along_rollouts(step, log, 5, rollout_steps=8, key=key)
    assert _places(log, rows) == [0, 2, 4, 6, 8]
    # Another rollout begins at the row nearest to the beginning that is not chosen yet.
    rows = rows_along_rollouts(step, log, 6, rollout_steps=3, key=key)
    assert _places(log, rows) == [0, 2, 4, 1, 3, 5]
    ended = _corridor(ends=2)
    rows = rows_along_rollouts(step, ended, 6, rollout_steps=8, key=key)
    assert _places(ended, rows) == [0, 2, 1, 3, 5, 7]


@pytest.mark.oracle
def test_a_rollout_that_stands_still_takes_the_rows_around_it():
    log = _corridor()
    rows = rows_along_rollouts(lambda x: x + 0.2, log, 12, rollout_steps=20, key=jax.random.key(0))
    # Once all were chosen, they may be again.
    assert _places(log, rows) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 8]


@pytest.mark.oracle
def test_the_other_selections():
    log, key = _corridor(), jax.random.key(0)
    best = choose_rows("reward", jnp.negative, log, 3, rollout_steps=1, key=key)
    assert _places(log, best) == [9, 0, 8]
    for count in (6, 10, 25):
        rows = choose_rows("random", jnp.negative, log, count, rollout_steps=1, key=key)
        times = np.bincount(rows, minlength=10)
        assert times.sum() == count and times.max() - times.min() <= 1


@pytest.mark.oracle
def test_rows_are_drawn_of_every_known_task_and_no_other():
    kept, log = KeptExperience.empty(4, 5, 2, 1), _corridor()
    for task in range(2):
        kept = kept.with_task(jnp.asarray(task), log, jnp.arange(5) + 5 * task)
    task, observation, action = kept.draw(jnp.asarray(2), 400, key=jax.random.key(1))
    assert set(np.asarray(task)) == {0, 1} and abs(np.mean(task) - 0.5) < 0.1
    for number in range(2):
        expected = np.sort(np.asarray(log.rows.observation[5 * number : 5 * number + 5, 0]))
        np.testing.assert_array_equal(np.unique(observation[task == number, 0]), expected)
    np.testing.assert_array_equal(action, -observation[:, :1])
    task, observation, action = kept.draw(jnp.asarray(0), 3, key=jax.random.key(1))
    assert not task.any()


# One task ---------------------------------------------------------------------------------------


@pytest.mark.equivalence("TD3BC")
def test_the_learner_of_a_task_is_td3_bc_told_a_constant():
    ours, plain = OER(num_tasks=1, **_FIELDS), TD3BC(**_FIELDS)
    state = begin(ours, False)
    width = problem(False).observation_size + 1
    wide = Spaces(Box((0.0,) * width, (1.0,) * width), problem(False).action)
    twin = dataclasses.replace(state.learner, normaliser=Normaliser(wide, False))
    for i in range(4):
        data, key = batch(i, False), jax.random.key(i)
        state, _ = update(ours, state, data, key=key)
        beside = lambda x: jnp.append(standardised(x).astype("float32"), jnp.ones((len(x), 1)), 1)
        told = dataclasses.replace(
            data,
            observation=beside(data.observation),
            next_observation=beside(data.next_observation),
        )
        twin, _ = update(plain, twin, told, key=key)
    for part in ("actor", "critics", "target_actor", "target_critics"):
        pairs = zip(leaves(getattr(state.learner, part)), leaves(getattr(twin, part)), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parity
def test_the_losses_of_model_and_policy():
    method = OER(num_tasks=2, replay_weight=0.5, buffer_size=1, **_FIELDS)
    state, data = begin(method, False), batch(0, False)
    past = np.asarray([1.0, 2.0, 3.0][: data.observation.shape[-1]], np.float32)
    done = np.full(data.action.shape[-1], 0.7, np.float32)
    kept = KeptExperience(
        jnp.asarray(np.stack([past, past + 50.0]))[:, None],
        jnp.asarray(np.stack([done, done - 9.0]))[:, None],
    )
    state = dataclasses.replace(state, kept=kept, task=jnp.asarray(1, jnp.int32))
    after, metrics = update(method, state, data, key=jax.random.key(0))

    s, terminal = standardised(data.observation), np.asarray(data.terminal)
    following = standardised(data.next_observation)
    predicted = s + Perceptron(leaves(state.model)).forward(np.append(s, data.action, 1))
    error = np.where(terminal[:, None], 0.0, predicted - following)
    np.testing.assert_allclose(metrics["model_loss"], np.mean(error**2), rtol=1e-4)

    def acts(actor, observation, task):
        code = np.tile(np.eye(2)[task], (len(observation), 1))
        return np.tanh(Perceptron(leaves(actor)).forward(np.append(observation, code, 1)))

    # The first update is the critics' alone, so that the learner's actor is as it was.
    cloned = np.mean((acts(state.policy, s, 1) - acts(after.learner.actor, s, 1)) ** 2)
    kept_to = np.mean((acts(state.policy, standardised(past[None]), 0) - done) ** 2)
    np.testing.assert_allclose(metrics["policy_loss"], cloned + 0.5 * kept_to, rtol=1e-4)


# Several tasks ----------------------------------------------------------------------------------


def _statistics(scale: float) -> Statistics:
    known = problem(False).statistics
    assert known is not None
    known = dataclasses.replace(known, observation_mean=scale + known.observation_mean)
    return dataclasses.replace(known, reward_std=jnp.asarray(scale))


@pytest.mark.oracle
@pytest.mark.parametrize("dual", (True, False))
def test_what_the_next_task_begins_with(dual):
    method = OER(num_tasks=3, buffer_size=4, selection="reward", dual_cloning=dual, **_FIELDS)
    state, data = begin(method, False), batch(0, False)
    state = update(method, state, data, key=jax.random.key(0))[0]
    state = update(method, state, data, key=jax.random.key(0))[0]
    following = dataclasses.replace(problem(False), statistics=_statistics(4.0))
    log = TaskLog(data, jnp.asarray([0]))
    after = eqx.filter_jit(method.next_task)(state, log, following, key=jax.random.key(2))

    best = np.argsort(-np.asarray(data.reward))[:4]
    np.testing.assert_array_equal(after.kept.observation[0], data.observation[best])
    np.testing.assert_array_equal(after.kept.action[0], data.action[best])
    assert not after.kept.observation[1:].any()
    assert (int(after.task), int(after.acting), int(after.learner.step)) == (1, 1, 0)
    # Rewards are in units of the new task, observations in those of the first.
    np.testing.assert_allclose(after.learner.normaliser.reward_scale, 0.25)
    np.testing.assert_array_equal(after.learner.normaliser.mean, state.learner.normaliser.mean)
    same = lambda a, b: all(map(np.array_equal, leaves(a), leaves(b)))
    assert same(after.policy, state.policy)
    assert same(after.learner.actor, state.learner.actor) is not dual
    assert same(after.policy, after.learner.actor) is not dual
    for part in ("critics", "target_critics"):
        assert not same(getattr(after.learner, part), getattr(state.learner, part))
    assert not same(after.model, state.model)


@pytest.mark.oracle
def test_cloning_what_was_kept_is_what_keeps_the_first_task():
    """With α = 0 the answer is what was logged: 0.6 in the first task, and -0.6 in the second."""
    rows = 64
    spaces = Spaces(Box((-1.0,), (1.0,)), Box((-1.0,), (1.0,)))
    observation = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (rows, 1)), jnp.float32)

    def log(action: float) -> TaskLog:
        ends, zeros = jnp.zeros(rows, bool), jnp.zeros(rows)
        actions = jnp.full((rows, 1), action)
        return TaskLog(
            Transitions(observation, actions, zeros, observation, ends, ends), jnp.arange(1)
        )

    @eqx.filter_jit
    def after_both(method, key):
        first, second, between = jax.random.split(key, 3)
        source = Replay(log(0.6).rows, 16)
        state = learn(method, spaces, source, 400, key=first).state
        state = method.next_task(state, log(0.6), spaces, key=between)
        source = Replay(log(-0.6).rows, 16)
        state = learn(method, spaces, source, 400, state=state, key=second).state
        acts = [
            method.act(
                method.for_task(state, jnp.asarray(i)), jnp.zeros(1), key=key, explore=False
            )[0]
            for i in range(2)
        ]
        return jnp.concatenate(acts)

    for dual in (True, False):
        method = OER(
            num_tasks=2,
            buffer_size=8,
            dual_cloning=dual,
            alpha=0.0,
            learning_rate=1e-2,
            hidden_sizes=(16,),
        )
        kept = after_both(with_numbers(method, replay_weight=1.0), jax.random.key(0))
        np.testing.assert_allclose(kept, [0.6, -0.6], atol=0.05)
        idle = with_numbers(method, replay_weight=0.0)
        forgotten = after_both(idle, jax.random.key(0))
        assert forgotten[0] < 0.45 and forgotten[1] < -0.55
