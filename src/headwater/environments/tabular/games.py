"""Two-player zero-sum games on grids. Their actions are pairs: see `ops.tabular.games`."""

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess

PURSUIT_REPLIES = 2
"""Actions of the second player of `pursuit_grid`."""


def pursuit_grid(
    *, size: int = 3, horizon: int = 6, slip: float = 0.1, key: PRNGKeyArray
) -> FiniteProcess:
    """One collects what the cells of a grid are worth, and another is after it.

    Both move at once, right or down, on a grid whose borders are joined; with probability `slip` a
    player goes the other way. The first one earns the worth of the cell where it arrives, unless
    the second arrives there too. It starts in the first cell, and its pursuer one row further down
    in the last column: they are on a common diagonal, and stay so. The worths are drawn from `key`,
    uniformly between zero and one; moves do not depend on it. The cost is one where the two meet.
    There are `size ** 4` states: cell of the first times number of cells plus cell of the second.
    Action `2 * own + reply`, right (0) or down (1) each.

    Raises `SpecificationError` for a grid of fewer than two rows, a horizon below one or a slip
    that is no probability.
    """
    for name, given, least in (("size", size, 2), ("horizon", horizon, 1)):
        if given < least:
            raise SpecificationError(f"{name} = {given} must be at least {least}")
    if not 0.0 <= slip <= 1.0:
        raise SpecificationError(f"slip = {slip:g} must be a probability")
    cells = size * size
    moves = np.zeros((cells, 2, cells))
    for cell in range(cells):
        row, column = divmod(cell, size)
        right, down = row * size + (column + 1) % size, (row + 1) % size * size + column
        for action, (meant, other) in enumerate(((right, down), (down, right))):
            moves[cell, action, meant] += 1.0 - slip
            moves[cell, action, other] += slip
    states, actions = cells * cells, 2 * PURSUIT_REPLIES
    transition = np.einsum("iax,jby->ijabxy", moves, moves).reshape(states, actions, states)
    worth = np.asarray(jax.random.uniform(key, (cells,)), np.float64)
    met = np.eye(cells).reshape(states)
    earned = np.repeat(worth, cells) * (1.0 - met)
    return FiniteProcess.from_arrays(
        transition,
        transition @ earned,
        2 * size - 1,
        horizon=horizon,
        cost=(transition @ met)[..., None],
    )
