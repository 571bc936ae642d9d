"""Collected datasets: graded, reproducible, and consistent with what the behaviour policy saw."""

import numpy as np
import pytest

from headwater.api.collect import KINDS, Collection, collect, default_behaviour
from headwater.core.errors import RunError, SpecificationError
from headwater.core.spaces import Box
from headwater.datasets.read import load
from headwater.environments.adapters.gymnasium_task import GymnasiumTask
from headwater.environments.control.pendulum import Pendulum
from headwater.methods.control.offline.iql import IQL
from headwater.methods.control.online.dqn import DQN
from headwater.methods.control.online.sac import SAC
from headwater.runs import checkpoint
from headwater.runs.directory import RunDirectory

SIZES = {"transitions": 400, "steps": 300, "batch_size": 8, "snapshots": 3, "progress": False}
PENDULUM = {**SIZES, "behaviour": SAC(hidden_sizes=(8, 8)), "format": "npz", "kinds": KINDS}
CART_POLE = {
    **SIZES,
    "behaviour": DQN(hidden_sizes=(8, 8), learning_rate=1e-2, exploration_decay_updates=50.0),
    "kinds": ("random", "medium", "medium-replay", "expert", "full-replay"),
}


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory) -> Collection:
    return collect(Pendulum(), tmp_path_factory.mktemp("pendulum"), **PENDULUM)


@pytest.fixture(scope="module")
def cart_pole(tmp_path_factory) -> Collection:
    task = GymnasiumTask("CartPole-v1")
    return collect(task, tmp_path_factory.mktemp("cart-pole"), **CART_POLE)


def saw(collection: Collection) -> dict[str, np.ndarray]:
    """What the behaviour policy saw, from its last checkpoint."""
    directory = RunDirectory.open(next(iter(collection.paths.values())).parent / "behaviour")
    newest = checkpoint.find(directory.checkpoints)[-1]
    return checkpoint.read(checkpoint.path_of(directory.checkpoints, newest))["source"]


def test_medium_and_expert_are_chosen_by_their_scores(pendulum, cart_pole):
    for made in (pendulum, cart_pole):
        scores = [snapshot.score for snapshot in made.behaviour]
        assert made.expert.score == max(scores)
        target = made.random + (made.expert.score - made.random) / 3
        before = made.behaviour[: made.behaviour.index(made.medium)]
        assert all(snapshot.score < target for snapshot in before)
        assert made.medium.score >= target or made.medium == made.expert
        steps = [snapshot.steps for snapshot in made.behaviour]
        # A host's blocks of 64 steps are longer than the interval that was asked for.
        assert steps == ([30, 120, 210, 300] if made is pendulum else [30, 158, 286])


def test_every_kind_holds_what_it_is_called(pendulum):
    assert list(pendulum.paths) == list(KINDS)
    data = {kind: load(path) for kind, path in pendulum.paths.items()}
    for kind, each in data.items():
        assert each.metadata["environment"] == "pendulum"
        assert each.metadata["name"] == f"pendulum-{kind}"
        assert pendulum.paths[kind].name == f"pendulum-{kind}.npz"
        mean = float(np.mean(each.episode_returns()))
        assert each.metadata["behaviour_score"] == pytest.approx(mean) == pendulum.scores[kind]
        assert each.metadata["local_returns"] == [pendulum.random, pendulum.expert.score]
        assert each.metadata["reference_returns"] == [-1231.0, -137.0]
        assert each.metadata["behaviour"]["medium"] == pendulum.medium._asdict()
        assert isinstance(each.spaces.action, Box) and each.spaces.action.low == (-2.0,)
        assert each.spaces.horizon == 200
        assert Pendulum().spaces.mismatch(each.spaces) is None
    # Whole episodes of the time limit, two for 400 transitions.
    for kind in ("random", "medium", "expert"):
        assert data[kind].episode_lengths().tolist() == [200, 200]
    both = data["medium-expert"]
    assert both.size == 800
    np.testing.assert_array_equal(both.actions[:400], data["medium"].actions)
    np.testing.assert_array_equal(both.actions[400:], data["expert"].actions)
    assert (data["medium"].actions != data["random"].actions).any()
    # Policies that know how probable their actions were say so; the replay is of many policies.
    uniform, together = data["random"].log_propensities, both.log_propensities
    assert uniform is not None and together is not None
    np.testing.assert_allclose(uniform, -np.log(2.0), atol=1e-6)
    for kind, policy_rows in (("medium", slice(400)), ("expert", slice(400, 800))):
        logs = data[kind].log_propensities
        assert logs is not None
        np.testing.assert_array_equal(together[policy_rows], logs)
        assert np.isfinite(logs).all() and logs.std() > 0.0
    assert data["medium-replay"].log_propensities is None
    # The log is the task's own: cosine and sine of one angle, and rewards that are never positive.
    for each in data.values():
        np.testing.assert_allclose((each.observations[:, :2] ** 2).sum(1), 1.0, rtol=1e-4)
        assert each.rewards.max() <= 0.0 and not each.terminals.any()
        within = np.setdiff1d(np.arange(each.size - 1), each.episode_starts[1:] - 1)
        np.testing.assert_array_equal(each.next_observations[within], each.observations[within + 1])


def test_replays_are_what_the_behaviour_policy_saw(pendulum, cart_pole):
    for made, prefix in ((pendulum, ".ring.data."), (cart_pole, "ring.")):
        seen = saw(made)
        full = load(made.paths["full-replay"])
        part = load(made.paths["medium-replay"])
        assert part.size == made.medium.steps <= full.size == made.behaviour[-1].steps
        for data in (full, part):
            for column, name in (
                (data.observations, "observation"),
                (data.rewards, "reward"),
                (data.next_observations, "next_observation"),
                (data.terminals, "terminal"),
            ):
                np.testing.assert_array_equal(column, seen[prefix + name][0, : data.size])
            np.testing.assert_allclose(
                data.actions, seen[prefix + "action"][0, : data.size], atol=1e-6
            )
    # A tenth of the steps was random.
    assert pendulum.behaviour[0].steps == 30 and pendulum.behaviour[-1].steps == 300


def test_host_tasks_are_logged_like_compiled_ones(cart_pole):
    data = {kind: load(path) for kind, path in cart_pole.paths.items()}
    assert cart_pole.paths["random"].name == "CartPole-v1-random.parquet"
    for kind in ("random", "medium", "expert"):
        each = data[kind]
        assert each.size == 500 and each.spaces.discrete and each.spaces.action_size == 2
        # One for every step, and all but the last episode ended by a fall.
        np.testing.assert_array_equal(each.episode_returns(), each.episode_lengths())
        assert each.terminals[each.episode_starts[1:-1] - 1].all()
        # Without published returns, the local ones are the references.
        assert each.metadata["reference_returns"] == [cart_pole.random, cart_pole.expert.score]
    # 20 episodes of random actions: the mean is 22.5 and the deviation of one about 12.
    assert abs(cart_pole.random - 22.5) < 4 * 12 / np.sqrt(20)
    assert abs(np.mean(data["random"].episode_lengths()) - 22.5) < 4 * 12 / np.sqrt(500 / 22.5)
    assert 0.4 < data["random"].actions.mean() < 0.6


def test_random_actions_score_what_was_published(pendulum):
    # The deviation of one episode's return is about 290.
    assert abs(pendulum.random - -1231.0) < 4 * 290 / np.sqrt(20)
    assert abs(pendulum.scores["random"] - -1231.0) < 4 * 290 / np.sqrt(2)
    low, high = -1231.0 - 4 * 290 / np.sqrt(2), -137.0
    assert all(low < score < high for score in pendulum.scores.values())


def test_asking_again_changes_nothing_and_rebuilds_what_is_gone(pendulum):
    out = pendulum.paths["random"].parent
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    assert len(before) == 6
    again = collect(Pendulum(), out, **PENDULUM)
    assert again == pendulum
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")} == before
    for kind in ("medium", "medium-replay"):
        content = load(pendulum.paths[kind]).fingerprint()
        pendulum.paths[kind].unlink()
        assert collect(Pendulum(), out, **PENDULUM) == pendulum
        assert load(pendulum.paths[kind]).fingerprint() == content
    # Fewer kinds are part of the same collection.
    fewer = collect(Pendulum(), out, **{**PENDULUM, "kinds": ("expert",)})
    assert list(fewer.paths) == ["expert"] and fewer.expert == pendulum.expert


@pytest.mark.parametrize(
    "options, name",
    [
        ({"steps": 301}, "steps = 300, not 301"),
        ({"seed": 1}, "seed = 0, not 1"),
        ({"transitions": 200}, "transitions = 400, not 200"),
        ({"medium": 0.5}, "medium = 0.33"),
        ({"behaviour": SAC(hidden_sizes=(8, 4))}, r"hidden_sizes = \[8, 8\], not \[8, 4\]"),
        ({"task": Pendulum(gravity=9.0)}, r"gravity = 10\.0, not 9\.0"),
    ],
)
def test_another_collection_in_the_same_place_is_refused(pendulum, options, name):
    options = {"task": Pendulum(), **PENDULUM, **options}
    task, out = options.pop("task"), pendulum.paths["random"].parent
    with pytest.raises(RunError, match=f"holds a collection with {name}"):
        collect(task, out, **options)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"kinds": ["medium-reply"]}, "unknown kind of data 'medium-reply': did you mean medium-r"),
        ({"format": "parket"}, "unknown format 'parket': did you mean parquet"),
        ({"medium": 1.0}, r"medium = 1\.0 must lie between 0"),
        ({"snapshots": 1}, "snapshots = 1: it must be at least 2"),
        ({"transitions": 0}, "transitions = 0: it must be at least 1"),
        ({"steps": 0}, "steps = 0: it must be at least 1"),
        ({"behaviour": IQL(hidden_sizes=(8, 8))}, "IQL learns from logged experience"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, options, sentence):
    with pytest.raises(SpecificationError, match=sentence):
        collect(Pendulum(), tmp_path / "out", **{**PENDULUM, **options})
    assert not (tmp_path / "out").exists()


def test_the_default_behaviour_suits_the_actions():
    assert isinstance(default_behaviour(Pendulum().spaces), SAC)
    assert isinstance(default_behaviour(GymnasiumTask("CartPole-v1").spaces), DQN)
