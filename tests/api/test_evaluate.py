"""What a run is worth, by acting and from a log."""

import dataclasses
import json
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater
from headwater.api import evaluate as verb
from headwater.api.evaluate import evaluate
from headwater.api.run import Run
from headwater.api.train import train
from headwater.cli.evaluate import command as shown
from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.write import write
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.environment import AbstractEnvironment, AbstractLevels, Step
from headwater.evaluation.off_policy import evaluate_off_policy
from headwater.evaluation.returns import evaluate_returns
from headwater.methods.control.imitation.bc import BC

from .problems import pendulum_log


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return train(
        BC(hidden_sizes=(8, 8), stochastic=True),
        pendulum_log(),
        updates=10,
        seeds=3,
        batch_size=16,
        evaluations=1,
        episodes=2,
        out=tmp_path_factory.mktemp("runs") / "clone",
        progress=False,
    )


def plain(found) -> dict:
    """Through JSON, which must not need NaN or infinity."""
    return json.loads(json.dumps(found.to_json(), allow_nan=False))


def test_returns_are_those_of_acting(run):
    found = evaluate(run, episodes=4, seed=3)
    expected = evaluate_returns(
        run.method, run.state, Pendulum(), episodes=4, key=jax.random.key(3)
    )
    np.testing.assert_array_equal(found.returns, expected)
    assert found.returns.shape == (3, 4)
    assert (found.run, found.environment, found.estimates) == ("clone", "pendulum", None)
    # Of three seeds none is cut off: the interquartile mean is the mean.
    means = expected.mean(1)
    assert found.score.point == pytest.approx(means.mean())
    assert found.score.seeds == 3 and found.score.low <= found.score.point <= found.score.high
    normal = 100 * (means - -1231.0) / (-137.0 - -1231.0)
    assert found.normalised.point == pytest.approx(normal.mean())
    assert plain(found)["returns"] == expected.tolist()
    assert plain(found)["score"]["point"] == found.score.point
    # From its directory, by name of the task, and sampled instead of greedy.
    again = evaluate(str(run.path), env="pendulum", episodes=4, seed=3)
    np.testing.assert_array_equal(again.returns, expected)
    sampled = evaluate(run, episodes=4, seed=3, explore=True)
    assert (sampled.returns != expected).all()


def test_a_log_is_judged_with_the_estimators_asked_for(run, tmp_path, monkeypatch):
    data = pendulum_log()
    write(data, tmp_path / "log.npz")
    # The log's actions are uniform; a behaviour policy would have to be learned.
    settings = {"resamples": 20, "behaviour": np.full(data.size, np.log(0.5), np.float32)}

    def quick(*arguments, **options):
        calls.append(options)
        return evaluate_off_policy(*arguments, **options, **settings)

    calls = []
    monkeypatch.setattr(verb, "evaluate_off_policy", quick)
    found = evaluate(run, env="none", data=tmp_path / "log.npz", estimators=["wis"], seed=2)
    assert found.returns is None and found.score is None and found.environment is None
    assert [list(each) for each in found.estimates] == [["wis"]] * 3
    assert calls[0]["explore"] and calls[0]["seed"] == 2
    state = jax.tree.map(lambda leaf: leaf[1], run.state)
    by_hand = evaluate_off_policy(
        data, run.method, state, estimators=["wis"], discount=0.99, seed=2, **settings
    )
    assert found.estimates[1]["wis"].value == pytest.approx(by_hand["wis"].value, rel=1e-6)
    # Two policies that have nothing in common, and a handful of episodes.
    told = plain(found)["estimates"][1]["wis"]
    assert told["verdict"] == "refused" and told["value"] is None
    assert "effectively count" in told["refused"] and told["behaviour"] == "given"


def test_estimators_follow_from_what_the_policy_knows(run, monkeypatch):
    calls = []

    def record(data, method, state, *, estimators, **options):
        calls.append((tuple(estimators), options["explore"], options["discount"]))
        return {}

    monkeypatch.setattr(verb, "evaluate_off_policy", record)
    evaluate(run, env="none", data=pendulum_log())
    # The greedy policy has no probabilities over continuous actions; all must judge the same one.
    assert calls == [(("fqe", "mis", "drl"), False, 0.99)] * 3
    found = evaluate(run, env="none", data=pendulum_log(), explore=True)
    assert found.policy_judged == "exploring"
    assert calls[3:] == [(("fqe", "wis", "wdr", "mis", "drl"), True, 0.99)] * 3
    evaluate(run, env="none", data=pendulum_log(), estimators=["fqe", "wis"])
    assert calls[6:] == [(("fqe", "wis"), True, 0.99)] * 3
    evaluate(run, env="none", data=pendulum_log(), estimators=["fqe"])
    assert calls[9:] == [(("fqe",), False, 0.99)] * 3


class Weights(AbstractEnvironment, AbstractLevels):
    """One step, which pays the action times one more than the number of the level."""

    name: ClassVar[str] = "weights"
    reference_returns: ClassVar[None] = None
    first: int = 0
    count: int = eqx.field(static=True, default=2)

    @property
    def spaces(self):
        return dataclasses.replace(Pendulum().spaces, horizon=1)

    @property
    def levels(self):
        return self.count

    def level(self, index):
        return dataclasses.replace(self, first=self.first + index, count=1)

    def reset(self, *, key):
        return self.first + jax.random.randint(key, (), 0, self.count), jnp.zeros(3)

    def step(self, state, action, *, key):
        over = jnp.ones((), bool)
        return state, Step(jnp.zeros(3), (state + 1.0) * action[0], over, ~over)


def test_levels_that_were_never_seen(run, capsys, monkeypatch):
    whole = evaluate(run, env=Weights(), episodes=1, unseen_levels=5)
    found = whole.generalisation
    act = lambda state: run.method.act(state, jnp.zeros(3), key=jax.random.key(0), explore=False)[0]
    action = float(jax.vmap(act)(run.state).mean())
    assert found.seen.point == pytest.approx((1 + 2) / 2 * action, rel=1e-5)
    assert found.unseen.point == pytest.approx((3 + 4 + 5 + 6 + 7) / 5 * action, rel=1e-5)
    assert (found.seen_levels, found.unseen_levels) == (2, 5)
    asked = {}
    monkeypatch.setattr(verb, "evaluate", lambda run, **given: asked.update(given) or whole)
    shown(run.path, episodes=1, unseen_levels=5)
    assert asked["unseen_levels"] == 5
    assert f"generalisation gap {found.gap}" in capsys.readouterr().out
    with pytest.raises(SpecificationError, match="unseen_levels = -1: it must be at least 1"):
        evaluate(run, env=Weights(), episodes=1, unseen_levels=-1)


def test_what_does_not_fit_is_said(run):
    with pytest.raises(SpecificationError, match="pendulum has no numbered levels"):
        evaluate(run, episodes=1, unseen_levels=3)
    with pytest.raises(SpecificationError, match="unseen levels are acted on: say in which"):
        evaluate(run, env="none", data=pendulum_log(), unseen_levels=3)
    with pytest.raises(SpecificationError, match="clone: give an environment to act in, or data"):
        evaluate(run, env="none")
    with pytest.raises(SpecificationError, match="clone does not fit cart-pole: observations have"):
        evaluate(run, env="cart-pole")
    with pytest.raises(SpecificationError, match="unknown estimator 'wiss': did you mean"):
        evaluate(run, env="none", data=pendulum_log(), estimators=["wiss"])
    other = headwater.Dataset.from_arrays(
        np.zeros((4, 3)), np.zeros((4, 2)), np.ones(4), [0, 0, 0, 1]
    )
    with pytest.raises(SpecificationError, match="clone does not fit the data: actions have size"):
        evaluate(run, env="none", data=other)


def test_a_log_is_read_as_the_run_that_learned_from_it_read_it(tmp_path):
    log = pendulum_log()
    last = log.terminals | log.truncations
    arrays = {
        "obs": log.observations,
        "torque": log.raw_actions(),
        "reward": log.rewards,
        "left": last,
        "next_obs": log.next_observations,
    }
    path = tmp_path / "log.npz"
    np.savez(path, **arrays)
    options = {
        "columns": {"actions": "torque", "dones": "left"},
        "dones": "truncated",
        "action_low": -2.0,
        "action_high": 2.0,
    }
    made = train(
        BC(hidden_sizes=(8,), stochastic=True), path, updates=2, seeds=1, batch_size=8, env="none",
        out=tmp_path / "run", data_options=options, progress=False,
    )  # fmt: skip
    judged = {"estimators": ["wis"], "explore": True, "env": "none"}
    found = evaluate(tmp_path / "run", data=path, **judged).estimates
    other = tmp_path / "other.npz"
    np.savez(other, **arrays)
    with pytest.raises(DataError, match="no column is recognised as actions"):
        evaluate(made, data=other, **judged)
    again = evaluate(made, data=other, data_options=options, **judged).estimates
    assert found[0]["wis"].effective_episodes == again[0]["wis"].effective_episodes is not None
    with pytest.raises(SpecificationError, match="the data is read already"):
        evaluate(made, data=log, data_options=options, **judged)
    with pytest.raises(SpecificationError, match="data options are of logged transitions"):
        evaluate(made, env="pendulum", data_options=options)
