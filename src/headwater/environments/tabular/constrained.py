"""Grids with rewards and costs: the test beds of constrained reinforcement learning."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess

MARS_ROVER = (
    "S0000000",
    "00000000",
    "000P00P0",
    "00000000",
    "00000000",
    "0PP00000",
    "0P00P0P0",
    "000P000G",
)
"""The map of Miryoosefi et al. (2019) and Brantley et al. (2020): start, pits, goal."""

BOX = ("WWWWWW", "W0SWWW", "W0X00W", "WW000W", "WWW0GW", "WWWWWW")
"""The map of Brantley et al. (2020): walls, start, box, goal."""

_MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Actions: up, down, left, right."""


def mars_rover(*, slip: float = 0.1, horizon: int = 30, noisy: bool = True) -> FiniteProcess:
    """The rover of Brantley et al. (2020) on `MARS_ROVER`: `rover` says what it earns.

    With a budget of 0.3 the best policy earns 1.536; without, 1.817 at a cost of as much.

    Raises `SpecificationError` for a slip that is no probability or a horizon below one.
    """
    return rover(MARS_ROVER, slip=slip, horizon=horizon, noisy=noisy)


def rover(
    layout: Sequence[str], *, slip: float = 0.1, horizon: int = 30, noisy: bool = True
) -> FiniteProcess:
    """A rover that is to reach a goal and finds pits as attractive, but they cost.

    Entering the goal or a pit earns one; the rover stays there and earns `1 / horizon` for every
    step that is left. Entering a pit costs one, and `1 / horizon` for every step that is left. The
    actions go up, down, left and right; with probability `slip` a random one is taken. Walls and
    the border stop the rover where it is. The states are the cells that are no wall, row by row.

    **Arguments:** `layout`: rows of equal length of `S` (start, one), `G` (goals, at least one),
    `P` (pits), `W` (walls) and `0`; `slip`; `horizon`; `noisy`: rewards and costs are zero or one,
    with these expectations.

    Raises `SpecificationError` for a map that cannot be read, a slip that is no probability or a
    horizon below one.
    """
    grid = _read(layout, "S", "G", "PW0", slip, horizon)
    cells = _cells(grid)
    place = {cell: state for state, cell in enumerate(cells)}
    transition = _walk(cells, lambda cell, move: _step(grid, cell, move), _over(grid, "GP"), slip)
    mark = np.asarray([grid[cell] for cell in cells])
    reward = _entering(transition, np.isin(mark, ("G", "P")), 1.0 / horizon)
    cost = _entering(transition, mark == "P", 1.0 / horizon)
    start = place[_find(grid, "S")]
    return FiniteProcess.from_arrays(
        transition, reward, start, horizon=horizon, cost=cost[..., None], noisy=noisy
    )


def random_rover(
    *,
    size: int = 8,
    pits: int = 10,
    slip: float = 0.1,
    horizon: int = 30,
    noisy: bool = True,
    key: PRNGKeyArray,
) -> FiniteProcess:
    """A `rover` on a random square map, from the top left to the bottom right.

    Pits lie anywhere but next to the start or on it, and leave a way to the goal.

    Raises `SpecificationError` for sizes that leave no such map.
    """
    layout = random_layout(size=size, pits=pits, key=key)
    return rover(layout, slip=slip, horizon=horizon, noisy=noisy)


def random_layout(*, size: int, pits: int, key: PRNGKeyArray) -> tuple[str, ...]:
    """The map of `random_rover`.

    Raises `SpecificationError` for sizes that leave no such map.
    """
    if size < 2 or pits < 0:
        raise SpecificationError(f"size = {size} must be at least 2, and pits = {pits} at least 0")
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    grid = np.full((size, size), "0")
    grid[0, 0], grid[-1, -1] = "S", "G"
    for index in random.permutation(size * size):
        row, column = divmod(int(index), size)
        if np.sum(grid == "P") == pits:
            break
        if row + column > 1 and grid[row, column] == "0":
            grid[row, column] = "P"
            if not _reachable(grid):
                grid[row, column] = "0"
    else:
        if np.sum(grid == "P") < pits:
            raise SpecificationError(
                f"pits = {pits} are too many for size = {size}: no way to the goal would be left "
                f"with more than {np.sum(grid == 'P')}"
            )
    return tuple("".join(row) for row in grid)


def hazard_rover(
    layout: Sequence[str] = MARS_ROVER, *, slip: float = 0.05, horizon: int = 100
) -> FiniteProcess:
    """The rover of Miryoosefi et al. (2019): every step counts against it.

    A step taken outside of the goal and the pits earns -0.01; entering a pit costs one. The
    rover stays in either, at no reward and no further cost. Expected costs are probabilities of
    failure. Moves are those of `rover`.

    Raises `SpecificationError` for a map that cannot be read, a slip that is no probability or a
    horizon below one.
    """
    grid = _read(layout, "S", "G", "PW0", slip, horizon)
    cells = _cells(grid)
    transition = _walk(cells, lambda cell, move: _step(grid, cell, move), _over(grid, "GP"), slip)
    mark = np.asarray([grid[cell] for cell in cells])
    running = np.where(np.isin(mark, ("G", "P")), 0.0, -0.01)
    reward = np.broadcast_to(running[:, None], transition.shape[:2])
    cost = _entering(transition, mark == "P", 0.0)[..., None]
    start = cells.index(_find(grid, "S"))
    return FiniteProcess.from_arrays(transition, reward, start, horizon=horizon, cost=cost)


def hazard_visits(process: FiniteProcess) -> Float[Array, "horizon state action state"]:
    """Which cell of `hazard_rover` a step is taken in, counted while the rover runs."""
    running = np.asarray(process.reward)[..., None] < 0.0
    cells = np.eye(process.states, dtype=np.float32)[None, :, None, :]
    return jax.numpy.asarray(np.where(running, cells, np.float32(0.0)))


def push_box(
    layout: Sequence[str] = BOX, *, slip: float = 0.1, horizon: int = 30, noisy: bool = True
) -> FiniteProcess:
    """The box task of Brantley et al. (2020): get past a box without pushing it into a corner.

    Walking into the box pushes it, unless a wall is behind it. Reaching the goal earns one, and
    `1 / horizon` for every step that is left there. Every step after which the box has walls on two
    sides or more costs `1 / horizon`; from most such places it cannot be pushed away again. A state
    is the cell of the walker and that of the box; those that can be reached from the start are
    numbered as a breadth-first search meets them. The paper's budget is 0.1.

    **Arguments:** as for `rover`, with one box `X` on the map and no pits.

    Raises `SpecificationError` for a map that cannot be read, a slip that is no probability or a
    horizon below one.
    """
    grid = _read(layout, "SX", "G", "W0", slip, horizon)

    def push(state, move):
        walker, box = state
        reached = _step(grid, walker, move)
        if reached != box:
            return reached, box
        pushed = _step(grid, box, move)
        return (reached, pushed) if pushed != box else state

    def over(state):
        return grid[state[0]] == "G"

    states = [(_find(grid, "S"), _find(grid, "X"))]
    waiting = deque(states)
    while waiting:
        here = waiting.popleft()
        for move in _MOVES:
            there = here if over(here) else push(here, move)
            if there not in states:
                states.append(there)
                waiting.append(there)
    transition = _walk(states, push, over, slip)
    reward = _entering(transition, np.asarray([over(state) for state in states]), 1.0 / horizon)
    stuck = np.asarray([sum(_step(grid, box, m) == box for m in _MOVES) >= 2 for _, box in states])
    cost = transition @ stuck.astype(np.float64) / horizon
    return FiniteProcess.from_arrays(
        transition, reward, 0, horizon=horizon, cost=cost[..., None], noisy=noisy
    )


Cell = tuple[int, int]


def _read(
    layout: Sequence[str], once: str, some: str, others: str, slip: float, horizon: int
) -> np.ndarray:
    if not 0.0 <= slip <= 1.0:
        raise SpecificationError(f"slip = {slip:g} must be a probability")
    if horizon < 1:
        raise SpecificationError(f"horizon = {horizon} must be at least one")
    if not layout or len({len(row) for row in layout}) != 1 or not layout[0]:
        raise SpecificationError("a map needs rows, and they must be equally long")
    for number, row in enumerate(layout):
        for column, mark in enumerate(row):
            if mark not in once + some + others:
                raise SpecificationError(
                    f"row {number}, column {column} of the map is {mark!r}: it must be one of "
                    f"{', '.join(once + some + others)}"
                )
    text = "".join(layout)
    for mark in once:
        if text.count(mark) != 1:
            raise SpecificationError(f"the map has {text.count(mark)} cells {mark}: it needs one")
    for mark in some:
        if mark not in text:
            raise SpecificationError(f"the map has no cell {mark}: it needs one at least")
    return np.asarray([list(row) for row in layout])


def _cells(grid: np.ndarray) -> list[Cell]:
    return [cell for cell in np.ndindex(grid.shape) if grid[cell] != "W"]


def _find(grid: np.ndarray, mark: str) -> Cell:
    row, column = np.argwhere(grid == mark)[0].tolist()
    return row, column


def _over(grid: np.ndarray, marks: str) -> Callable[[Cell], bool]:
    return lambda cell: grid[cell] in marks


def _step(grid: np.ndarray, cell: Cell, move: Cell) -> Cell:
    row, column = cell[0] + move[0], cell[1] + move[1]
    inside = 0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]
    return (row, column) if inside and grid[row, column] != "W" else cell


def _walk(states: list, step: Callable, over: Callable, slip: float) -> np.ndarray:
    """Transitions of the moves, any of which a slip takes, in all states that are not final."""
    place = {state: index for index, state in enumerate(states)}
    transition = np.zeros((len(states), len(_MOVES), len(states)))
    for state, index in place.items():
        if over(state):
            transition[index, :, index] = 1.0
            continue
        reached = [place[step(state, move)] for move in _MOVES]
        for action in range(len(_MOVES)):
            transition[index, action, reached[action]] += 1.0 - slip
            for there in reached:
                transition[index, action, there] += slip / len(_MOVES)
    return transition


def _entering(transition: np.ndarray, final: np.ndarray, staying: float) -> np.ndarray:
    """One for entering a final state, `staying` for every step in it."""
    return np.where(final[:, None], staying, transition @ final.astype(np.float64))


def _reachable(grid: np.ndarray) -> bool:
    """Whether the goal can be walked to from the start without a pit."""
    seen: set[Cell] = {_find(grid, "S")}
    waiting: deque[Cell] = deque(seen)
    while waiting:
        here = waiting.popleft()
        for there in _around(grid, here):
            if there not in seen and grid[there] != "P":
                seen.add(there)
                waiting.append(there)
    return _find(grid, "G") in seen


def _around(grid: np.ndarray, cell: Cell) -> Iterable[Cell]:
    return (_step(grid, cell, move) for move in _MOVES)
