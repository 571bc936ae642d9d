"""OLIVE's rounds against NumPy, and that it stops at the best policy with the truth kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.hypotheses import ValueClass
from headwater.environments.tabular.finite import noisy_lock
from headwater.evaluation.exact import best_return
from headwater.methods.tabular.online.olive import ELIMINATING, FINISHED, MEASURING, OLIVE
from headwater.ops.tabular.planning import expected_return, optimal_values
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes

from ..random_episodes import KEY, A, F, H, S, episodes_of, value_class

SETTINGS = {
    "num_evaluation_episodes": 5,
    "num_elimination_episodes": 7,
    "episodes_per_update": 3,
    "termination_threshold": 0.1,
}


class Twin:
    """The same rounds, one episode after the other."""

    def __init__(self, f, threshold, uniform):
        self.f, self.threshold, self.uniform = f, threshold, uniform
        self.alive, self.phase, self.rows, self.step = np.ones(F, bool), MEASURING, [], 0
        self.first = 0.5 * (f[:, 0, 0].max(-1) + f[:, 0, 1].max(-1))
        self.chosen = self.first.argmax()

    def error(self, i, h):
        total = 0.0
        for state, action, reward in self.rows:
            s, a, after = state[h], action[h], state[h + 1]
            following = self.f[i, h + 1, after].max() if h + 1 < H else 0.0
            weight = 1.0
            if self.phase == ELIMINATING and self.uniform:
                weight = A * float(self.f[i, h, s].argmax() == a)
            total += weight * (self.f[i, h, s, a] - reward[h] - following)
        return total / len(self.rows)

    def update(self, data):
        self.rows += list(zip(*(np.asarray(x) for x in (data.state, data.action, data.reward))))
        if self.phase == MEASURING and len(self.rows) >= SETTINGS["num_evaluation_episodes"]:
            errors = [self.error(self.chosen, h) for h in range(H)]
            self.step, self.rows = int(np.argmax(errors)), []
            stops = sum(errors) <= SETTINGS["termination_threshold"]
            self.phase = FINISHED if stops else ELIMINATING
        elif self.phase == ELIMINATING and len(self.rows) >= SETTINGS["num_elimination_episodes"]:
            errors = np.abs([self.error(i, self.step) for i in range(F)])
            kept = self.alive & (errors <= self.threshold)
            if kept.any():
                self.chosen, self.phase = np.where(kept, self.first, -np.inf).argmax(), MEASURING
            else:
                self.chosen = np.where(self.alive, errors, np.inf).argmin()
                self.phase = FINISHED
            self.alive, self.rows = kept, []


def poor_episodes(seed):
    """Three episodes that earn little, so that functions promise too much."""
    data = episodes_of(3, seed)
    return dataclasses.replace(data, reward=0.05 * data.reward)


@pytest.mark.parity
@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("threshold", [0.25, 0.6, 1e-3])
def test_rounds(threshold, uniform):
    given = value_class()
    method = OLIVE(**SETTINGS, elimination_threshold=threshold, uniform_actions=uniform)
    state = method.init(given, key=KEY)
    twin = Twin(np.asarray(given.candidates, np.float64), threshold, uniform)
    update, phases = jax.jit(method.update), set()
    for seed in range(16):
        data = poor_episodes(seed)
        state, metrics = update(state, data, key=KEY)
        twin.update(data)
        assert (int(state.phase), int(state.chosen)) == (twin.phase, twin.chosen)
        if twin.phase == ELIMINATING:
            assert int(state.step) == twin.step
        np.testing.assert_array_equal(np.asarray(state.alive), twin.alive)
        assert float(metrics["finished"]) == (twin.phase == FINISHED)
        phases.add(twin.phase)
    assert ELIMINATING in phases
    assert twin.alive.sum() < F, "something was eliminated"
    if threshold == 1e-3:
        assert twin.phase == FINISHED and not twin.alive.any()


@pytest.mark.parity
def test_actions_are_free_at_the_step_of_the_error_alone():
    method = OLIVE(**SETTINGS, uniform_actions=True)
    state = method.init(value_class(), key=KEY)
    greedy = np.array(method.policy(state, explore=False))
    np.testing.assert_array_equal(method.policy(state, explore=True), np.stack([greedy] * 3))
    for seed in range(2):
        state, _ = method.update(state, poor_episodes(seed), key=KEY)
    assert int(state.phase) == ELIMINATING
    played = np.asarray(method.policy(state, explore=True))
    greedy[int(state.step)] = 1.0 / A
    np.testing.assert_allclose(played, np.stack([greedy] * 3))


@pytest.mark.oracle
@pytest.mark.parametrize("uniform", [False, True])
def test_stops_with_the_truth_at_the_best_policy(uniform):
    codes = np.random.default_rng(0).integers(0, 3, (20, 3))
    locks = [noisy_lock(code, 3) for code in codes]
    candidates = np.stack([np.asarray(optimal_values(lock).action_value) for lock in locks])
    truth = locks[7]
    given = ValueClass.from_arrays(truth.problem(), candidates)
    # Weights of three make errors noisier.
    method = OLIVE(
        num_elimination_episodes=1000 if uniform else 300,
        elimination_threshold=0.15,
        uniform_actions=uniform,
    )
    found = learn(method, given, FreshEpisodes(truth), 1500, key=jax.random.key(1)).state
    assert int(found.phase) == FINISHED and bool(found.alive[7])
    worth = expected_return(truth, method.policy(found, explore=False))
    assert float(worth) == pytest.approx(float(best_return(truth)), abs=1e-5)


def test_without_first_states_there_is_no_optimism():
    given = ValueClass(FiniteProblem(S, A, H), jnp.zeros((2, H, S, A)))
    with pytest.raises(SpecificationError, match="OLIVE plans from where episodes start"):
        OLIVE().init(given, key=KEY)
