"""The ensemble on a process that is known, and its loss against NumPy."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Spaces, Statistics
from headwater.methods.control.model_based.dynamics_ensemble import DynamicsEnsemble
from headwater.ops.control.noise import held_out_or_drawn, row_numbers
from headwater.runs.learn import learn
from headwater.sources.replay import Replay

from .. import identities
from ..numpy_twin import STD, batch, leaves, problem, standardised, update

NOISE, ROWS = 0.1, 4_000


def drift(observation, action, noise):
    """Where it leads, what it brings and whether it ends: known in closed form."""
    following = observation + jnp.asarray([[0.5, 0.0]]) * action + NOISE * noise
    return following, 0.3 * observation[:, 1] + 0.1 * action[:, 0], observation[:, 0] > 1.5


@pytest.fixture(scope="module")
def learned():
    """The method, its state after training and the rows that it learned from."""
    keys = jax.random.split(jax.random.key(0), 3)
    observation = 2.0 * jax.random.normal(keys[0], (ROWS, 2))
    action = jax.random.uniform(keys[1], (ROWS, 1), minval=-1.0, maxval=1.0)
    following, reward, terminal = drift(observation, action, jax.random.normal(keys[2], (ROWS, 2)))
    # Nobody knows what stands behind an end.
    following = jnp.where(terminal[:, None], jnp.nan, following)
    data = Transitions(observation, action, reward, following, terminal, jnp.zeros_like(terminal))
    numbers = {field.name: jnp.zeros(()) for field in dataclasses.fields(Statistics)}
    statistics = Statistics(
        **{
            **numbers,
            "observation_mean": jnp.mean(observation, axis=0),
            "observation_std": jnp.std(observation, axis=0),
            "reward_std": jnp.std(reward),
            "terminal_share": jnp.mean(terminal),
        }
    )
    spaces = Spaces(Box((-9.0,) * 2, (9.0,) * 2), Box((-1.0,), (1.0,)), statistics=statistics)
    method = DynamicsEnsemble(hidden_sizes=(32, 32), num_members=4, num_elites=3)
    run = jax.jit(lambda key: learn(method, spaces, Replay(data, 128), 4_000, key=key).state)
    return method, run(jax.random.key(1)), data


@eqx.filter_jit
def asked(method, state, observation, action):
    """The predictions for each row of `[row, …]`."""
    return jax.vmap(lambda o, a: method.predict(state, o, a))(observation, action)


@pytest.mark.oracle
def test_a_known_process_is_learned_with_its_noise_and_its_ends(learned):
    method, state, data = learned
    kept = jnp.flatnonzero(~data.terminal)[:500]
    found = asked(method, state, data.observation[:500], data.action[:500])
    inside = asked(method, state, data.observation[kept], data.action[kept])
    true = drift(data.observation[kept], data.action[kept], jnp.zeros((kept.size, 2)))[0]
    assert np.mean(np.abs(inside.next_observation - true)) < 0.03
    assert np.mean(np.abs(found.reward - data.reward[:500])) < 0.06 * np.std(data.reward)
    # Two components of noise, and nearly none of the reward.
    assert abs(np.median(inside.spread) - NOISE * np.sqrt(2.0)) < 0.03
    away = np.abs(np.asarray(data.observation[:500, 0]) - 1.5) > 0.3
    assert np.mean((found.terminal == data.terminal[:500])[away]) > 0.99


@pytest.mark.oracle
def test_steps_are_drawn_with_the_noise_of_the_process(learned):
    method, state, _ = learned
    observation, action = jnp.asarray([0.5, -0.5]), jnp.asarray([0.4])
    draw = jax.jit(jax.vmap(lambda key: method.step(state, observation, action, key=key)))
    steps = draw(jax.random.split(jax.random.key(2), 2_000))
    np.testing.assert_allclose(np.mean(steps.next_observation, 0), [0.7, -0.5], atol=0.05)
    np.testing.assert_allclose(np.std(steps.next_observation, 0), NOISE, atol=0.03)
    assert not steps.terminal.any()


@pytest.mark.oracle
def test_a_question_far_beyond_the_data_is_flagged(learned):
    method, state, data = learned
    inside = asked(method, state, data.observation[:500], data.action[:500])
    outside = asked(method, state, 20.0 + data.observation[:500], data.action[:500])
    assert np.mean(inside.beyond) < 0.02 and np.mean(outside.beyond) > 0.95
    assert np.median(outside.disagreement) > 10.0 * np.median(inside.disagreement)
    fresh = eqx.tree_at(lambda s: s.batches, state, jnp.zeros((), jnp.int32))
    found = asked(method, fresh, 20.0 + data.observation[:500], data.action[:500])
    assert not found.beyond.any(), "before any data"


@pytest.mark.oracle
def test_elites_are_the_members_with_the_smallest_held_out_error(learned):
    method, state, _ = learned
    # A member that is spoilt predicts nothing any more.
    best = int(jnp.argmin(state.error))
    spoilt = eqx.tree_at(lambda s: s.error, state, state.error.at[best].set(9.0))
    ask = (jnp.ones((500, 2)), jnp.zeros((500, 1)))
    broken = jax.tree.map(lambda x: x.at[best].multiply(50.0), spoilt.networks.members)
    broken = eqx.tree_at(lambda s: s.networks.members, spoilt, broken)
    for name in ("next_observation", "reward"):
        before, after = (getattr(asked(method, s, *ask), name) for s in (spoilt, broken))
        np.testing.assert_array_equal(before, after)


def shares_of(method, data):
    """Which rows are held out, and how often the others count."""
    number = row_numbers(data.observation, data.action, data.reward)
    return held_out_or_drawn(number, method.held_out_share, method.num_members)


@pytest.mark.oracle
def test_a_row_is_always_on_the_same_side_and_counts_as_in_a_bootstrap(learned):
    method, _, data = learned
    shares = jax.jit(functools.partial(shares_of, method))
    held_out, counts = shares(data)
    assert abs(np.mean(held_out) - 0.2) < 0.03
    assert not counts[:, held_out].any()
    drawn = np.asarray(counts)[:, ~np.asarray(held_out)]
    # A Poisson number of mean 1, of which a share of 1/e is zero; members draw apart.
    assert abs(drawn.mean() - 1.0) < 0.05 and abs(np.mean(drawn == 0) - np.exp(-1)) < 0.03
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.05
    rows = jnp.arange(ROWS)[::-3]
    some = jax.tree.map(lambda x: x[rows], data)
    np.testing.assert_array_equal(shares(some)[1], counts[:, rows])


@pytest.mark.parity
def test_the_loss_of_an_update():
    method = DynamicsEnsemble(hidden_sizes=(5,), num_members=2, num_elites=1)
    state = identities.begin(method, problem(False))
    data = batch(0, False)
    held_out, counts = map(np.asarray, jax.jit(functools.partial(shares_of, method))(data))
    after, metrics = update(method, state, data, key=jax.random.key(2))
    s, s_next = standardised(data.observation), standardised(data.next_observation)
    ends = np.asarray(data.terminal)
    target = np.concatenate([s_next - s, np.asarray(data.reward)[:, None]], -1)
    read = np.ones_like(target)
    read[ends, :-1], target[ends, :-1] = 0.0, 0.0
    total, errors = 0.0, []
    for member in range(2):
        weights = [leaf[member] for leaf in leaves(state.networks.members)]
        first, last, first_bias, last_bias = weights
        hidden = np.concatenate([s, np.asarray(data.action, np.float64)], -1) @ first + first_bias
        out = hidden / (1.0 + np.exp(-hidden)) @ last + last_bias
        mean, raw, end = out[:, :4], out[:, 4:8], out[:, 8]
        raw = 0.5 - np.logaddexp(0.0, 0.5 - raw)
        log_variance = -10.0 + np.logaddexp(0.0, raw + 10.0)
        error = read * (mean - target) ** 2
        likely = np.mean(error * np.exp(-log_variance) + read * log_variance, -1)
        surprise = np.logaddexp(0.0, np.where(ends, -end, end))
        total += np.sum(counts[member] * (likely + surprise)) / max(counts[member].sum(), 1.0)
        errors.append(np.mean(error, -1))
    np.testing.assert_allclose(metrics["loss"], total, rtol=1e-4)
    assert held_out.any() and STD.size == 3
    expected = np.stack(errors)[:, held_out].mean(-1)
    np.testing.assert_allclose(after.error, expected, rtol=1e-4)


def test_there_are_no_more_elites_than_members():
    with pytest.raises(SpecificationError, match="num_elites=5 must be at most num_members=3"):
        DynamicsEnsemble(num_members=3)
