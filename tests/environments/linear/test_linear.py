"""Linear processes: what is multiplied out, what is promised of the lock, and what is refused."""

import jax
import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.environments.linear.linear import linear_lock, linear_process, random_linear_process
from headwater.evaluation.exact import best_return


@pytest.fixture(scope="module")
def parts():
    draw = np.random.default_rng(0)
    return {
        "features": draw.dirichlet(np.ones(2), (3, 4)),
        "measure": draw.dirichlet(np.ones(3), (5, 2)),
        "weight": draw.uniform(size=(5, 2)),
    }


def test_arrays_are_multiplied_out(parts):
    made = linear_process(**parts, initial=1)
    for step, state, action in ((0, 0, 0), (4, 2, 3), (2, 1, 1)):
        phi = parts["features"][state, action]
        row = phi[0] * parts["measure"][step, 0] + phi[1] * parts["measure"][step, 1]
        np.testing.assert_allclose(made.process.transition[step, state, action], row, rtol=1e-5)
        reward = phi @ parts["weight"][step]
        np.testing.assert_allclose(made.process.reward[step, state, action], reward, rtol=1e-5)
    assert made.features.shape == (5, 3, 4, 2)
    problem = made.problem(known_reward=True)
    assert problem.features is made.features and problem.reward is made.process.reward


def test_random_ones_are_linear_and_follow_their_key():
    one, same, other = (
        random_linear_process(states=4, actions=3, horizon=2, features=3, key=jax.random.key(k))
        for k in (0, 0, 1)
    )
    assert np.array_equal(one.process.transition, same.process.transition)
    assert not np.array_equal(one.process.transition, other.process.transition)
    product = np.einsum("hsad,hdt->hsat", one.features, one.measure)
    np.testing.assert_allclose(one.process.transition, product, atol=1e-6)
    np.testing.assert_allclose(one.process.transition.sum(-1), 1.0, rtol=1e-5)


def test_only_right_actions_open_the_lock():
    made = linear_lock(states=6, actions=3, horizon=4, slip=0.2, key=jax.random.key(1))
    assert float(best_return(made.process)) == pytest.approx(0.8**3, rel=1e-5)
    # Anywhere but at the last step nothing is earned, and one action of each open state is right.
    reward, phi = np.asarray(made.process.reward), np.asarray(made.features)
    assert not reward[:-1].any()
    right = phi[..., 0] == 1.0
    assert np.array_equal(right.sum(-1).sum(-1), [3, 3, 3, 3]) and right.sum(-1).max() == 1
    np.testing.assert_array_equal(reward[-1], right[-1])
    # Stuck states never lead to open ones.
    for step in range(3):
        opened = right[step + 1].any(-1)
        reached = np.asarray(made.process.transition)[step][:, :, opened].sum(-1)
        np.testing.assert_allclose(reached[~right[step]], 0.0, atol=1e-7)
        np.testing.assert_allclose(reached[right[step]], 0.8, rtol=1e-5)


def test_wrong_parts_are_explained(parts):
    with pytest.raises(
        SpecificationError, match=r"^measure has shape \(2,\): it must be \[horizon"
    ):
        linear_process(parts["features"], [1.0, 2.0], parts["weight"])
    with pytest.raises(SpecificationError) as caught:
        linear_process(parts["features"], parts["measure"], parts["weight"][:2])
    assert str(caught.value) == (
        "weight has shape (2, 2), but measure has 5 steps and 2 features: it must be (5, 2)"
    )
    with pytest.raises(
        SpecificationError, match=r"features have shape \(5, 3, 4, 3\), but measure"
    ):
        linear_process(np.zeros((3, 4, 3)), parts["measure"], parts["weight"])
    with pytest.raises(DataError) as failure:
        linear_process(2.0 * parts["features"], parts["measure"] / 2.0, parts["weight"] / 2.0)
    assert str(failure.value).startswith("features: the norm at step 0, state 0, action 0 is ")
    with pytest.raises(DataError, match="the probabilities at step 0, state 0, action 0 add up to"):
        linear_process(parts["features"], parts["measure"] / 2.0, parts["weight"])
    with pytest.raises(DataError, match="outside of the declared range 0 to 1"):
        linear_process(parts["features"], parts["measure"], 3.0 * parts["weight"])
    with pytest.raises(DataError, match=r"^weight holds a number that is not finite$"):
        linear_process(parts["features"], parts["measure"], parts["weight"] * np.nan)


def test_wrong_sizes_are_explained():
    key = jax.random.key(0)
    with pytest.raises(SpecificationError, match=r"^features = 0 must be at least one$"):
        random_linear_process(states=2, actions=2, horizon=2, features=0, key=key)
    with pytest.raises(SpecificationError, match=r"^concentration = -1 must be above zero$"):
        random_linear_process(
            states=2, actions=2, horizon=2, features=2, concentration=-1.0, key=key
        )
    with pytest.raises(SpecificationError, match="leaves 2 of 2 states open"):
        linear_lock(states=2, actions=2, horizon=2, open_share=1.0, key=key)
    with pytest.raises(SpecificationError, match="at least two features"):
        linear_lock(states=2, actions=2, horizon=2, features=1, key=key)
    with pytest.raises(SpecificationError, match=r"^slip = 2 must be a probability$"):
        linear_lock(states=4, actions=2, horizon=2, slip=2.0, key=key)
