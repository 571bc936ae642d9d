import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.datasets.transform import with_history
from headwater.environments.check import check_environment
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.exploration.aliased_grid import AliasedGrid
from headwater.environments.history import WithHistory
from headwater.environments.interaction import random_action
from headwater.evidence.logs import record


@pytest.mark.parametrize("task", [AliasedGrid(horizon=5), Pendulum()])
def test_an_environment_shows_the_windows_that_a_log_of_it_has(task):
    act = lambda skill, observation, key: random_action(task.spaces, key=key)
    long = WithHistory(task, 3)
    plain, windows = (
        record(shown, act, np.ones(4), steps=12, key=jax.random.key(0)) for shown in (task, long)
    )
    made = with_history(plain, 3)
    for name in ("observations", "actions", "rewards", "next_observations", "terminals"):
        np.testing.assert_allclose(getattr(made, name), getattr(windows, name), atol=1e-6)
    assert made.spaces.mismatch(long.spaces) is None
    size = made.spaces.observation_size // 3
    first = made.observations[0].reshape(3, size)
    assert not first[:2].any() and first[2, -1] == 1.0
    assert first[2, : task.spaces.observation_size].any()


def test_the_contract_and_refusals():
    check_environment(WithHistory(AliasedGrid(), 4))
    with pytest.raises(SpecificationError, match="a history has at least one frame"):
        WithHistory(AliasedGrid(), 0)
    with pytest.raises(SpecificationError, match="hold 2 frames already"):
        WithHistory(WithHistory(AliasedGrid(), 2), 3)
