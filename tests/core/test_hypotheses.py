"""Finite hypotheses are checked when they are made."""

import jax.numpy as jnp
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.hypotheses import FiniteHypotheses


def test_hypotheses_of_the_wrong_shape_are_refused():
    problem = FiniteProblem(3, 2, 3)
    with pytest.raises(SpecificationError, match=r"rewards has shape \(1, 3, 3, 4\), but"):
        FiniteHypotheses(problem, jnp.zeros((1, 3, 3, 4)), jnp.zeros((1, 3, 3, 4, 3)))
