"""UMT-PSR: its memory, plans and policies against enumeration, and that it learns the laws."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.cli import main
from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.environments.tabular.partially_observed import (
    partially_observed_tasks,
)
from headwater.methods.low_rank.umt_psr import UMTPSR
from headwater.ops.tabular.latent_models import (
    memoryless_policy,
    most_disputed_plan,
    observation_law,
    random_models,
    total_variation,
)
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes

KEY, TASKS, HORIZON = jax.random.key(0), 2, 2
GIVEN = partially_observed_tasks(
    tasks=TASKS, hidden=2, actions=2, observations=3, horizon=HORIZON, key=jax.random.key(1)
)
PROCESS, PROBLEM = GIVEN.process, GIVEN.problem
SMALL = UMTPSR(rank=2, num_restarts=3, fit_steps=20, episodes_per_step=4, memory_size=20)


def law_of(models, task):
    return observation_law(models.initial, models.transition, models.emission[task], steps=HORIZON)


@pytest.fixture(scope="module")
def learned():
    method = dataclasses.replace(SMALL, confidence_radius=1e6)
    source = FreshEpisodes(PROCESS, tasks=TASKS)
    return method, learn(method, PROBLEM, source, 2, key=KEY).state


@pytest.mark.parity
def test_the_two_models_that_differ_most_choose_every_task_s_actions(learned):
    state = learned[1]
    models = [jax.tree.map(lambda x, i=i: x[i], state.models) for i in range(3)]
    plans = list(itertools.product(range(2), repeat=HORIZON))
    apart = np.zeros((3, 3, TASKS, len(plans)))
    for i, j in itertools.combinations(range(3), 2):
        for task in range(TASKS):
            laws = [np.asarray(law_of(models[k], task), np.float64) for k in (i, j)]
            apart[i, j, task] = 0.5 * np.abs(laws[0] - laws[1]).sum(axis=1)
    sums = apart.max(axis=-1).sum(axis=-1)
    pair = np.unravel_index(sums.argmax(), sums.shape)
    assert np.sort(sums.ravel())[-1] > np.sort(sums.ravel())[-2] + 1e-4
    for task in range(TASKS):
        chosen = np.asarray(state.explorer[task]).argmax(axis=-1)
        assert np.all(chosen == chosen[:, :1])
        expected = apart[pair][task]
        assert expected[plans.index(tuple(chosen[:, 0]))] == pytest.approx(expected.max(), rel=1e-4)
    found = most_disputed_plan(state.models, jnp.ones(3, bool), steps=HORIZON)[1]
    np.testing.assert_allclose(found, apart[pair].max(axis=-1), rtol=1e-4)


def test_a_single_likely_model_leaves_actions_uniform(learned):
    state = learned[1]
    apart = most_disputed_plan(state.models, jnp.arange(3) == 1, steps=HORIZON)[1]
    np.testing.assert_array_equal(apart, 0.0)
    method = dataclasses.replace(SMALL, confidence_radius=0.0)
    state = learn(method, PROBLEM, FreshEpisodes(PROCESS, tasks=TASKS), 1, key=KEY).state
    np.testing.assert_allclose(state.explorer, 0.5)


@pytest.mark.oracle
def test_the_last_episodes_are_kept(learned):
    method, state = learned
    assert int(state.episodes) == 2 * 4 * HORIZON
    source = FreshEpisodes(PROCESS, tasks=TASKS)
    data = source.draw(source.init(key=KEY), Agent(method, state), key=KEY)[1]
    later, _ = method.update(state, data, key=KEY)
    new = np.asarray(data.action).reshape(TASKS, -1, HORIZON)
    place = (16 + np.arange(8)) % 20
    np.testing.assert_array_equal(later.data.action[:, place], new)
    np.testing.assert_array_equal(later.data.action[:, 4:16], state.data.action[:, 4:16])


@pytest.mark.oracle
def test_laws_are_learned_from_many_episodes():
    method = UMTPSR(
        rank=2, num_restarts=6, fit_steps=100, exploration="uniform", memory_size=2000,
        episodes_per_step=1000,
    )  # fmt: skip
    state = learn(method, PROBLEM, FreshEpisodes(PROCESS, tasks=TASKS), 1, key=KEY).state
    for task in range(TASKS):
        true = observation_law(
            PROCESS.initial[task], PROCESS.transition[task], PROCESS.emission[task], steps=HORIZON
        )
        assert float(jnp.mean(total_variation(law_of(state.best, task), true))) < 0.06


@pytest.mark.oracle
def test_no_step_of_the_policy_can_be_improved():
    models = random_models(1, 3, 2, 2, key=jax.random.key(3))
    reward = jax.random.uniform(jax.random.key(4), (3, 2, 2))
    parts = [np.asarray(x, np.float64) for x in (models.initial, models.transition)]
    emission, earned = np.asarray(models.emission[0], np.float64), np.asarray(reward, np.float64)

    def worth(policy):
        hidden, total = parts[0], 0.0
        for step in range(3):
            joint = np.einsum("s,so,oa->soa", hidden, emission, policy[step])
            total += np.einsum("soa,oa->", joint, earned[step])
            hidden = np.einsum("soa,sat->t", joint, parts[1])
        return total

    found = np.asarray(
        memoryless_policy(models.initial, models.transition, models.emission[0], reward)
    )
    for step in range(3):
        for actions in itertools.product(range(2), repeat=2):
            other = found.copy()
            other[step] = np.eye(2)[list(actions)]
            assert worth(other) <= worth(found) + 1e-6


def test_given_transitions_stay():
    initial, transition = PROCESS.initial[0], PROCESS.transition[0]
    state = SMALL.with_transition(PROBLEM, initial, transition, key=KEY)
    source = FreshEpisodes(PROCESS, tasks=TASKS)
    data = source.draw(source.init(key=KEY), Agent(SMALL, state), key=KEY)[1]
    later, _ = SMALL.update(state, data, key=KEY)
    np.testing.assert_array_equal(later.models.transition, state.models.transition)
    assert np.abs(later.models.emission - state.models.emission).max() > 0.01
    with pytest.raises(SpecificationError, match="for rank 2 they must be"):
        SMALL.with_transition(PROBLEM, initial, transition[:, :1], key=KEY)


def test_laws_that_are_too_long_are_refused():
    long = partially_observed_tasks(horizon=8, key=KEY).problem
    with pytest.raises(SpecificationError, match="take a shorter horizon"):
        UMTPSR().init(long, key=KEY)
    UMTPSR(exploration="uniform").init(long, key=KEY)


@pytest.mark.equivalence
def test_a_process_alone_is_one_task():
    one = jax.tree.map(lambda x: x[:1], PROCESS)
    stacked = dataclasses.replace(PROBLEM, reward=PROBLEM.reward[:1], tasks=1)
    data = FreshEpisodes(one, tasks=1).draw(
        FreshEpisodes(one, tasks=1).init(key=KEY),
        Agent(SMALL, SMALL.init(stacked, key=KEY)),
        key=KEY,
    )[1]
    alone = dataclasses.replace(PROBLEM, reward=PROBLEM.reward[0], tasks=None)
    found = {}
    for name, problem in (("stacked", stacked), ("alone", alone)):
        given = data if name == "stacked" else jax.tree.map(lambda x: x[0], data)
        state, _ = SMALL.update(SMALL.init(problem, key=KEY), given, key=KEY)
        found[name] = [SMALL.policy(state, explore=explore) for explore in (False, True)]
    for several, single in zip(found["stacked"], found["alone"]):
        np.testing.assert_allclose(several[0], single, atol=1e-6)


def test_every_door_serves_several_tasks_or_says_what_to_do(capsys):
    small = {"rank": 2, "num_restarts": 2, "fit_steps": 5, "episodes_per_step": 2}
    task = partially_observed_tasks(
        tasks=2, hidden=2, actions=2, observations=2, horizon=2, key=KEY
    )
    solved = hw.solve(UMTPSR(**small), task, episodes=4, seeds=2, progress=False)
    assert solved.policies.shape == (2, 2, 2, 2, 2) and solved.regret is None
    for said in (
        lambda: hw.solve("UMTPSR", "river-swim", progress=False),
        lambda: hw.train("UMTPSR", process="river-swim", steps=100, progress=False),
    ):
        with pytest.raises(SpecificationError, match="take a shorter horizon"):
            said()
    assert main(["train", "UMTPSR", "--process", "river-swim", "--steps", "100"]) == 1
    assert "take a shorter horizon" in capsys.readouterr().err
