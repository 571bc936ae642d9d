"""SERL against RLPD, and its classifier against logistic regression and on what it may mistake."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.core.errors import DataError, SpecificationError
from headwater.environments.control.peg_insertion import PegInsertion
from headwater.environments.reset_free import DoneAndUndone
from headwater.methods.control.online.rlpd import RLPD
from headwater.methods.control.online.serl import SERL

from .. import identities

FIELDS = {
    **identities.SETTINGS,
    "num_target_critics": 2,
    "num_critic_updates": 2,
    "normalise_observations": False,
}


def _constant(state, logit):
    """The state in which the classifier says the same of everything."""
    zeros = jax.tree.map(jnp.zeros_like, state.classifier)
    biases = (*zeros.biases[:-1], jnp.full_like(zeros.biases[-1], logit))
    return dataclasses.replace(state, classifier=eqx.tree_at(lambda c: c.biases, zeros, biases))


@pytest.mark.equivalence("RLPD")
@pytest.mark.parametrize(("discrete", "says"), [(False, 1.0), (True, -1.0)])
def test_a_classifier_that_never_changes_its_mind_makes_it_rlpd(discrete, says):
    serl = SERL(classifier_learning_rate=0.0, **FIELDS)
    rlpd = RLPD(
        discount=serl.discount,
        initial_temperature=serl.initial_temperature,
        backup_entropy=serl.backup_entropy,
        layer_norm="both",
        **FIELDS,
    )
    problem, key = identities.problem(discrete), jax.random.key(3)
    state = _constant(serl.init(problem, key=key), says)
    found = jax.tree.map(lambda x: x[0], state.soft)
    for i in (0, 1):
        data = identities.batch(i, discrete)
        rewarded = dataclasses.replace(data, reward=jnp.full_like(data.reward, says > 0.0))
        update_key = jax.random.key(i)
        state = eqx.filter_jit(serl.update)(state, data, key=update_key)[0]
        # Every policy has a key of its own.
        found = eqx.filter_jit(rlpd.update)(
            found, rewarded, key=jax.random.split(update_key, 1)[0]
        )[0]
    identities.expect_same(jax.tree.map(lambda x: x[0], state.soft), found)


def _judge(method, data, steps=400, problem=None):
    """What its classifier says of each row's next observation, after learning from `data` only."""
    state = method.init(problem or identities.problem(), key=jax.random.key(0))
    update = eqx.filter_jit(lambda state, key: method.update(state, data, key=key)[0])
    for key in jax.random.split(jax.random.key(1), steps):
        state = update(state, key)
    return state


def _rows(places, reward):
    """Rows that lead to these places, `[row, 3]`, with these rewards."""
    count = len(places)
    template = jax.tree.map(lambda x: x[jnp.zeros(count, jnp.int32)], identities.batch(0))
    never = jnp.zeros(count, bool)
    return dataclasses.replace(
        template,
        observation=jnp.zeros((count, 3)),
        next_observation=jnp.asarray(places, jnp.float32),
        reward=jnp.asarray(reward, jnp.float32),
        terminal=never,
        truncated=never,
    )


A, B, BEYOND = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, -2.0, 0.0]
SMALL = {
    **FIELDS,
    "classifier_learning_rate": 0.02,
    "num_critic_updates": 1,
    "layer_norm": "none",
}


@pytest.mark.oracle
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_finds_how_likely_a_success_is(smoothing):
    # Of the successes 3 in 4 lead to A, of the failures 1 in 3: with both kinds counting the same,
    # the odds at A are (3/4) / (1/3), before labels are smoothed.
    places = [A, A, A, B, A, B, B]
    data = _rows(places, [1.0, 1.0, 1.0, 1.0, np.nan, np.nan, 0.0])
    method = SERL(label_smoothing=smoothing, **SMALL)
    state = _judge(method, data)
    for place, (up, down) in ((A, (3 / 4, 1 / 3)), (B, (1 / 4, 2 / 3))):
        share = up / (up + down)
        expected = share * (1.0 - smoothing) + (1.0 - share) * smoothing
        np.testing.assert_allclose(method.success(state, jnp.asarray(place)), expected, atol=0.01)


@pytest.mark.oracle
@pytest.mark.parametrize(("online", "mistaken"), [(True, False), (False, True)])
def test_what_it_does_itself_corrects_a_mistake(online, mistaken):
    # From failure to success and on in the same direction: the log does not say that this is wrong.
    data = _rows([A, B, BEYOND, BEYOND], [1.0, 0.0, np.nan, np.nan])
    method = SERL(online_negatives=online, **SMALL)
    state = _judge(method, data)
    assert (method.success(state, jnp.asarray(A)) > 0.5).item()
    assert (method.success(state, jnp.asarray(BEYOND)) > 0.5).item() == mistaken


@pytest.mark.oracle
def test_each_policy_has_successes_of_its_own():
    # The last component says which was asked for: A is success of the first, B of the second.
    asked = jnp.asarray([0.0, 0.0, 1.0, 1.0])
    data = _rows([A, B, A, B], [1.0, 0.0, 0.0, 1.0])
    data = dataclasses.replace(
        data,
        observation=data.observation.at[:, -1].set(asked),
        next_observation=data.next_observation.at[:, -1].set(asked),
    )
    method = SERL(num_policies=2, **SMALL)
    state = _judge(method, data)
    likely = method.success(state, data.next_observation)
    np.testing.assert_array_equal(likely > 0.5, data.reward > 0.5)
    actions = [
        method.act(state, jnp.asarray([0.3, 0.3, number]), key=jax.random.key(0), explore=False)[0]
        for number in (0.0, 1.0)
    ]
    alone = [
        SERL(**SMALL).act(
            jax.tree.map(lambda x, n=number: x[n][None], state),
            jnp.asarray([0.3, 0.3, float(number)]),
            key=jax.random.key(0),
            explore=False,
        )[0]
        for number in (0, 1)
    ]
    np.testing.assert_allclose(jnp.stack(actions), jnp.stack(alone), rtol=1e-5)
    assert not np.allclose(actions[0], actions[1])


def test_more_critics_in_the_target_than_there_are():
    with pytest.raises(SpecificationError, match="SERL: num_target_critics=3 must be between 1"):
        SERL(num_critics=2, num_target_critics=3)


def _demonstrations(task, reward):
    rows = 12
    draw = np.random.default_rng(0)
    observations = draw.uniform(0.0, 1.0, (rows, task.spaces.observation_size))
    return hw.Dataset.from_arrays(
        observations.astype(np.float32),
        draw.uniform(-1, 1, (rows, 2)).astype(np.float32),
        np.full(rows, reward),
        np.zeros(rows, bool),
        np.arange(rows) % 6 == 5,
        observations[::-1].astype(np.float32),
        action_low=-1.0,
        action_high=1.0,
    )


TINY = {"steps": 8, "random_steps": 4, "batch_size": 4, "seeds": 1, "evaluations": 1, "episodes": 1}


def test_through_the_front_door_without_resets():
    task = DoneAndUndone(PegInsertion(horizon=3), rounds=2)
    method = SERL(num_policies=2, **{**FIELDS, "num_critic_updates": 2})
    run = hw.train(method, data=_demonstrations(task, 1.0), env=task, **TINY, progress=False)
    assert run.finished and np.isfinite(run.metrics[-1]["metrics"]["classifier_loss"]).all()


def test_a_log_without_successes():
    with pytest.raises(DataError, match="SERL learns what success is from logged rows whose rew"):
        hw.train(
            SERL(**FIELDS), data=_demonstrations(PegInsertion(), 0.0), env=PegInsertion(), **TINY,
            progress=False,
        )  # fmt: skip
