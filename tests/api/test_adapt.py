"""Going online from a log: what each recipe takes along, needs and refuses."""

import dataclasses
import shutil
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.api import execute
from headwater.api.adapt import adapt
from headwater.api.execute import resume
from headwater.api.run import Run, open_run
from headwater.api.train import train
from headwater.core.catalogue import settings
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.datasets.write import write
from headwater.environments.control.cable_routing import CableRouting
from headwater.environments.experts import Advised, corrected
from headwater.environments.history import WithHistory
from headwater.environments.interaction import begin
from headwater.evidence.logs import dataset_of
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.model_based.pets import PETS
from headwater.methods.control.offline.cql import CQL
from headwater.methods.control.offline.iql import IQL
from headwater.methods.control.online.ppo import PPO
from headwater.methods.control.online.rlpd import RLPD
from headwater.methods.control.online.sac import SAC
from headwater.methods.control.online.staged_proto import StagedPROTO
from headwater.runs.journal import Journal
from headwater.runs.recipes import narrowness, online
from headwater.runs.recipes.online import Start

from .problems import assert_same, cart_pole_log, differ, pendulum_log

OFFLINE: dict[str, Any] = {
    "updates": 20,
    "seeds": 2,
    "batch_size": 16,
    "episodes": 2,
    "evaluations": 1,
}
ONLINE: dict[str, Any] = {
    "steps": 40,
    "block": 8,
    "evaluations": 2,
    "critic_fit_updates": 6,
    "progress": False,
}
WSRL: dict[str, Any] = {**ONLINE, "recipe": "wsrl"}
CLONE = BC(hidden_sizes=(8, 8), stochastic=True)


@pytest.fixture(scope="module")
def offline(tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "offline"
    return train(CLONE, pendulum_log(), out=out, progress=False, **OFFLINE)


class Interrupted(Exception):
    """Stands for anything that ends a process."""


def interrupted(monkeypatch, nth: int, *arguments, by=adapt, **options) -> None:
    """Adapts or resumes a run until its `nth` evaluation."""
    plain, seen = execute.evaluate_returns, []

    def evaluate(*arguments, **options):
        seen.append(None)
        if len(seen) == nth:
            raise Interrupted
        return plain(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "evaluate_returns", evaluate)
        with pytest.raises(Interrupted):
            by(*arguments, **options)


def test_the_precision_is_that_of_the_run_unless_told(offline, monkeypatch):
    multiplied = []
    monkeypatch.setattr(execute, "check_precision", multiplied.append)
    monkeypatch.setattr(execute, "multiplying", lambda precision: nullcontext())
    options = dataclasses.replace(offline.specification.options, precision="bfloat16")
    rounded = dataclasses.replace(offline.specification, options=options)
    run = dataclasses.replace(offline, specification=rounded)
    short = {**ONLINE, "recipe": "scratch", "steps": 16, "evaluations": 1}
    assert adapt(run, **short).specification.options.precision == "bfloat16"
    assert adapt(run, precision="default", **short).specification.options.precision == "default"
    assert multiplied == ["bfloat16", "default"]


def test_wsrl_goes_on_without_log_and_offline_run(tmp_path, offline, monkeypatch):
    upstream, out = tmp_path / "offline", tmp_path / "online"
    shutil.copytree(offline.path, upstream)
    whole = adapt(offline, **WSRL)
    # Stopped while critics are fitted, which takes rows of the log: its copy is in the new run.
    plain, rows = Journal.logged, []

    def logged(*arguments):
        rows.append(None)
        if len(rows) == 5:
            raise Interrupted
        plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "logged", logged)
        with pytest.raises(Interrupted):
            adapt(str(upstream), out=out, **WSRL)
    shutil.rmtree(upstream)
    assert not open_run(out).finished
    with pytest.raises(RunError, match="online is not finished: `headwater resume"):
        adapt(out, **WSRL)
    interrupted(monkeypatch, 3, out, by=resume, progress=False)
    # From the first step on the log is not touched again, and neither is the offline run.
    shutil.rmtree(out / "data")
    again = resume(out, progress=False)
    assert_same(whole, again)
    assert again.upstream is not None
    assert_same(again.upstream, offline)
    budget = again.specification.budget
    # A fifth of the steps warms up; 32 are left, and rows for each of four steps of the critics.
    assert budget is not None
    assert (budget.warm_up_steps, budget.random_steps, budget.rows) == (8, 0, 64)
    assert again.metrics[-1]["update"] == 32
    assert again.metrics[-1]["environment_steps"] == 40
    assert again.specification.options.keep_data is None and again.specification.options.seed == 1
    assert isinstance(again.method, SAC) and again.method.hidden_sizes == (8, 8)
    # Ten layer-normalised critics, two of which bound each target.
    assert (again.method.num_critics, again.method.num_target_critics) == (10, 2)
    assert again.method.layer_norm == "critics"
    assert again.specification.start == Start(6)
    # Before the first update it is the offline policy that was evaluated.
    assert again.curve is not None
    np.testing.assert_array_equal(again.curve[0], [8, 24, 40])
    with pytest.raises(SpecificationError, match="online already learned online: adapt an offline"):
        adapt(again, **WSRL)


def test_settings_take_effect_or_are_refused(offline):
    changes = {"num_critics": 3, "layer_norm": "none", "initial_temperature": 0.7}
    still = {"temperature_learning_rate": 0.0}
    run = adapt(offline, set={**changes, **still}, **{**ONLINE, "evaluations": 1})
    network = run.state.critics.stacked.network
    assert network.weights[0].shape[:2] == (2, 3) and network.scales == ()
    np.testing.assert_allclose(np.exp(run.state.log_temperature), 0.7, rtol=1e-6)
    for recipe, setting, sentence in (
        ("wsrl", {"hidden_sizes": (4, 4)}, "hidden_sizes = 4,4 cannot take effect: the actor is"),
        ("continue", {"stochastic": False}, "stochastic = False cannot take effect: the offline"),
        ("scratch", {"normalise_observations": True}, "normalise_observations = True cannot take"),
    ):
        with pytest.raises(SpecificationError, match=sentence):
            adapt(offline, recipe=recipe, set=setting, **ONLINE)


def test_keep_data_keeps_a_share_of_every_batch(tmp_path, offline):
    how = {**ONLINE, "evaluations": 1}
    run = adapt(offline, keep_data=0.25, out=tmp_path / "online", **how)
    asked = run.specification
    assert (asked.recipe, asked.options.keep_data) == ("keep-data", 0.25)
    assert asked.data is not None and run.upstream is not None
    assert asked.start == Start(6)
    # The same from a file.
    assert open_run(tmp_path / "online").specification == asked
    for recipe in ("wsrl", "scratch"):
        with pytest.raises(SpecificationError, match=f"the recipe '{recipe}' keeps no data"):
            adapt(offline, recipe=recipe, keep_data=0.25, **ONLINE)


def test_stages_go_on_where_they_were(tmp_path, offline, monkeypatch):
    how = {**ONLINE, "recipe": "staged", "steps": 480, "block": 40, "warm_up_steps": 0}
    # Two episodes of 200 steps end, each of which is a stage here.
    monkeypatch.setattr(online, "STAGE_EPISODES", 1)
    whole = adapt(offline, **how)
    # The same recipe where it is chosen because the log is narrow; this one's actions are random.
    monkeypatch.setattr(narrowness, "NARROW", 9.0)
    how["recipe"] = "by-log"
    interrupted(monkeypatch, 2, offline, out=tmp_path / "online", **how)
    again = resume(tmp_path / "online", progress=False)
    assert_same(whole, again)
    assert isinstance(again.method, StagedPROTO)
    assert (again.specification.recipe, again.specification.options.keep_data) == ("staged", 0.5)
    assert again.specification.start == Start(6)
    # The first passes, since none is known.
    passed = [row["metrics"].get("stages_passed", [0.0, 0.0]) for row in again.metrics]
    assert (np.asarray(passed).sum(0) > 0.0).all()


def test_critics_that_evaluate_the_actor_are_taken_over(tmp_path, capsys):
    networks = {"hidden_sizes": (8, 8), "num_critics": 4, "layer_norm": "both"}
    method = CQL(num_action_samples=1, reward_scale=4.0, **networks)
    how = {**OFFLINE, "updates": 2, "progress": False}
    before = train(method, pendulum_log(), **how)
    still = {f"{what}_learning_rate": 0.0 for what in ("actor", "critic", "temperature")}
    # No log is needed, and none is at hand; but that these critics know little is said.
    run = adapt(before, set=still, **{**WSRL, "evaluations": 1, "progress": None})
    assert "the critics of CQL learned for 2 updates" in capsys.readouterr().err
    assert run.specification.start == Start(0) and run.specification.data is None
    assert settings(run.method)["num_critics"] == 4
    for part in ("critics", "log_temperature"):
        for ours, theirs in zip(
            jax.tree.leaves(getattr(run.state, part)),
            jax.tree.leaves(getattr(before.state.soft, part)),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(SpecificationError, match="uses no log where the offline critics are taken"):
        adapt(before, data=pendulum_log(), **WSRL)
    # The twin pays for entropy as much, in rewards as they are.
    temperature = float(np.exp(np.mean(np.asarray(before.state.soft.log_temperature))))
    assert settings(run.method)["initial_temperature"] == pytest.approx(temperature, rel=5e-3)
    twin = adapt(before, recipe="scratch", **{**ONLINE, "steps": 16, "evaluations": 1})
    assert settings(twin.method)["initial_temperature"] == pytest.approx(
        temperature / 4.0, rel=5e-3
    )
    # Others cannot be, and are not begun with as they are.
    with pytest.raises(SpecificationError, match=r"in memory: .* fresh ones are fitted on the log"):
        adapt(before, set={"num_critics": 10}, **WSRL)


def test_wsrl_begins_with_the_offline_actor(offline):
    # Nothing moves: what is left is what it began with.
    still = {"actor_learning_rate": 0.0, "critic_learning_rate": 0.0}
    run = adapt(offline, set=still, **{**WSRL, "steps": 10, "block": 8, "warm_up_steps": 2})
    for ours, theirs in zip(
        jax.tree.leaves((run.state.actor, run.state.normaliser)),
        jax.tree.leaves((offline.state.actor, offline.state.normaliser)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    observations = np.random.default_rng(0).normal(size=(9, 3))
    for ours, theirs in zip(run.policies, offline.policies):
        np.testing.assert_array_equal(ours(observations), theirs(observations))


def test_continue_brings_the_log_along(tmp_path, offline, monkeypatch):
    upstream = tmp_path / "offline"
    shutil.copytree(offline.path, upstream)
    whole = adapt(offline, recipe="continue", **ONLINE)
    assert whole.method == CLONE
    out = tmp_path / "online"
    interrupted(monkeypatch, 3, upstream, recipe="continue", out=out, **ONLINE)
    # The log lay in the directory of the offline run.
    shutil.rmtree(upstream)
    assert_same(whole, resume(out, progress=False))
    # It went on from the state that it had: as many steps more as it made updates.
    np.testing.assert_array_equal(whole.state.step, [20 + 40, 20 + 40])
    assert differ(whole, dataclasses.replace(offline))


def test_dagger_goes_on_with_what_the_expert_says(offline):
    # Observations of two frames; the task is an object, which no name stands for.
    task = WithHistory(CableRouting(), 2)
    advised = Advised(task)
    rows = corrected(
        advised,
        begin(advised, 4, key=jax.random.key(0)),
        lambda observation, key: jnp.zeros((), jnp.int32),
        expert_share=1.0,
        steps=25,
        key=jax.random.key(1),
    )[1]
    log = dataset_of(task, jax.tree.map(lambda x: np.swapaxes(x, 0, 1), rows))
    clone = BC(hidden_sizes=(8,), learning_rate=1e-2)
    before = train(clone, log, env=task, progress=False, **OFFLINE)
    how = {**ONLINE, "evaluations": 1, "steps": 24}
    run = adapt(before, env=task, data=log, recipe="dagger", **how)
    assert run.method == clone and run.metrics[-1]["environment_steps"] == 24
    np.testing.assert_array_equal(run.state.step, [20 + 24, 20 + 24])
    with pytest.raises(RunError, match=r"'cable-routing \(2 frames\)' was passed as an object"):
        adapt(before, data=log, recipe="dagger", **how)
    with pytest.raises(SpecificationError, match="pendulum does not say what an expert would do"):
        adapt(offline, recipe="dagger", **ONLINE)
    critic = train(IQL(hidden_sizes=(8,)), cart_pole_log(), env="none", progress=False, **OFFLINE)
    with pytest.raises(SpecificationError, match="IQL learns from rewards, which are those of"):
        adapt(critic, env="cart-pole", data=cart_pole_log(), recipe="dagger", **ONLINE)


def test_ppo_goes_on_from_a_clone_and_is_drawn_back_to_it(offline, tmp_path, monkeypatch):
    how = {"steps": 60, "block": 16, "evaluations": 3, "progress": False, "recipe": "ppo"}
    how |= {"copies": 2, "set": {"num_minibatches": 2, "num_epochs": 2}}
    whole = adapt(offline, **how)
    assert isinstance(whole.method, PPO) and whole.method.kl_weight == 0.2
    assert whole.method.hidden_sizes == CLONE.hidden_sizes
    np.testing.assert_array_equal(whole.state.updates, [3, 3])
    assert whole.metrics[-1]["environment_steps"] == 48, "a block that is not whole is left out"
    for prior, learned, actor in zip(
        *(jax.tree.leaves(x) for x in (whole.state.prior, whole.state.actor, offline.state.actor)),
        strict=True,
    ):
        np.testing.assert_array_equal(prior, actor)
        assert not np.array_equal(learned, actor)
    out = tmp_path / "again"
    interrupted(monkeypatch, 3, offline, out=out, **how)
    assert_same(resume(out, progress=False), whole)
    for wrong, sentence in (
        ({"warm_up_steps": 8}, "PPO learns from each block of steps once.*leave out warm_up_steps"),
        ({"batch_size": 8}, "leave out batch_size"),
        ({"updates_per_step": 2}, "leave out updates_per_step"),
        ({"keep_data": 0.5}, "the recipe 'ppo' keeps no data"),
        ({"copies": 3}, "a block of 16 environment steps cannot be shared by 3 copies"),
        ({"block": 15, "copies": 1}, "cannot take a block of 15 steps in num_minibatches = 2"),
        ({"steps": 15}, "15 environment steps hold no block of 16"),
        ({"set": {"hidden_sizes": (4,)}}, "hidden_sizes = 4 cannot take effect"),
    ):
        with pytest.raises(SpecificationError, match=sentence):
            adapt(offline, **{**how, **wrong})


@pytest.mark.parametrize("recipe", ["keep-data", "by-log", "staged", "ppo", "scratch"])
def test_a_method_without_hidden_layers_is_followed_by_no_other(offline, recipe):
    # Its state is not looked at before that.
    before = dataclasses.replace(offline, method=PETS())
    with pytest.raises(SpecificationError, match=r"PETS has no hidden_sizes .* 'rlpd'"):
        adapt(before, recipe=recipe, **ONLINE)


def test_rlpd_and_scratch_begin_from_nothing(tmp_path, offline):
    run = adapt(offline, recipe="rlpd", set={"num_critics": 2}, out=tmp_path / "rlpd", **ONLINE)
    assert isinstance(run.method, RLPD) and run.method.num_critics == 2
    assert run.method.hidden_sizes == (8, 8) and run.upstream is None
    budget = run.specification.budget
    assert budget is not None
    assert (budget.random_steps, budget.warm_up_steps) == (4, 0)
    assert run.metrics[-1]["environment_steps"] == 4 + 36 // 8 * 8
    assert (tmp_path / "rlpd" / "data").is_dir()
    assert not (tmp_path / "rlpd" / "upstream").exists()
    scratch = adapt(offline, recipe="scratch", **ONLINE)
    assert isinstance(scratch.method, SAC) and scratch.specification.data is None
    # It knows nothing of the log, not even its scale.
    np.testing.assert_array_equal(scratch.state.normaliser.std, 1.0)
    assert scratch.spaces.statistics is None


def test_references_of_the_log_stay_with_the_run(tmp_path):
    data = pendulum_log(reference_returns=[-2000.0, 0.0])
    before = train(CLONE, data, progress=False, **OFFLINE)
    assert before.references is not None
    assert before.references.random == -2000.0
    after = adapt(before, data=data, **ONLINE)
    assert after.references == before.references
    # Another task has its own.
    other = adapt(before, data=data, env="Pendulum-v1", **{**ONLINE, "evaluations": 1, "steps": 10})
    assert other.references is None


def test_a_log_that_changed_is_said(tmp_path):
    file = tmp_path / "log.npz"
    write(pendulum_log(), file)
    before = train(CLONE, file, out=tmp_path / "offline", progress=False, **OFFLINE)
    write(pendulum_log(marked=True), file, overwrite=True)
    with pytest.raises(DataError, match=r"log\.npz is not what the offline run learned from"):
        adapt(before, recipe="continue", **ONLINE)
    # Given knowingly, another log will do.
    run = adapt(before, recipe="continue", data=file, **ONLINE)
    assert run.specification.data is not None and before.specification.data is not None
    assert run.specification.data.fingerprint != before.specification.data.fingerprint


def test_a_log_on_disk_is_read_when_its_run_goes_online(tmp_path):
    write(pendulum_log(), tmp_path / "log", "columns")
    before = train(CLONE, tmp_path / "log", from_disk=True, progress=False, **OFFLINE)
    run = adapt(before, recipe="continue", **ONLINE)
    assert run.specification.data is not None
    assert run.specification.data.fingerprint == pendulum_log().fingerprint()


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"recipe": "wsrll"}, "unknown recipe 'wsrll': did you mean wsrl"),
        ({"env": "none"}, "adapting needs an environment to act in"),
        ({"env": "cart-pole"}, "the run does not fit the environment cart-pole: observations have"),
        ({"env": "pendullum"}, "unknown environment 'pendullum': did you mean pendulum"),
        ({"steps": 4, "warm_up_steps": 4}, "4 environment steps leave none to learn from after 4"),
        (
            {"set": {"num_critic": 3}},
            "SAC: unknown hyper-parameter 'num_critic': did you mean num_critics",
        ),
        ({"keep_data": 1.0}, "keep_data = 1.0: it must lie between 0 and 1, and be neither"),
        ({"critic_fits": 3}, "unknown option 'critic_fits': did you mean critic_fit_updates"),
        ({"recipe": "scratch", "data": "log.npz"}, "the recipe 'scratch' uses no log"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, offline, options, sentence):
    with pytest.raises(SpecificationError, match=sentence):
        adapt(offline, out=tmp_path / "online", **{**ONLINE, **options})
    assert not (tmp_path / "online").exists()


def test_what_cannot_go_online_is_said(tmp_path, offline):
    how = {**OFFLINE, "env": "none", "updates": 2, "progress": False}
    plain = train(BC(hidden_sizes=(8, 8)), pendulum_log(), **how)
    with pytest.raises(SpecificationError, match="give an environment: the offline run was not"):
        adapt(plain, **ONLINE)
    with pytest.raises(SpecificationError, match="BC leaves no stochastic actor"):
        adapt(plain, env="pendulum", out=tmp_path / "online", **ONLINE)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SpecificationError, match="the offline run's log was held in memory: pass"):
        adapt(plain, env="pendulum", recipe="continue", **ONLINE)
    discrete = train(BC(hidden_sizes=(8, 8)), cart_pole_log(), **how)
    with pytest.raises(SpecificationError, match="the run does not fit the environment pendulum"):
        adapt(discrete, env="pendulum", **ONLINE)
    with pytest.raises(RunError, match="already exists and is not empty"):
        adapt(offline, out=offline.path, **ONLINE)
