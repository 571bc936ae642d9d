"""Maps with pits, where budgets mean something."""

import jax

from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.constrained import mars_rover, random_rover
from headwater.evaluation.constrained import (
    binding,
)


def rovers(
    seed: int, *, maps: int, size: int, pits: int, horizon: int, lowest: float, highest: float
) -> list[FiniteProcess]:
    """Maps drawn from `seed` where budgets mean something; for size 8 the published one first."""
    known = [mars_rover(horizon=horizon)] if size == 8 else []

    def make(key):
        return random_rover(size=size, pits=pits, horizon=horizon, key=key)

    drawn = binding(
        make, lowest=lowest, highest=highest, count=maps - len(known), key=jax.random.key(seed)
    )
    return known + drawn
