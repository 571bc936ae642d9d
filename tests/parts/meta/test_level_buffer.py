"""The buffer of levels: who gets which level, and which levels make room."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.finite import FiniteProblem
from headwater.parts.meta.agents import first_agent
from headwater.parts.meta.level_buffer import empty_buffer, next_levels, record_scores
from headwater.parts.meta.unrolled import Learners

AGENTS, SLOTS = 2, 6
PROBLEM = FiniteProblem(1, 2, 1, tasks=AGENTS)
SCORES = jnp.asarray([0.5, -1.0, 3.0, 0.0, 2.0, 0.0])
SCORED = jnp.asarray([True, True, True, False, True, True])


def beginners(number):
    """Agents in new levels whose rewards and lifetimes are this number."""
    filled = lambda *shape: jnp.full((AGENTS, *shape), number, jnp.float32)
    one = first_agent(PROBLEM.sizes, 2)
    age = jnp.zeros(AGENTS, jnp.int32)
    return Learners(
        jax.tree.map(lambda x: jnp.zeros((AGENTS, *x.shape)), one),
        filled(1, 1, 2, 1),
        filled(1, 1, 2),
        filled(1),
        age,
        age + number,
    )


def filled_buffer(active=()):
    empty = empty_buffer(PROBLEM, SLOTS)
    slot = jnp.arange(SLOTS)
    return dataclasses.replace(
        empty,
        reward=jnp.broadcast_to(slot[:, None, None, None], empty.reward.shape).astype(jnp.float32),
        lifetime=slot,
        score=SCORES,
        scored=SCORED,
        active=jnp.isin(slot, jnp.asarray(active, jnp.int32)),
    )


BOTH = jnp.ones(AGENTS, bool)
following = jax.jit(next_levels)


def numbers(learners):
    return np.asarray(learners.reward[:, 0, 0, 0]).tolist()


def test_new_levels_take_the_place_of_those_never_scored_and_of_the_lowest_scores():
    found = following(
        filled_buffer(), jnp.zeros(AGENTS, jnp.int32), beginners(9), BOTH, 0.0, 1.0,
        key=jax.random.key(0),
    )  # fmt: skip
    buffer, slot, begun, again = found
    assert slot.tolist() == [3, 1] and numbers(begun) == [9.0, 9.0] and not again.any()
    assert buffer.active.tolist() == [False, True, False, True, False, False]
    assert buffer.scored.tolist() == [True, False, True, False, True, True]
    assert numbers(buffer) == [0.0, 9.0, 2.0, 9.0, 4.0, 5.0]
    assert buffer.lifetime.tolist() == [0, 9, 2, 9, 4, 5]


def test_at_a_low_temperature_the_highest_scores_come_again():
    found = following(
        filled_buffer(active=[2]), jnp.zeros(AGENTS, jnp.int32), beginners(9), BOTH, 1.0, 1e-3,
        key=jax.random.key(0),
    )  # fmt: skip
    buffer, slot, begun, again = found
    # Somebody is learning in the level of the highest score.
    assert slot.tolist() == [4, 0] and numbers(begun) == [4.0, 0.0] and again.all()
    assert begun.lifetime.tolist() == [4, 0]
    assert buffer.active.tolist() == [True, False, True, False, True, False]
    np.testing.assert_array_equal(buffer.score, SCORES)


def test_levels_come_again_as_one_over_their_rank():
    def first(key):
        slots = next_levels(
            filled_buffer(), jnp.zeros(AGENTS, jnp.int32), beginners(9), BOTH, 1.0, 1.0, key=key
        )[1]
        return slots[0]

    drawn = np.asarray(jax.jit(jax.vmap(first))(jax.random.split(jax.random.key(3), 4_000)))
    frequency = np.bincount(drawn, minlength=SLOTS) / 4_000
    expected = np.asarray([1 / 3, 1 / 5, 1.0, 0.0, 1 / 2, 1 / 4])
    np.testing.assert_allclose(frequency, expected / expected.sum(), atol=0.03)


def test_who_has_not_ended_keeps_its_level():
    over = jnp.asarray([False, True])
    for probability, expected in ((0.0, [5, 3]), (1.0, [5, 2])):
        buffer, slot, _, again = following(
            filled_buffer(active=[5]), jnp.asarray([5, 0]), beginners(9), over, probability, 1e-3,
            key=jax.random.key(1),
        )  # fmt: skip
        assert slot.tolist() == expected and not again[0]
        assert bool(buffer.active[5])


def test_without_enough_scored_levels_all_are_new():
    few = dataclasses.replace(filled_buffer(), scored=jnp.arange(SLOTS) == 2)
    again = following(
        few, jnp.zeros(AGENTS, jnp.int32), beginners(9), BOTH, 1.0, 1.0, key=jax.random.key(0)
    )[3]
    assert not again.any()


def test_a_score_frees_the_level_of_the_lifetime_that_ended():
    ended = jnp.asarray([False, True])
    buffer = record_scores(
        filled_buffer(active=[3, 5]), jnp.asarray([5, 3]), jnp.asarray([7.0, 8.0]), ended
    )
    assert buffer.score.tolist() == [0.5, -1.0, 3.0, 8.0, 2.0, 0.0]
    assert buffer.scored.all() and buffer.active.tolist() == [False] * 5 + [True]
