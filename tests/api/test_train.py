"""Training: what is asked for reaches the methods, and what does not fit is said."""

import numpy as np
import pytest

import headwater
from headwater.api.inputs import as_method, as_task, choose_transitions
from headwater.api.run import Run
from headwater.api.train import train
from headwater.core.errors import DataError, RunError, SpecificationError
from headwater.core.method import AbstractMethod
from headwater.datasets.write import write
from headwater.environments.control.cart_pole import CartPole
from headwater.environments.control.pendulum import Pendulum
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.cql import CQL
from headwater.methods.control.offline.iql import IQL
from headwater.methods.control.online.rlpd import RLPD
from headwater.methods.control.online.sac import SAC
from headwater.runs.feeds.table import settle
from headwater.runs.options import Options, seed_list
from headwater.runs.recipes.online import online_method

from .problems import EPISODES, LENGTH, assert_same, cart_pole_log, differ, pendulum_log

SMALL = {"seeds": 2, "batch_size": 16, "evaluations": 2, "episodes": 2, "progress": False}
CLONE = BC(hidden_sizes=(8, 8), learning_rate=1e-2)


def clone(data, **options) -> Run:
    """A policy that repeats what most of its batches do."""
    return train(CLONE, data, **{**SMALL, "env": "none", "updates": 150, **options})


def mean_action(run: Run) -> np.ndarray:
    """By seed, in the user's units."""
    observations = np.random.default_rng(1).normal(size=(200, 3))
    return np.asarray([policy(observations).mean() for policy in run.policies])


def test_conservative_methods_can_be_made_ready_to_go_online():
    options = Options(online_ready=True)
    method = settle(CQL(conservative_weight=2.0), options)[0]
    assert method == CQL(
        conservative_weight=2.0, num_critics=10, num_target_critics=2, layer_norm="both"
    )
    # What was chosen stays.
    assert settle(CQL(num_critics=5), options)[0] == CQL(
        num_critics=5, num_target_critics=2, layer_norm="both"
    )
    # And what goes online then takes all of it over.
    online = online_method(method, False)
    assert (online.num_critics, online.layer_norm) == (10, "both")


def test_options_of_the_data_reach_the_source(tmp_path):
    data = pendulum_log(marked=True)
    # A quarter of the rows is at +1.5, the rest at -1.5: the mean is -0.75.
    np.testing.assert_allclose(mean_action(clone(data)), -0.75, atol=0.3)
    np.testing.assert_allclose(mean_action(clone(data, top=0.25)), 1.5, atol=0.1)
    for weights in ("return", "advantage"):
        sharp = clone(data, weights=weights, weight_temperature=0.05)
        assert (mean_action(sharp) > 1.2).all(), weights
    # A high temperature is uniform again.
    flat = clone(data, weights="return", weight_temperature=1e3)
    np.testing.assert_allclose(mean_action(flat), -0.75, atol=0.3)
    run = clone(data, top=0.25, out=tmp_path / "top")
    # What is kept with the run is all of the data; the best are taken from it again.
    assert len(headwater.load(tmp_path / "top" / "data")) == EPISODES * LENGTH
    assert headwater.open_run(run.path).specification.options.top == 0.25


def test_data_that_stays_on_disk_gives_the_same_policy(tmp_path):
    data = pendulum_log(marked=True)
    write(data, tmp_path / "log", "columns")
    run = clone(tmp_path / "log", from_disk=True)
    np.testing.assert_allclose(mean_action(run), -0.75, atol=0.3)
    # The task recorded with the data is found there too.
    evaluated = clone(tmp_path / "log", from_disk=True, env=None, updates=8)
    assert evaluated.specification.task.name == "pendulum"
    write(data, tmp_path / "log.npz")
    with pytest.raises(SpecificationError, match=r"log\.npz: only a column directory can stay on"):
        clone(tmp_path / "log.npz", from_disk=True)
    with pytest.raises(SpecificationError, match="the data: only a column directory"):
        clone(data, from_disk=True)
    with pytest.raises(SpecificationError, match="drawn uniformly: leave out top and weights"):
        clone(tmp_path / "log", from_disk=True, top=0.5)
    with pytest.raises(SpecificationError, match="the whole log in each update, so that it has to"):
        train("PRDC", tmp_path / "log", from_disk=True, **{**SMALL, "updates": 8})


def test_memory_directory_and_file_give_the_same_bits(tmp_path):
    data = pendulum_log()
    write(data, tmp_path / "log.parquet")
    method = IQL(hidden_sizes=(8, 8))
    how = {**SMALL, "updates": 30}
    in_memory = train(method, data, **how)
    kept = train(method, data, out=tmp_path / "kept", **how)
    assert_same(in_memory, kept)
    # Evaluated in the task that the data names, at the beginning, in the middle and at the end.
    updates = [row["update"] for row in in_memory.evaluations]
    assert updates == [0, 0, 15, 15, 30, 30]
    assert in_memory.specification.task.name == "pendulum"
    assert in_memory.final_returns.shape == (2, 2)
    read = train(method, tmp_path / "log.parquet", out=tmp_path / "read", **how)
    assert_same(in_memory, read)
    # Another seed, and the same seed under another index.
    assert differ(in_memory, train(method, data, seed=1, **how))
    second = train(method, data, **{**how, "seeds": [1]})
    for policies in ([in_memory.policies[1], second.policy],):
        ours, theirs = (policy(np.ones((5, 3))) for policy in policies)
        np.testing.assert_array_equal(ours, theirs)


def test_online_methods_act():
    run = train(
        SAC(hidden_sizes=(8, 8)),
        env="pendulum",
        steps=100,
        random_steps=20,
        block=8,
        **{**SMALL, "evaluations": 1},
    )
    assert run.metrics[-1]["environment_steps"] == 100
    assert run.metrics[-1]["update"] == 80 == run.specification.budget.updates
    steps, returns = run.curve
    np.testing.assert_array_equal(steps, [20, 100])
    assert returns.shape == (2, 2) and (returns < 0).all()
    # By default a tenth of the steps is random, a compiled task is learned from at every step, and
    # each step of the critics has rows of its own.
    twice = SAC(hidden_sizes=(8, 8), num_critic_updates=2)
    run = train(twice, env=Pendulum(), steps=20, **{**SMALL, "seeds": 1, "evaluations": 1})
    budget = run.specification.budget
    assert (budget.random_steps, budget.block, budget.rows) == (2, 1, 32)


def test_rlpd_takes_the_task_that_its_data_names():
    method = RLPD(hidden_sizes=(8, 8), num_critics=2)
    run = train(method, pendulum_log(), steps=12, **{**SMALL, "evaluations": 1})
    assert run.specification.task.name == "pendulum"
    assert run.metrics[-1]["environment_steps"] == 12
    with pytest.raises(
        SpecificationError, match="RLPD learns online and from a log: give it an environment"
    ):
        train(method, pendulum_log(environment=None), steps=12, **SMALL)
    with pytest.raises(SpecificationError, match="draws its log uniformly while it acts"):
        train(method, pendulum_log(), steps=12, weights="return", **SMALL)


@pytest.mark.parametrize(
    "method, data, options, sentence",
    [
        ("IQQL", True, {}, "unknown method 'IQQL': did you mean IQL"),
        (int, True, {}, "<class 'int'> is not a method: give one such as"),
        (IQL(), False, {}, "IQL learns from logged experience: give it data$"),
        (
            SAC(),
            False,
            {},
            "SAC learns online, from what it does and not from a log: give it an environment",
        ),
        (
            SAC(),
            False,
            {"env": "none"},
            "SAC learns online, from what it does and not from a log: give it an environment",
        ),
        (
            SAC(),
            True,
            {"env": "pendulum"},
            r"SAC learns online, from what it does .*: leave out data \(or take RLPD or SERL\)",
        ),
        (RLPD(), False, {"env": "pendulum"}, "RLPD learns online and from a log: give it data$"),
        (CLONE, True, {"env": "pendulun"}, "unknown environment 'pendulun': did you mean pendulum"),
        (
            CLONE,
            True,
            {"env": CartPole()},
            "observations have 3 components in the data and 4 in it",
        ),
        (CLONE, True, {"weights": "returns"}, "unknown weights 'returns': did you mean"),
        (CLONE, True, {"seeds": [1, 1]}, "give how many, or a list of different numbers"),
        (CLONE, True, {"seeds": 0}, "give how many, or a list of different numbers"),
        (CLONE, True, {"top": 1.5}, "is not in"),
        (CLONE, True, {"recipe": "wsrl"}, "recipe is one of the adaptation options, but BC learns"),
        (CLONE, True, {"online_ready": True}, "BC has no critics whose number and layer norm can"),
        (
            SAC(),
            False,
            {"env": "pendulum", "steps": 5, "random_steps": 5, "updates": None},
            "leave none to learn",
        ),
    ],
)
def test_what_does_not_fit_is_said_and_leaves_nothing_behind(
    tmp_path, method, data, options, sentence
):
    options = {**SMALL, "updates": 2, "out": tmp_path / "run", **options}
    with pytest.raises(SpecificationError, match=sentence):
        train(method, pendulum_log() if data else None, **options)
    assert not (tmp_path / "run").exists()


def test_a_method_that_cannot_begin_leaves_no_directory(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(SpecificationError, match="DiscreteCQL needs discrete actions"):
        train("DiscreteCQL", pendulum_log(), env="none", out=out, **SMALL)
    with pytest.raises(SpecificationError, match="needs continuous actions"):
        train("TD3BC", cart_pole_log(), env="none", out=out, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_existing_directories_and_missing_data_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="full already exists and is not empty: choose another name"):
        clone(pendulum_log(), out=tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["notes.txt"]
    run = clone(pendulum_log(), out=tmp_path / "run", updates=2)
    with pytest.raises(RunError, match=r"run already exists .*continue it with `headwater resume"):
        clone(pendulum_log(), out=run.path)
    write(pendulum_log(), tmp_path / "log.npz")
    with pytest.raises(DataError, match=r"there is no file or directory .*did you mean log\.npz"):
        clone(tmp_path / "lag.npz")


def test_nothing_is_evaluated_where_there_is_no_task():
    run = clone(pendulum_log(environment=None), env=None, updates=2)
    assert run.evaluations == [] and run.specification.task is None
    assert run.final_returns is None and run.curve is None and run.score() is None
    # Nor where the data names one that cannot be made here.
    run = clone(pendulum_log(environment="NoSuchTask-v7"), env=None, updates=2)
    assert run.specification.task is None


def test_methods_tasks_data_and_seeds_by_name(tmp_path):
    assert isinstance(as_method("sac-n"), AbstractMethod)
    assert isinstance(as_method(IQL), IQL)
    assert as_method(CLONE) is CLONE
    assert isinstance(as_task(None, "cart-pole"), CartPole)
    assert as_task("none", "cart-pole") is None and as_task(None, None) is None
    task = Pendulum()
    assert as_task(task, "cart-pole") is task
    assert seed_list(3) == [0, 1, 2] and seed_list([4, 2]) == [4, 2]
    data = pendulum_log()
    write(data, tmp_path / "log.npz")
    chosen, read = choose_transitions(tmp_path / "log.npz", {"horizon": 77})
    assert chosen.path == str(tmp_path / "log.npz")
    assert read.spaces.horizon == 77 and chosen.fingerprint == read.fingerprint()
    chosen, same = choose_transitions(data, None)
    assert chosen.path is None and same is data and chosen.fingerprint == data.fingerprint()
    assert choose_transitions(None, None) == (None, None)
