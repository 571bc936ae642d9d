"""A finite process of one's own: policy, bound, regret, and what is said when it does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.core.finite import AbstractFiniteSimulator, FiniteStep
from headwater.environments.tabular.operations import inventory_control
from headwater.ops.tabular.planning import optimal_values
from headwater.sources.episodes import log_episodes


class Walk(AbstractFiniteSimulator):
    """A simulator without a model: up or down a ladder of four; the top pays."""

    horizon = 5
    states = 4
    actions = 2

    def reset(self, *, key):
        return jnp.zeros((), jnp.int32)

    def step(self, time, state, action, *, key):
        following = jnp.clip(state + 2 * action - 1, 0, 3)
        return FiniteStep(following, (following == 3).astype(jnp.float32))


def test_a_process_from_arrays_in_a_few_lines(tmp_path):
    process = hw.FiniteProcess.from_arrays(
        transition=[[[0.9, 0.1], [0.1, 0.9]], [[0.9, 0.1], [0.1, 0.9]]],
        reward=[[0.0, 0.0], [1.0, 0.5]],
        horizon=4,
    )
    solution = hw.solve(hw.UCBVI(bonus_scale=0.01), process, episodes=300, seeds=3)
    best = np.argmax(np.asarray(optimal_values(process).policy), -1)
    assert solution.policy.shape == (4, 2)
    assert np.array_equal(solution.policy[:-1, 0], best[:-1, 0])
    assert solution.best is not None and solution.returns is not None
    assert solution.regret.shape == (3, 100) and np.all(np.diff(solution.regret) >= -1e-3)
    assert np.all(solution.bound >= solution.best - solution.returns - 1e-5)
    assert solution.draw(tmp_path / "regret.png").stat().st_size > 10_000
    assert f"of {solution.best:.3g}" in str(solution) and "certified" in str(solution)


def test_a_simulator_without_a_model():
    solution = hw.solve(hw.UCBVI(bonus_scale=0.003), Walk(), episodes=300, seeds=1)
    assert solution.regret is None and solution.returns is None and solution.bound is None
    reached = 0
    for step in range(5):
        reached = min(max(reached + 2 * solution.policy[step, reached] - 1, 0), 3)
    assert reached == 3
    with pytest.raises(hw.SpecificationError, match="no regret to draw"):
        solution.draw("nowhere.png")


def test_logged_episodes_that_do_not_fit_are_said():
    process = inventory_control(capacity=3, horizon=4)
    uniform = jnp.full((4, 4, 4), 0.25)
    log = log_episodes(process, uniform, episodes=50, key=jax.random.key(0))
    for wrong, said in (
        ({"action": log.action.at[7, 2].set(9)}, "action 9 in episode 7, step 2 is not one of 0"),
        ({"state": log.state.at[3, 0].set(-1)}, "state -1 in episode 3, step 0"),
        ({"reward": log.reward.at[1, 1].set(jnp.nan)}, "reward in episode 1, step 1 is not finite"),
        ({"action": log.action[:, :3], "reward": log.reward[:, :3]}, "3 actions and 5 states"),
    ):
        with pytest.raises(hw.DataError, match=said):
            hw.solve("TabularCloning", process, data=dataclasses.replace(log, **wrong), seeds=1)


@pytest.mark.parametrize(
    "given, said",
    [
        (("IQL", None), "IQL does not learn finite processes: use hw.train"),
        (
            ("UCBVI", None),
            "UCBVI learns from its own episodes in a finite process: give it a process",
        ),
    ],
)
def test_what_cannot_be_solved_is_said(given, said):
    with pytest.raises(hw.SpecificationError, match=said):
        hw.solve(*given)


def test_an_environment_is_no_finite_process():
    said = "UCBVI learns from its own episodes .*: give it a process, and leave out env$"
    with pytest.raises(hw.SpecificationError, match=said):
        hw.train("UCBVI", env="pendulum")
