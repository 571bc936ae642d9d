"""Learning rates that are chosen on the way: what is forecast, tried, put back and trained."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import RunError, SpecificationError
from headwater.core.method import Agent
from headwater.runs.learn import learn
from headwater.runs.recipes.learning_rates import (
    _Search,
    forecast_loss,
    train_with_chosen_rates,
)

from .tiny import SPACES, Tiny, source


def test_an_exponential_is_forecast_exactly():
    times = np.arange(20) + 0.5
    # Rows that are hard for both do not matter, however much they differ.
    still = 2.4 + np.random.default_rng(0).normal(size=20)
    curve = still - 2.0 * (1.0 - np.exp(-0.07 * times))
    end = still.mean() - 2.0 * (1.0 - np.exp(-7.0))
    assert forecast_loss(curve, still, 100.0) == pytest.approx(end, abs=2e-2)
    # A point that lies elsewhere is left out.
    curve[3] = 9.0
    assert forecast_loss(curve, still, 100.0) == pytest.approx(end, abs=2e-2)
    curve[3] = np.nan
    assert forecast_loss(curve, still, 100.0) == np.inf


def test_no_more_is_promised_than_was_seen():
    """A straight line would lead to less than nothing, and so would what recovers from a jump."""
    still, times = np.ones(20), np.arange(20) + 0.5
    line = forecast_loss(still - 0.01 * times, still, 200.0)
    assert line == pytest.approx(1.0 - 2 * 0.01 * 20, abs=0.05)
    jump = still + 30.0 * np.exp(-0.05 * times)
    assert forecast_loss(jump, still, 200.0) > jump[-1]


def test_the_stages_are_those_of_learning_with_the_chosen_rates():
    """Trying leaves no trace: the same updates with these rates alone lead to the same weights."""
    given = {"low": 1e-4, "high": 10.0, "candidates": 6, "updates": 200, "stages": 2}
    found = train_with_chosen_rates(
        Tiny(), SPACES, source("replay"), loss="error", key=jax.random.key(0), **given
    )
    first, second = found.stages
    assert (first.updates, second.updates) == (200, 400) and found.state.step == 600
    for stage in found.stages:
        rates = [each.learning_rate for each in stage.tried]
        assert len(rates) == 6 and min(rates) < 1e-3 and max(rates) > 1.0
        assert stage.learning_rate == min(stage.tried, key=lambda each: each.forecast)[0]
    rows = source("replay")
    init_key, source_key, _, key = jax.random.split(jax.random.key(0), 4)
    state, source_state = Tiny().init(SPACES, key=init_key), rows.init(key=source_key)

    @jax.jit
    def updated(rate, state, source_state, stage_key, done):
        method = eqx.tree_at(lambda m: m.learning_rate, Tiny(), rate)
        draw_key, update_key = jax.random.split(jax.random.fold_in(stage_key, done))
        source_state, data = rows.draw(source_state, Agent(method, state), key=draw_key)
        return method.update(state, data, key=update_key)[0], source_state

    for number, stage in enumerate(found.stages):
        rate, stage_key = jnp.float32(stage.learning_rate), jax.random.fold_in(key, number)
        for _ in range(stage.updates):
            state, source_state = updated(rate, state, source_state, stage_key, state.step)
    np.testing.assert_allclose(found.state.weight, state.weight, rtol=1e-4)
    # The lowest rate learns nothing in so few updates.
    slow = learn(
        Tiny(learning_rate=1e-4), SPACES, source("replay"), 600, every=20, key=jax.random.key(0)
    )
    assert second.loss < 0.95 * float(slow.means["error"][-1])
    # It may go on from there.
    given |= {"stages": 1, "state": found.state}
    later = train_with_chosen_rates(
        Tiny(), SPACES, source("replay"), loss="error", key=jax.random.key(1), **given
    )
    assert later.state.step == 800


def test_a_rate_that_diverges_at_once_is_not_tried_again():
    search, rates = _Search(8, 1e-4, 1.0, jax.random.key(0)), []
    for _ in range(5):
        rates.append(search.ask())
        search.tell(rates[-1], np.inf if rates[-1] > 1e-2 else 1.0 - 10.0 * rates[-1], 1.0)
    assert max(rates) > 1e-2 and len(set(rates)) == 5
    # Then where most is expected, which is not where it diverged.
    for _ in range(3):
        rate = search.ask()
        assert rate < 0.1
        search.tell(rate, 1.0 - 10.0 * rate if rate <= 1e-2 else np.inf, 1.0)


def test_a_loss_that_is_no_number_where_a_stage_begins_is_said():
    with pytest.raises(RunError, match="not finite where stage 2 begins: try rates below 1"):
        train_with_chosen_rates(
            *(Tiny(explode_at=200), SPACES, source("replay")),
            loss="error", updates=200, candidates=1, stages=2, key=jax.random.key(0),
        )  # fmt: skip


def test_a_source_that_acts_is_warmed_up_once():
    found = train_with_chosen_rates(
        *(Tiny(), SPACES, source("collect")),
        loss="error", updates=200, candidates=1, stages=1, key=jax.random.key(0),
    )  # fmt: skip
    # Ten random steps and six of the first policy, then two before each update.
    assert found.source_state.steps == 16 + 400


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"field": "learning_rat"}, "Tiny: unknown number 'learning_rat': did you mean"),
        ({"loss": "eror"}, "Tiny: unknown metric 'eror': did you mean error"),
        ({"low": 0.0}, "rates lie between 0 and 1: 0 < low < high is needed"),
        ({"updates": 50}, "leave 5 updates to try a rate"),
    ],
)
def test_what_does_not_fit_is_refused(changed, sentence):
    given = {"loss": "error", "updates": 400} | changed
    with pytest.raises(SpecificationError, match=sentence):
        train_with_chosen_rates(Tiny(), SPACES, source("replay"), key=jax.random.key(0), **given)
