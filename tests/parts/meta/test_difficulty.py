"""How hard the best arm is to find."""

import jax.numpy as jnp
import numpy as np

from headwater.parts.meta.difficulty import difficulty, within_class


def test_difficulty_is_the_mean_inverse_square_of_gaps():
    found = difficulty(jnp.asarray([[0.2, 0.7, 0.45], [1.0, 0.0, 0.0], [0.5, 0.5, 0.1]]))
    np.testing.assert_allclose(found, [(4.0 + 16.0) / 2, 1.0, np.inf], rtol=1e-6)


def test_instances_move_no_further_than_into_their_class():
    means = jnp.asarray([[1.0, 0.5, 0.5], [0.1, 0.5, 0.1], [0.4, 0.4, 0.0]])
    found = np.asarray(within_class(means, jnp.asarray([2.0, 7.0, 1.5])))
    half = 1.0 - np.sqrt(0.5)
    np.testing.assert_allclose(found[0], [1.0, half, half], atol=1e-5)
    np.testing.assert_array_equal(found[1], means[1])
    np.testing.assert_allclose(difficulty(jnp.asarray(found[2])), 1.5, rtol=1e-4)
    assert found[2].argmax() == 0
