"""Seeds and batches over two devices (virtual ones, see conftest.py)."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.tabular.finite import random_process
from headwater.methods.control.imitation.bc import BC
from headwater.methods.tabular.online.ucbvi import UCBVI
from headwater.runs import layout
from headwater.runs.directory import RunDirectory
from headwater.runs.layout import Place, default_layout, layout_of, spread_rows
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.episodes import FreshEpisodes

from .tiny import SPACES, Tiny, assert_same, evaluate, finish, source, stages


def on_one_device(tree) -> bool:
    """Whether nothing was left where only the loop knows how to handle it."""
    return all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(tree))


def test_there_are_two_devices():
    assert len(jax.devices()) == 2


def test_the_layout_follows_the_devices():
    assert default_layout(1) == "map"
    assert default_layout(2) == default_layout(6) == "devices"
    # Seven cannot be shared evenly by two.
    assert default_layout(7) == "map"


def test_small_tables_lie_side_by_side():
    def layout(states, seeds=2):
        process = random_process(states=states, actions=2, horizon=4, key=jax.random.key(0))
        stage = Stage("only", UCBVI(), FreshEpisodes(process), 1)
        return Place(0, stage, process.problem(), range(seeds), 0, None).layout

    assert layout(states=4) == "vmap"
    assert layout(states=80) == "devices"
    assert layout(states=4, seeds=1) == "map"


def test_data_that_would_fill_the_memory_are_held_once(monkeypatch):
    data = source("replay")
    assert default_layout(2, data) == "devices"
    monkeypatch.setattr(layout, "_MOST_COPIED", 1000)
    assert default_layout(2, data) == "map"


@pytest.mark.parametrize("kind", ["replay", "collect", "host"])
def test_seeds_on_two_devices_are_those_on_one(kind):
    together = finish(stages(kind), seeds=4, layout="devices")
    assert_same(together, finish(stages(kind), seeds=4, layout="map"))
    assert on_one_device(together.outcomes["only"].state)


def test_evaluation_sees_states_on_one_device():
    seen = []

    def look(method, states, key):
        seen.append(on_one_device(states))
        return evaluate(method, states, key)

    run(stages("replay"), SPACES, seeds=2, layout="devices", evaluate=look, evaluations=3)
    assert seen == [True] * 4


def test_a_run_goes_on_under_another_layout(tmp_path):
    whole = finish(stages("collect"), seeds=2, layout="map")
    directory = RunDirectory.create(tmp_path / "run", {})

    calls = []

    def stop(method, states, key):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(True)
        return evaluate(method, states, key)

    with pytest.raises(KeyboardInterrupt):
        finish(stages("collect"), layout="devices", directory=directory, evaluate=stop)
    assert_same(whole, finish(stages("collect"), layout="map", directory=directory))


@pytest.mark.parametrize("rows", [8, 7])
def test_a_batch_over_two_devices_learns_the_same(rows):
    """An odd batch cannot be shared and stays whole; sums over halves may round differently."""

    def train(layout):
        stage = Stage("only", Tiny(), source("replay", rows), 40)
        return run([stage], SPACES, seeds=2, layout=layout).outcomes["only"].state

    for one, other in zip(jax.tree.leaves(train("map")), jax.tree.leaves(train("batch"))):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def cloned(layout):
    """A cloned policy, of which two weights are large enough to be cut."""
    stage = Stage("only", BC(hidden_sizes=(64, 64)), source("replay"), 30)
    return run([stage], SPACES, seeds=2, layout=layout)


def test_a_model_over_two_devices_learns_the_same():
    """Products of parts may round differently, and Adam divides by what is nearly nothing."""
    one, other = cloned("map"), cloned("model")
    states = one.outcomes["only"].state, other.outcomes["only"].state
    for x, y in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
    for x, y in zip(one.metrics, other.metrics, strict=True):
        assert x["update"] == y["update"]
        np.testing.assert_allclose(
            x["metrics"]["actor_loss"], y["metrics"]["actor_loss"], rtol=1e-4
        )


def test_each_device_holds_half_of_what_is_large():
    found = {}
    for leaf in jax.tree.leaves(cloned("model").outcomes["only"].state):
        found.setdefault(leaf.shape[1:], set()).add(leaf.addressable_shards[0].data.shape[1:])
    assert found[64, 64] <= {(32, 64), (64, 32)}
    assert all(parts == {shape} for shape, parts in found.items() if np.prod(shape) <= 1024)


def test_a_spread_model_goes_on_after_an_interruption(tmp_path):
    calls = []

    def stop(method, states, key):
        calls.append(True)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.zeros((2, 1))

    stages = [Stage("only", BC(hidden_sizes=(64, 64)), source("replay"), 30)]
    directory = RunDirectory.create(tmp_path / "run", {})
    given = {"seeds": 2, "layout": "model", "evaluations": 5}
    with pytest.raises(KeyboardInterrupt):
        run(stages, SPACES, directory=directory, evaluate=stop, **given)
    went_on = run(stages, SPACES, directory=directory, evaluate=stop, **given)
    whole = cloned("model").outcomes["only"].state
    for x, y in zip(jax.tree.leaves(went_on.outcomes["only"].state), jax.tree.leaves(whole)):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_one_device_is_not_several(monkeypatch):
    assert layout_of("seeds") is None and layout_of("model") == "model"
    monkeypatch.setattr(jax, "devices", lambda: [None])
    with pytest.raises(SpecificationError, match="parallel = model spreads over several devices"):
        layout_of("model")


def test_a_shared_batch_is_really_shared():
    spread = jax.jit(lambda x: spread_rows(x, "batch"))(np.zeros((8, 3), np.float32))
    assert len(spread.devices()) == 2 and spread.addressable_shards[0].data.shape == (4, 3)
