"""The pure loop: equal to `run` to the bit, and mappable over what it is given."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.method import Agent
from headwater.environments.tabular.finite import random_process
from headwater.evaluation.exact import cumulative, regret_of, returns_of
from headwater.methods.tabular.online.ucbvi import UCBVI
from headwater.runs.learn import learn, seed_key
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.episodes import FreshEpisodes

from .tiny import SPACES, Tiny, source, stages

UPDATES, EVERY = 24, 8


def process(seed: int, states: int = 3) -> FiniteProcess:
    return random_process(states=states, actions=2, horizon=3, key=jax.random.key(seed))


PROCESSES = [process(0), process(1), process(2)]


def assert_same_bits(one, other) -> None:
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()


def rows_seen(agent, data):
    """The drawn batch, and the agent before it learned from it."""
    return {"rewards": jnp.sum(data.reward), "steps": 1.0 * agent.state.step}


# Equal to `run` ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["replay", "collect"])
@pytest.mark.parametrize("pieces", [1, 4])
def test_it_computes_what_run_computes(kind, pieces):
    options = {"updates_per_draw": pieces, "measure": rows_seen}
    result = run(
        stages(kind, UPDATES, **options),
        SPACES,
        seeds=[0, 5],
        seed=3,
        logs=3,
        evaluations=1,
        layout="map",
    )
    keys = jnp.stack([seed_key(3, 0), seed_key(3, 5)])

    @jax.jit
    def together(keys):
        def one(key):
            return learn(Tiny(), SPACES, source(kind), UPDATES, every=EVERY, key=key, **options)

        return jax.lax.map(one, keys)

    found = together(keys)
    assert_same_bits(found.state, result.outcomes["only"].state)
    assert [row["update"] for row in result.metrics] == [8, 16, 24]
    for row, logged in enumerate(result.metrics):
        for name, sums in found.sums.items():
            mean = np.asarray(sums[:, row], np.float64) / EVERY
            assert mean.tolist() == logged["metrics"][name]


def test_regret_is_that_of_run():
    measure = regret_of(PROCESSES[0])
    stage = Stage("only", UCBVI(), FreshEpisodes(PROCESSES[0]), UPDATES, measure=measure)
    result = run([stage], PROCESSES[0].problem(), logs=3, evaluations=1, layout="map")
    found = eqx.filter_jit(learn)(
        UCBVI(),
        PROCESSES[0].problem(),
        FreshEpisodes(PROCESSES[0]),
        UPDATES,
        measure=measure,
        every=EVERY,
        key=seed_key(0, 0),
    )
    updates, regret = cumulative(result.metrics)
    assert updates.tolist() == [8, 16, 24]
    np.testing.assert_allclose(found.cumulative("regret"), regret[0], rtol=1e-6)


def test_the_measure_sees_the_agent_before_and_the_data_of_each_update():
    stage = stages("replay", 4, measure=rows_seen)[0]
    agent = Agent(stage.method, stage.method.init(SPACES, key=jax.random.key(0)))
    row = run([stage], SPACES, logs=1, evaluations=1).metrics[0]["metrics"]
    assert row["steps"] == [np.mean([0, 1, 2, 3])]
    draws = jax.random.split(seed_key(0, 0), 4)[3]
    expected = []
    for i in range(4):
        key = jax.random.split(jax.random.fold_in(draws, i))[0]
        origin = stage.source
        expected.append(float(jnp.sum(origin.draw(origin.init(key=key), agent, key=key)[1].reward)))
    np.testing.assert_allclose(row["rewards"], np.mean(expected), rtol=1e-5)


# Mapped -----------------------------------------------------------------------------------------


def solved(method, given: FiniteProcess, key, updates: int = UPDATES):
    """Regret measured by a function that closes over what may be mapped."""

    def measure(agent, data):
        return regret_of(given)(agent, data)

    def evaluate(agent):
        return returns_of(given, agent.policy(explore=False))

    return learn(
        method,
        given.problem(),
        FreshEpisodes(given),
        updates,
        measure=measure,
        evaluate=evaluate,
        every=EVERY,
        key=key,
    )


def assert_close(one, other) -> None:
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_it_maps_over_keys_problems_and_numbers():
    keys = jax.random.split(jax.random.key(1), 3)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *PROCESSES)
    scales = jnp.asarray([0.1, 1.0, 3.0])

    def with_scale(scale, given, key):
        return solved(eqx.tree_at(lambda m: m.bonus_scale, UCBVI(), scale), given, key)

    @jax.jit
    def together(scales, stacked, keys):
        return jax.vmap(with_scale)(scales, stacked, keys)

    found = together(scales, stacked, keys)
    assert found.sums["regret"].shape == (3, 3) and found.evaluations.shape == (3, 4)
    alone = jax.jit(with_scale)
    for i, given in enumerate(PROCESSES):
        assert_close(jax.tree.map(lambda x, i=i: x[i], found), alone(scales[i], given, keys[i]))
    assert len({row.tobytes() for row in np.asarray(found.sums["regret"])}) == 3


def test_it_goes_on_from_a_state():
    begun = Tiny().init(SPACES, key=jax.random.key(7))
    given = {"every": 4, "key": jax.random.key(0)}
    found = learn(Tiny(), SPACES, source("replay"), 4, state=begun, **given)
    other = learn(Tiny(), SPACES, source("replay"), 4, **given)
    assert int(found.state.step) == 4
    assert not np.array_equal(found.state.weight, other.state.weight)
    none = learn(Tiny(), SPACES, source("replay"), 0, state=begun, key=jax.random.key(0))
    assert_same_bits(none.state, begun)
    assert none.sums["error"].shape == (0,)


def test_it_can_be_differentiated():
    def loss(rate):
        method = eqx.tree_at(lambda m: m.learning_rate, Tiny(), rate)
        found = learn(method, SPACES, source("replay"), 6, key=jax.random.key(0))
        return found.means["error"][0]

    rate, step = 0.05, 1e-2
    slope = (loss(rate + step) - loss(rate - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(loss)(rate), slope, rtol=0.05)


@pytest.mark.parametrize(
    "given, message",
    [
        (("replay", 7, 2, 1), "updates=7 must be a multiple of every=2"),
        (("replay", 6, 3, 2), "that of updates_per_draw=2"),
        (("host", 6, 3, 1), "HostCollect draws on the host, but `learn` is compiled whole"),
    ],
)
def test_what_cannot_be_learned_is_refused(given, message):
    kind, updates, every, pieces = given
    options = {"every": every, "updates_per_draw": pieces, "key": jax.random.key(0)}
    with pytest.raises(SpecificationError, match=message):
        learn(Tiny(), SPACES, source(kind), updates, **options)


def test_what_was_not_measured_is_refused():
    found = learn(Tiny(), SPACES, source("replay"), 2, key=jax.random.key(0))
    with pytest.raises(
        SpecificationError, match=r"no regret was measured \(there is error, size\)"
    ):
        found.cumulative("regret")


# Instances along the seeds of a run -------------------------------------------------------------


def instances(layout, seeds=3, processes=PROCESSES):
    stage = Stage(
        "only",
        UCBVI(),
        [FreshEpisodes(given) for given in processes],
        UPDATES,
        measure=[regret_of(given) for given in processes],
    )
    problems = [given.problem(known_reward=True) for given in processes]
    return run([stage], problems, seeds=seeds, logs=3, evaluations=1, layout=layout)


@pytest.mark.parametrize("layout", ["map", "vmap"])
def test_a_problem_for_each_seed(layout):
    found = instances(layout)
    for i, given in enumerate(PROCESSES):
        measure = regret_of(given)
        stage = Stage("only", UCBVI(), FreshEpisodes(given), UPDATES, measure=measure)
        alone = run(
            [stage],
            given.problem(known_reward=True),
            seeds=[i],
            logs=3,
            evaluations=1,
            layout="map",
        )
        mine = jax.tree.map(lambda x, i=i: x[i : i + 1], found.outcomes["only"].state)
        assert_close(mine, alone.outcomes["only"].state)
        for row, other in zip(found.metrics, alone.metrics, strict=True):
            np.testing.assert_allclose(
                row["metrics"]["regret"][i], other["metrics"]["regret"][0], rtol=1e-4
            )


def test_problems_that_are_not_one_for_each_seed_are_refused():
    with pytest.raises(SpecificationError, match="3 problems were given for 2 seeds: give one for"):
        run(stages("replay"), [SPACES] * 3, seeds=2)
    with pytest.raises(SpecificationError, match="3 sources of stage 'only' were given for 4 seed"):
        stage = dataclasses.replace(stages("replay")[0], source=[source("replay")] * 3)
        run([stage], SPACES, seeds=4)
    with pytest.raises(SpecificationError, match="'only': HostCollect runs on the host and serves"):
        stage = dataclasses.replace(stages("host")[0], source=[source("host")] * 2)
        run([stage], SPACES, seeds=2)


def test_problems_that_differ_in_more_than_numbers_are_refused():
    larger = [process(0), process(1, states=4), process(2)]
    with pytest.raises(SpecificationError, match="problems 0 and 1 of a run cannot be stacked"):
        run(stages("replay"), [given.problem() for given in larger], seeds=3)
    stage = Stage("only", UCBVI(), [FreshEpisodes(given) for given in larger], UPDATES)
    with pytest.raises(
        SpecificationError, match=r"'simulator.transition' is float32\[3, 3, 2, 3\]"
    ):
        run([stage], PROCESSES[0].problem(), seeds=3)
