"""Numbers that are not numbers any more are noticed at once, and never kept as the last good."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import Diverged
from headwater.core.feed import Feed
from headwater.core.method import AbstractMethod, AbstractPolicy, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.runs import checkpoint, loop
from headwater.runs.directory import RunDirectory
from headwater.runs.layout import Place
from headwater.runs.stage import Stage

from .tiny import Tiny, TinyState, finish, source


class SilentState(eqx.Module):
    """What is learned, something that is infinite from the beginning, and which seed this is."""

    inner: TinyState
    bound: jax.Array
    first: jax.Array


class Silent(AbstractMethod[Spaces, Transitions, SilentState], AbstractPolicy[SilentState]):
    """Breaks in what it learned, or in a metric, of one of its seeds only."""

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info("of no paper", "tests the loop")

    value: str = eqx.field(static=True, default="nan")
    at: int = 20
    loudly: bool = eqx.field(static=True, default=False)

    def init(self, problem: Spaces, *, key):
        state = Tiny().init(problem, key=key)
        return SilentState(state, jnp.full(2, -jnp.inf), state.weight[1])

    def update(self, state: SilentState, data: Transitions, *, key):
        inner, metrics = Tiny().update(state.inner, data, key=key)
        # The seeds differ in where they begin: only some of them break.
        breaks = (inner.step >= self.at) & (state.first > 0.0)
        if self.loudly:
            metrics["error"] = jnp.where(breaks, float(self.value), metrics["error"])
        else:
            average = jnp.where(breaks, float(self.value), inner.average)
            inner = TinyState(inner.weight, average, inner.step)
        return SilentState(inner, state.bound, state.first), metrics

    def act(self, state: SilentState, observation, *, key, explore: bool):
        return Tiny().act(state.inner, observation, key=key, explore=explore)


def weights(method, states, key):
    """Looks at what does not break, as an evaluation may."""
    return np.asarray(states.inner.weight).sum(1)[:, None]


def broken_seeds(method) -> list[int]:
    """Which of the seeds are to break, found without the loop's help."""
    place = Place(0, Stage("only", method, source("replay"), 1), _spaces(), range(4), 0, "map")
    states = jax.vmap(lambda key: method.init(_spaces(), key=key))(place.init_keys)
    return np.flatnonzero(np.asarray(states.first) > 0.0).tolist()


def _spaces():
    from .tiny import SPACES

    return SPACES


@pytest.mark.parametrize("kind", ("replay", "collect", "host"))
@pytest.mark.parametrize("value", ("nan", "inf"))
def test_what_was_learned_is_looked_at_and_not_only_metrics(kind, value, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CHUNK_SECONDS", 1e-6)
    directory = RunDirectory.create(tmp_path / "run", {})
    method = Silent(value=value)
    broken = broken_seeds(method)
    assert 0 < len(broken) < 4
    stages = [Stage("only", method, source(kind), 40)]
    with pytest.raises(Diverged) as caught:
        finish(stages, directory=directory, evaluate=weights, evaluations=20, seeds=4)
    message = str(caught.value)
    assert "(inner.average) is not finite any more" in message
    assert f"for seed {', '.join(map(str, broken))}. " in message
    # Chunks end where evaluations are due, every other update.
    assert "diverged by update 20: " in message
    kept = checkpoint.find(directory.checkpoints)
    assert [p.update for p in kept] == [16, 18]
    last = checkpoint.path_of(directory.checkpoints, kept[-1])
    assert f"The last good checkpoint is {last}." in message
    for name, array in checkpoint.read(last)["method"].items():
        assert np.isfinite(array).all() or "bound" in name


@pytest.mark.parametrize("value", ("nan", "inf", "1e13", "-3e38"))
def test_a_metric_of_one_seed_is_enough(value):
    method = Silent(value=value, loudly=True)
    with pytest.raises(Diverged, match="diverged by update 20: error = ") as caught:
        finish([Stage("only", method, source("replay"), 40)], evaluate=weights, seeds=4)
    assert f"for seed {', '.join(map(str, broken_seeds(method)))}. " in str(caught.value)


def test_what_is_infinite_from_the_beginning_may_stay_so():
    result = finish([Stage("only", Silent(at=1000), source("replay"), 8)], evaluate=weights)
    assert np.isneginf(np.asarray(result.outcomes["only"].state.bound)).all()


def test_an_evaluation_that_is_no_number_stops_the_run():
    def broken(method, states, key):
        return np.full((2, 3), np.nan)

    with pytest.raises(Diverged, match="an evaluation at update 0 gave a return that is not fin"):
        finish([Stage("only", Tiny(), source("replay"), 8)], evaluate=broken)
