"""OPPO: one update against NumPy, and contexts on a log of two kinds of behaviour."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.core.records import ComparisonsAndSegments, SegmentComparisons, Segments
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.preferences.oppo import OPPO
from headwater.runs.learn import learn
from headwater.sources.segments.compared import ComparedAndLogged, ComparedSegments

SPACES = Spaces(Box((-9.0, -9.0), (9.0, 9.0)), Box((-1.0,), (1.0,)))


def segments(seed, count=6, steps=4) -> Segments:
    keys = jax.random.split(jax.random.key(seed))
    return Segments(
        jax.random.normal(keys[0], (count, steps, 2)),
        jax.random.uniform(keys[1], (count, steps, 1), minval=-1.0),
    )


@pytest.mark.parity
def test_losses_and_the_step_of_the_context_are_those_of_the_paper():
    method = OPPO(width=8, layers=1, context_size=3, hidden_sizes=(5,))
    state = method.init(SPACES, key=jax.random.key(0))
    preference = jnp.asarray([1.0, 0.0, 0.5, 1.0, 0.0, 0.5])
    pairs = SegmentComparisons(segments(1), segments(2), preference)
    data = ComparisonsAndSegments(pairs, segments(3))
    after, metrics = method.update(state, data, key=jax.random.key(4))
    z = [np.asarray(state.networks.encoder(x)) for x in (pairs.first, pairs.second, data.logged)]
    w = np.asarray(state.context)
    told = np.asarray(preference) != 0.5
    first = (np.asarray(preference) == 1.0)[:, None]
    near, far = np.where(first, z[0], z[1]), np.where(first, z[1], z[0])

    def triplet(w):
        gap = np.linalg.norm(w - near, axis=1) - np.linalg.norm(w - far, axis=1)
        return np.maximum(gap + 1.0, 0.0)[told].mean()

    np.testing.assert_allclose(metrics["triplet_loss"], triplet(w), rtol=1e-5)
    length = np.linalg.norm(np.stack(z), axis=-1)
    np.testing.assert_allclose(metrics["norm_loss"], np.mean((length - 1) ** 2), rtol=1e-5)
    errors = []
    for found, context in zip((pairs.first, pairs.second, data.logged), z):
        repeated = np.repeat(context[:, None], 4, axis=1)
        inputs = jnp.asarray(np.concatenate([found.observation, repeated], axis=-1))
        errors.append(np.mean((np.asarray(state.networks.actor(inputs)) - found.action) ** 2))
    np.testing.assert_allclose(metrics["clone_loss"], np.mean(errors), rtol=1e-5)
    # Adam's first step is its rate in the direction of each component of the slope.
    slope = [(triplet(w + 1e-3 * e) - triplet(w - 1e-3 * e)) for e in np.eye(3)]
    step = np.asarray(after.context) - w
    np.testing.assert_allclose(step, -1e-3 * np.sign(slope), rtol=1e-3)


def two_skills(discrete) -> tuple[Spaces, ComparedAndLogged, np.ndarray, np.ndarray]:
    """Episodes that all do a = s or all do a = -s; judges prefer the former, however they begin."""
    draw = np.random.default_rng(0)
    episodes, length = 200, 6
    skill = np.repeat(draw.random(episodes) < 0.5, length)
    seen = draw.uniform(-1, 1, (episodes * length, 2)).astype(np.float32)
    right = np.where(skill, seen[:, 0], -seen[:, 0]).astype(np.float32)
    begins = length * draw.integers(0, episodes, (2, 400))
    preference = np.where(
        skill[begins[0]] == skill[begins[1]], 0.5, skill[begins[0]].astype(float)
    ).astype(np.float32)
    action = (right > 0).astype(np.int32) if discrete else right[:, None]
    compared = ComparedSegments(*map(jnp.asarray, (seen, action, *begins, preference)), length, 32)
    places = length * np.arange(episodes)
    spaces = Spaces(SPACES.observation, Discrete(2)) if discrete else SPACES
    return spaces, ComparedAndLogged(compared, jnp.asarray(places)), skill, places


@pytest.mark.oracle
@pytest.mark.parametrize("discrete", [False, True])
def test_it_acts_as_the_preferred_of_two_skills_that_cloning_would_average(discrete):
    spaces, source, skill, places = two_skills(discrete)
    method = OPPO(
        width=16, layers=1, context_size=2, hidden_sizes=(32, 32), learning_rate=3e-3,
        context_learning_rate=1e-2,
    )  # fmt: skip
    state = eqx.filter_jit(learn)(method, spaces, source, 1_500, key=jax.random.key(0)).state
    seen = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (200, 2)), jnp.float32)
    act = jax.vmap(lambda x: method.act(state, x, key=jax.random.key(0), explore=False)[0])
    done = np.asarray(act(seen))
    if discrete:
        assert np.mean(done == (seen[:, 0] > 0)) > 0.95
    else:
        assert np.mean(np.abs(done[:, 0] - seen[:, 0])) < 0.1
    away = np.asarray(method.distance(state, source.compared.segments(jnp.asarray(places))))
    preferred = skill[places]
    assert away[preferred].mean() + 0.5 < away[~preferred].mean()


def test_equal_pairs_leave_the_context_alone():
    method = OPPO(width=8, layers=1, hidden_sizes=(5,))
    state = method.init(SPACES, key=jax.random.key(0))
    pairs = SegmentComparisons(segments(1), segments(2), jnp.full(6, 0.5))
    after, metrics = method.update(
        state, ComparisonsAndSegments(pairs, segments(3)), key=jax.random.key(4)
    )
    np.testing.assert_array_equal(after.context, state.context)
    assert metrics["triplet_loss"] == 0.0


def test_gradients_of_networks_are_clipped():
    assert dataclasses.asdict(OPPO())["max_gradient_norm"] == 0.25
    method = OPPO(width=8, layers=1, hidden_sizes=(5,), max_gradient_norm=1e-12, weight_decay=0.0)
    loose = dataclasses.replace(method, max_gradient_norm=1.0)
    state = method.init(SPACES, key=jax.random.key(0))
    data = ComparisonsAndSegments(
        SegmentComparisons(segments(1), segments(2), jnp.ones(6)), segments(3)
    )

    def moved(method):
        after, _ = method.update(state, data, key=jax.random.key(4))
        difference = jax.tree.map(lambda a, b: a - b, after.networks, state.networks)
        return float(optax.tree.norm(difference))

    # Adam divides by the size of the gradient, but adds 1e-8 first.
    assert moved(method) < 1e-3 * moved(loose)
