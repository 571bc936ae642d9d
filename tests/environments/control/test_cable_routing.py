import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.environments.check import check_environment
from headwater.environments.control.cable_routing import (
    FALLEN,
    HELD,
    INSERTED,
    NEXT,
    PERTURB,
    PICK_UP,
    ROUTE,
    STUCK,
    CableRouting,
    CableRoutingState,
)
from headwater.environments.control.clip_insertion import ClipInsertion
from headwater.environments.interaction import episode_returns
from headwater.methods.control.imitation.bc import BC
from headwater.networks.control.actors import DeterministicActor

KEY = jax.random.key(1)
TRIES = 4_000
HADAMARD = functools.reduce(np.kron, 4 * [np.asarray([[1.0, 1.0], [1.0, -1.0]], np.float32)])


def _after(clip: int, situation: int, action: int, tries: int = TRIES, **options):
    """States and steps after one primitive, tried often."""
    task = CableRouting(**options)
    state = CableRoutingState(*(jnp.asarray(x, jnp.int32) for x in (clip, situation, 0)))
    step = lambda key: task.step(state, jnp.asarray(action), key=key)
    return jax.jit(jax.vmap(step))(jax.random.split(jax.random.key(0), tries))


@pytest.mark.parametrize(
    ("situation", "action", "shares"),
    [
        (HELD, ROUTE, {INSERTED: 0.65, STUCK: 0.25, FALLEN: 0.1}),
        (STUCK, PERTURB, {HELD: 0.8, STUCK: 0.2}),
        (FALLEN, PICK_UP, {HELD: 0.9, FALLEN: 0.1}),
        (INSERTED, NEXT, {HELD: 1.0}),
        (STUCK, ROUTE, {STUCK: 1.0}),
        (INSERTED, PERTURB, {INSERTED: 1.0}),
        (HELD, NEXT, {HELD: 1.0}),
    ],
)
def test_primitives_succeed_as_often_as_they_say(situation, action, shares):
    reached, seen = _after(0, situation, action)
    found = np.bincount(np.asarray(reached.situation), minlength=4) / TRIES
    # Four standard deviations of such a share.
    np.testing.assert_allclose(found, [shares.get(i, 0.0) for i in range(4)], atol=0.032)
    assert set(np.asarray(reached.clip)) == {1 if (situation, action) == (INSERTED, NEXT) else 0}
    assert not np.asarray(seen.terminal).any()


def test_the_last_clip_ends_the_episode_and_the_view_shows_everything():
    reached, seen = _after(2, HELD, ROUTE, noise=0.0)
    done = np.asarray(reached.situation) == INSERTED
    np.testing.assert_array_equal(seen.terminal, done)
    np.testing.assert_array_equal(seen.reward, done)
    shown = {tuple(row): s for row, s in zip(np.asarray(seen.observation).tolist(), done)}
    assert len(shown) == 3
    # Directions at right angles: views of two situations at one clip differ by √2.
    first, second, third = (np.asarray(view) for view in shown)
    for one, other in ((first, second), (first, third), (second, third)):
        np.testing.assert_allclose(np.linalg.norm(one - other), 2**0.5, rtol=1e-5)


def test_who_sees_the_situation_succeeds():
    task = CableRouting(noise=0.0)
    facts = np.eye(16, dtype=np.float32)[3:7]
    directions = facts @ HADAMARD.astype(np.float32) / 4.0
    # The primitive for what is seen.
    by_sight = lambda o, key: jnp.argmax(directions @ o).astype(jnp.int32)
    returns = jax.jit(lambda key: episode_returns(task, by_sight, episodes=500, key=key))(KEY)
    # Of 25 primitives an episode needs nine on the average.
    assert float(returns.mean()) > 0.98


def test_a_perfect_hand_inserts_as_often_as_the_chain_says():
    task = ClipInsertion()
    act = lambda o, key: jnp.stack([jnp.clip(-2.0 * o[0], -1.0, 1.0), jnp.ones(())])
    returns = jax.jit(lambda key: episode_returns(task, act, episodes=TRIES, key=key))(KEY)
    np.testing.assert_allclose(float(returns.mean()), 0.65, atol=0.032)


def _steering(gain: float) -> Agent:
    """A policy of one layer that steers by `gain` and lowers as fast as it can."""
    method = BC(hidden_sizes=(), normalise_observations=False)
    state = method.init(ClipInsertion().spaces, key=KEY)
    place = lambda s: (s.actor.network.weights[0], s.actor.network.biases[0])
    weights = jnp.zeros_like(place(state)[0]).at[0, 0].set(gain)
    state = eqx.tree_at(place, state, (weights, jnp.asarray([0.0, 10.0])))
    assert isinstance(state.actor, DeterministicActor)
    return Agent(method, state)


@pytest.mark.parametrize(
    ("gain", "shares"),
    [
        # tanh(-2 x) is nearly what a perfect hand does where x is small.
        (-2.0, {INSERTED: 0.65, STUCK: 0.25, FALLEN: 0.1}),
        # Away from the clip: never in it, and at last far from it.
        (2.0, {FALLEN: 1.0}),
    ],
)
def test_a_skill_takes_the_place_of_the_probability(gain, shares):
    reached, _ = _after(0, HELD, ROUTE, skill=_steering(gain), route_success=0.0)
    found = np.bincount(np.asarray(reached.situation), minlength=4) / TRIES
    np.testing.assert_allclose(found, [shares.get(i, 0.0) for i in range(4)], atol=0.032)


def test_the_contract_and_refusals():
    check_environment(CableRouting())
    check_environment(ClipInsertion())
    with pytest.raises(SpecificationError, match="clips = 0 must be between 1 and 12"):
        CableRouting(clips=0)
    with pytest.raises(SpecificationError, match=r"route_success = 1.5 is no probability"):
        CableRouting(route_success=1.5)
    with pytest.raises(SpecificationError, match="skill must be an Agent"):
        CableRouting(skill=BC())
    with pytest.raises(SpecificationError, match=r"slip = -1\.0 must not be negative"):
        ClipInsertion(slip=-1.0)
