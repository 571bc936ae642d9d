"""Images of handwritten digits, for claims about networks that classify."""

import jax.numpy as jnp
import numpy as np

from headwater.core.errors import SpecificationError
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces

PIXELS, CLASSES = 64, 10
SPACES = Spaces(Box((-0.3,) * PIXELS, (0.7,) * PIXELS), Discrete(CLASSES))
"""The problem of naming the digit (the action) in an image (the observation)."""


def digits(seed: int, training: int) -> tuple[Transitions, Transitions]:
    """Training and other rows of scikit-learn's 1,797 images of 8 by 8, in an order of `seed`.

    As logged experience: who names digits by cloning it minimises the cross-entropy. Raises
    `SpecificationError` without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SpecificationError(
            "the images of digits come with scikit-learn: pip install 'headwater[digits]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = (images[order] / 16.0 - 0.3).astype(np.float32), labels[order].astype(np.int32)

    def rows(part: slice) -> Transitions:
        observation, action = jnp.asarray(images[part]), jnp.asarray(labels[part])
        zeros = jnp.zeros(len(action))
        return Transitions(observation, action, zeros, observation, zeros == 0, zeros > 0)

    return rows(slice(0, training)), rows(slice(training, None))
