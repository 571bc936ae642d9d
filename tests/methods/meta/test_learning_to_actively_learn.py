"""Learning to actively learn: its estimates against all campaigns of two pulls, summed exactly."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.evidence.claim import with_numbers
from headwater.methods.meta.learning_to_actively_learn import LearningToActivelyLearn
from headwater.networks.meta.sampler import Sampler
from headwater.parts.meta.campaigns import slopes

PULLS, ARMS = 2, 2


def exact_loss(sampler, logits):
    """The probability that the recommended arm is not the first, over all arms and rewards."""
    means = jax.nn.sigmoid(logits)
    histories = jnp.asarray([*itertools.product(range(ARMS), (0, 1), range(ARMS), (0, 1))])
    pulls = earned = jnp.zeros((len(histories), ARMS))
    probability = jnp.ones(len(histories))
    for moment in range(PULLS):
        arm, reward = histories[:, 2 * moment], histories[:, 2 * moment + 1]
        left = jnp.full(len(histories), 1.0 - moment / PULLS)
        chosen = jax.nn.softmax(sampler(pulls, earned, left)[0])
        paid = jnp.where(reward == 1, means[arm], 1.0 - means[arm])
        probability *= chosen[jnp.arange(len(arm)), arm] * paid
        once = jax.nn.one_hot(arm, ARMS)
        pulls, earned = pulls + once, earned + once * reward[:, None]
    recommended = jax.nn.softmax(sampler(pulls, earned, jnp.zeros(len(histories)))[1])
    return jnp.sum(probability * (1.0 - recommended[:, 0]))


@pytest.mark.oracle
def test_its_slopes_are_those_of_the_exact_loss():
    episodes = 160_000
    sampler = Sampler((3,), key=jax.random.key(0))
    # A policy that is far from uniform, so that its slopes are far from zero.
    keys = iter(jax.random.split(jax.random.key(2), 8))
    sampler = jax.tree.map(lambda x: x + 2.0 * jax.random.normal(next(keys), x.shape), sampler)
    logits = jnp.asarray([1.0, -0.5])
    exact, (in_sampler, in_logits) = jax.jit(jax.value_and_grad(exact_loss, argnums=(0, 1)))(
        sampler, logits
    )
    drawn = jax.random.uniform(jax.random.key(2), (episodes, PULLS, 2))
    found, wrong, scores = jax.jit(slopes)(
        sampler, jax.nn.sigmoid(logits)[None], jnp.asarray([0.4]), jnp.ones(1), drawn
    )
    # Four standard errors of the mean of numbers whose deviation is below one.
    near = 4.0 / np.sqrt(episodes)
    np.testing.assert_allclose(wrong[0], exact, atol=near)
    np.testing.assert_allclose(scores[0], in_logits, atol=near)
    assert np.abs(in_logits).max() > 2 * near
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(in_sampler)):
        np.testing.assert_allclose(one, other, atol=near)
    assert max(np.abs(x).max() for x in jax.tree.leaves(in_sampler)) > 2 * near


@pytest.mark.oracle
def test_particles_stay_in_their_class_and_begin_anew_at_tasks():
    means = jax.random.uniform(jax.random.key(3), (16, 1, 1, 3))
    tasks = FiniteProcess(jnp.ones((*means.shape, 1)), means, jnp.ones((16, 1)), noisy=True)
    problem = FiniteProblem(1, 3, 1, tasks=16)
    sizes = {"num_particles": 4, "episodes_per_particle": 1, "budget": 2, "hidden_sizes": (2,)}

    @jax.jit
    def update(restarts, easiest_class, hardest_class):
        numbers = {"restarts": restarts, "easiest_class": easiest_class}
        numbers["hardest_class"] = hardest_class
        method = with_numbers(LearningToActivelyLearn(**sizes), **numbers)
        key = jax.random.key(4)
        return method.update(method.init(problem, key=key), tasks, key=key)[0].means

    found = np.asarray(update(0.05, 2.0, 8.0), np.float64)
    top = found.max(axis=-1, keepdims=True)
    gaps = np.where(found == top, np.inf, top - found)
    hardness = np.mean(gaps**-2.0, axis=-1) * 3 / 2
    assert np.all(hardness <= np.asarray([2.0, 4.0, 8.0])[:, None] + 1e-3)
    assert hardness[:, 2].max() > 4.0
    fresh = update(1.0, 1e9, 1e9)
    rows = np.arange(2 * 3 * 4) % 16
    np.testing.assert_allclose(fresh.reshape(-1, 3), np.asarray(means)[rows, 0, 0], atol=1e-6)


def test_rewards_that_are_not_zero_or_one_are_refused():
    problem = FiniteProblem(1, 3, 1, tasks=2, reward_range=jnp.asarray([0.0, 5.0]))
    with pytest.raises(SpecificationError, match="whose rewards are zero or one: give expected"):
        LearningToActivelyLearn().init(problem, key=jax.random.key(0))
