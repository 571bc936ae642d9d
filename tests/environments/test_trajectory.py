import jax
import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.core.problems.history import frames_of
from headwater.core.problems.trajectory import steps_of
from headwater.datasets.transform import with_history, with_trajectory
from headwater.environments.check import check_environment
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.exploration.aliased_grid import AliasedGrid
from headwater.environments.history import WithHistory
from headwater.environments.interaction import random_action
from headwater.environments.trajectory import WithTrajectory
from headwater.evidence.logs import record


@pytest.mark.parametrize("task", [AliasedGrid(horizon=5), Pendulum()])
def test_an_environment_shows_the_windows_that_a_log_of_it_has(task):
    act = lambda skill, observation, key: random_action(task.spaces, key=key)
    shown = WithTrajectory(task, 3)
    plain, windows = (
        record(each, act, np.ones(4), steps=12, key=jax.random.key(0)) for each in (task, shown)
    )
    made = with_trajectory(plain, 3)
    for name in ("observations", "actions", "rewards", "next_observations", "terminals"):
        np.testing.assert_allclose(getattr(made, name), getattr(windows, name), atol=1e-4)
    assert made.spaces.mismatch(shown.spaces) is None
    assert steps_of(made.spaces) == steps_of(shown.spaces)
    assert frames_of(made.spaces) is None


def test_what_is_left_and_what_has_come_add_up_to_the_return():
    task = Pendulum()
    act = lambda skill, observation, key: random_action(task.spaces, key=key)
    log = record(task, act, np.ones(3), steps=9, key=jax.random.key(0))
    made = with_trajectory(log, 4)
    layout = steps_of(made.spaces)
    assert layout is not None
    steps = made.observations.reshape(-1, *layout)
    so_far = steps[:, -1, task.spaces.observation_size]
    whole = np.repeat(log.episode_returns(), log.episode_lengths())
    np.testing.assert_allclose(so_far + log.returns_to_go(1.0), whole, rtol=1e-5)
    # Beside it, the frames are those of a history.
    beside = np.delete(steps, task.spaces.observation_size, axis=2)
    history = with_history(log, 4).observations.reshape(beside.shape)
    np.testing.assert_array_equal(beside, history)
    again = made.spaces.from_json(made.spaces.to_json())
    assert steps_of(again) == layout


def test_the_contract_and_refusals():
    check_environment(WithTrajectory(AliasedGrid(), 4))
    with pytest.raises(SpecificationError, match="a history has at least one frame"):
        WithTrajectory(AliasedGrid(), 0)
    with pytest.raises(SpecificationError, match="hold 2 frames already"):
        WithTrajectory(WithHistory(AliasedGrid(), 2), 3)
    with pytest.raises(SpecificationError, match="hold 4 steps already"):
        WithTrajectory(WithTrajectory(AliasedGrid(), 4), 3)
    task = AliasedGrid()
    act = lambda skill, observation, key: random_action(task.spaces, key=key)
    log = record(task, act, np.ones(2), steps=4, key=jax.random.key(0))
    log.metadata["missing"] = ["rewards"]
    with pytest.raises(DataError, match="has no rewards"):
        with_trajectory(log, 2)
