"""The constrained grids: published numbers, hand-worked rows, and maps that cannot be."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.tabular.constrained import (
    BOX,
    MARS_ROVER,
    hazard_rover,
    hazard_visits,
    mars_rover,
    push_box,
    random_layout,
    random_rover,
    rover,
)
from headwater.evaluation.constrained_planning import constrained_policy


def _best(process, budget):
    return constrained_policy(process, np.moveaxis(np.asarray(process.cost), -1, 0), [budget])


@pytest.mark.parametrize(
    ("budget", "value"), [(0.1, 1.497), (0.3, 1.536), (0.5, 1.574), (9.0, 1.817)]
)
def test_the_mars_rover_is_the_published_one(budget, value):
    plan = _best(mars_rover(), budget)
    assert plan.value == pytest.approx(value, abs=5e-4)
    assert plan.spent[0] == pytest.approx(min(budget, 1.817), abs=5e-4)


def test_entering_pays_one_and_staying_the_rest():
    process = rover(("SP", "0G"), slip=0.2, horizon=5)
    transition, reward = np.asarray(process.transition[0]), np.asarray(process.reward[0])
    cost = np.asarray(process.cost)[0, :, :, 0]
    # From the start, going right: 0.8 + 0.05 into the pit, 0.05 down, up and left stay.
    np.testing.assert_allclose(transition[0, 3], [0.1, 0.85, 0.05, 0.0], atol=1e-6)
    np.testing.assert_allclose([reward[0, 3], cost[0, 3]], [0.85, 0.85], atol=1e-6)
    # From below it, going right: into the goal, which costs nothing; up is the start.
    np.testing.assert_allclose([reward[2, 3], cost[2, 3]], [0.85, 0.0], atol=1e-6)
    np.testing.assert_allclose(transition[1, :, 1], 1.0)
    np.testing.assert_allclose([reward[1], cost[1]], 0.2, atol=1e-6)
    np.testing.assert_allclose([reward[3] - cost[3]], 0.2, atol=1e-6)


def test_walls_are_no_states_and_stop_the_rover():
    process = rover(("SW", "0G"), slip=0.0, horizon=3)
    assert process.states == 3
    np.testing.assert_allclose(process.transition[0, 0, 3], [1.0, 0.0, 0.0])


def test_a_box_in_the_way_is_pushed_unless_a_wall_is_behind_it():
    process = push_box(("WWWWW", "WS0XW", "W000W", "W00GW", "WWWWW"), slip=0.0, horizon=4)
    right = np.asarray(process.transition)[0, :, 3]
    # One step to the right; the next one would push the box into the wall.
    beside = int(np.argmax(right[0]))
    assert right[0, beside] == 1.0 and right[beside, beside] == 1.0
    # The box lies in a corner, so every step costs.
    assert np.asarray(process.cost)[0, 0, 0, 0] == pytest.approx(0.25)


def test_the_box_task_pays_for_patience():
    process = push_box(BOX)
    free, bound = _best(process, 30.0), _best(process, 0.1)
    assert free.value == pytest.approx(1.816, abs=1e-3) and free.spent[0] > 0.5
    assert bound.value == pytest.approx(1.750, abs=1e-3)


def test_the_hazard_rover_trades_safety_for_speed():
    process = hazard_rover()
    assert _best(process, 0.2).value == pytest.approx(-0.1292, abs=1e-3)
    assert _best(process, 1.0).value == pytest.approx(-0.0524, abs=1e-3)
    visits = np.asarray(hazard_visits(process))
    goal = process.states - 1
    assert visits[0, goal].sum() == 0.0 and visits[:, 0, :, 0].min() == 1.0
    assert np.array_equal(visits.sum(-1) * -0.01, np.asarray(process.reward))


def test_random_maps_have_their_pits_and_a_way():
    for seed in range(5):
        layout = random_layout(size=5, pits=8, key=jax.random.key(seed))
        text = "".join(layout)
        assert text.count("P") == 8 and layout[0][0] == "S" and layout[-1][-1] == "G"
        assert "P" not in layout[0][:2] and layout[1][0] != "P"
    layouts = {random_layout(size=5, pits=8, key=jax.random.key(seed)) for seed in range(5)}
    assert len(layouts) > 1
    process = random_rover(size=3, pits=1, horizon=4, slip=0.0, key=jax.random.key(0))
    assert _best(process, 0.0).value > 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rover(("S0", "0")), "they must be equally long"),
        (lambda: rover(("S?", "0G")), r"row 0, column 1 of the map is '\?'"),
        (lambda: rover(("00", "0G")), "the map has 0 cells S: it needs one"),
        (lambda: rover(("SS", "0G")), "the map has 2 cells S: it needs one"),
        (lambda: rover(("S0", "00")), "the map has no cell G: it needs one at least"),
        (lambda: rover(MARS_ROVER, slip=1.5), "slip = 1.5 must be a probability"),
        (lambda: mars_rover(horizon=0), "horizon = 0 must be at least one"),
        (lambda: push_box(("S0G",)), "the map has 0 cells X: it needs one"),
        (
            lambda: random_layout(size=3, pits=7, key=jax.random.key(0)),
            "pits = 7 are too many for size = 3",
        ),
        (lambda: random_layout(size=1, pits=0, key=jax.random.key(0)), "size = 1 must be at least"),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(SpecificationError, match=message):
        make()
