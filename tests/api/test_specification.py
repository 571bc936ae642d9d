"""Specifications: from values to JSON and back, and to the stages that they describe."""

import dataclasses
import json

import numpy as np
import pytest

from headwater.api.specifications.choices import MethodChoice, TaskChoice
from headwater.api.specifications.plan import Given, plan
from headwater.api.specifications.specification import Specification, updates_of
from headwater.core.errors import RunError, SpecificationError
from headwater.core.method import Agent
from headwater.environments.adapters.gymnasium_objects import from_gymnasium
from headwater.environments.adapters.gymnasium_task import GymnasiumTask
from headwater.environments.control import pendulum as ours
from headwater.environments.control.cable_routing import CableRouting
from headwater.environments.control.point_maze import PointMaze
from headwater.environments.history import WithHistory
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.cal_ql import CalQL
from headwater.methods.control.offline.iql import IQL
from headwater.methods.control.offline.prdc import PRDC
from headwater.methods.control.online.sac import SAC
from headwater.runs.feeds.logged import DataChoice
from headwater.runs.options import Options
from headwater.runs.recipes.online import Budget, Start
from headwater.sources.replay import Replay
from headwater.sources.weighted import WeightedReplay
from headwater.sources.whole_log import WithWholeLog

from .problems import pendulum_log

OFFLINE = Specification(
    "train",
    MethodChoice.of(IQL(hidden_sizes=(8, 4), discount=0.9, actor_decay_updates=float("inf"))),
    Options(seeds=(0, 3), seed=7, evaluations=2, episodes=5, batch_size=16, updates=12),
    data=DataChoice(None, {}, None),
)


def through_json(specification: Specification) -> Specification:
    return Specification.from_json(json.loads(json.dumps(specification.to_json())), "run.json")


def test_everything_survives_json():
    whole = dataclasses.replace(
        OFFLINE,
        task=TaskChoice.of(PointMaze(dense=0.5)),
        budget=Budget(100, random_steps=10, block=4),
        options=dataclasses.replace(
            OFFLINE.options, top=0.5, weights="return", recipe="keep-data", keep_data=0.2
        ),
        data=DataChoice("/log.npz", {"horizon": 9}, "hash"),
        start=Start(7, keep_temperature=False),
        references=[1.0, 2.0, "here", False],
    )
    assert through_json(whole) == whole
    assert through_json(OFFLINE) == OFFLINE
    assert through_json(OFFLINE).method.build() == IQL(
        hidden_sizes=(8, 4), discount=0.9, actor_decay_updates=float("inf")
    )
    # What a later version adds is ignored; what is missing is said.
    stored = {**OFFLINE.to_json(), "novelty": 1}
    assert Specification.from_json(stored, "run.json") == OFFLINE
    del stored["options"]
    with pytest.raises(RunError, match=r"run\.json: this is not the specification of a run"):
        Specification.from_json(stored, "run.json")
    acting = {"budget": {"steps": 9}, "task": None}
    unsettled = {**OFFLINE.to_json()["options"], "updates": None}
    for changed in ({"method": {"title": "x"}}, {"options": unsettled}, {"data": None}, acting):
        with pytest.raises(RunError, match="this is not the specification of a run"):
            Specification.from_json({**OFFLINE.to_json(), **changed}, "run.json")


@pytest.mark.parametrize(
    "task",
    [
        PointMaze(dense=0.5, ends_at_goal=True),
        CableRouting(noise=0.5),
        GymnasiumTask("Pendulum-v1", (("g", 9.0), ("max_episode_steps", 30))),
    ],
)
def test_tasks_come_back_with_their_options(task):
    choice = TaskChoice(**json.loads(json.dumps(dataclasses.asdict(TaskChoice.of(task)))))
    built = choice.build()
    assert type(built) is type(task) and built == task
    assert built.spaces == task.spaces


def test_objects_of_the_user_have_no_name():
    import gymnasium

    choice = TaskChoice.of(from_gymnasium(lambda: gymnasium.make("Pendulum-v1"), "mine"))
    assert choice == TaskChoice("mine", {}, own=True)
    with pytest.raises(RunError, match="'mine' was passed as an object: pass it again"):
        choice.build()
    # Nor has an environment that holds others, or what was learned.
    for task in (WithHistory(PointMaze(), 2), CableRouting(skill=Agent(BC(), ()))):
        assert TaskChoice.of(task) == TaskChoice(task.name, {}, own=True)

    class Pendulum(ours.Pendulum):
        """The user's, who has left the name as it was."""

    assert TaskChoice.of(ours.Pendulum()) == TaskChoice("pendulum", vars(ours.Pendulum()))
    assert TaskChoice.of(Pendulum()) == TaskChoice("pendulum", {}, own=True)


def test_plans_of_offline_learning():
    data = pendulum_log(reference_returns=[0.0, 10.0])
    found = plan(OFFLINE, None, Given(data))
    (stage,) = found.stages
    assert isinstance(stage.source, Replay) and stage.updates == 12 == updates_of(OFFLINE)
    assert stage.source.batch_size == 16 and found.task is None
    np.testing.assert_array_equal(stage.source.data.reward, data.rewards)
    # A method that does not read returns to go does not wait for them.
    assert stage.source.data.return_to_go is None
    reading = dataclasses.replace(OFFLINE, method=MethodChoice.of(CalQL(discount=0.9)))
    (stage,) = plan(reading, None, Given(data)).stages
    # With the method's own discount, by hand for the first episode.
    expected = sum(0.9**t * float(data.rewards[t]) for t in range(15))
    np.testing.assert_allclose(stage.source.data.return_to_go[0], expected, rtol=1e-5)
    searching = dataclasses.replace(OFFLINE, method=MethodChoice.of(PRDC()))
    (stage,) = plan(searching, None, Given(data)).stages
    assert isinstance(stage.source, WithWholeLog) and isinstance(stage.source.replay, Replay)
    assert found.references == [0.0, 10.0, "stored with the dataset", False]
    assert found.problem.statistics is not None and found.problem.horizon == 200

    def with_options(**changed):
        options = dataclasses.replace(OFFLINE.options, **changed)
        return dataclasses.replace(OFFLINE, options=options)

    (stage,) = plan(with_options(top=0.25), None, Given(pendulum_log(marked=True))).stages
    np.testing.assert_allclose(stage.source.data.action, 0.75, rtol=1e-6)
    assert stage.source.data.reward.shape == (30,)

    (stage,) = plan(with_options(weights="return"), None, Given(pendulum_log(marked=True))).stages
    assert isinstance(stage.source, WeightedReplay)


def test_references_are_the_data_s_else_the_task_s():
    maze = PointMaze()
    specification = dataclasses.replace(
        OFFLINE, method=MethodChoice.of(SAC(hidden_sizes=(8, 8))), data=None,
        budget=Budget(20), task=TaskChoice.of(maze),
    )  # fmt: skip
    found = plan(specification)
    assert found.references == [0.0, 141.5, "measured in point-maze", False]
    assert found.task == maze and updates_of(specification) == 20
    hopper = dataclasses.replace(OFFLINE, data=DataChoice(None, {}, None))
    known = plan(hopper, None, Given(pendulum_log(environment="hopper-medium-v2"))).references
    assert known[:2] == [-20.272305, 3234.3]
    assert plan(hopper, None, Given(pendulum_log(environment=None))).references is None


def test_data_in_memory_is_not_found_again():
    with pytest.raises(RunError, match="data was held in memory and is not known any more"):
        plan(OFFLINE)
    with pytest.raises(SpecificationError, match="there is nothing to learn from"):
        plan(dataclasses.replace(OFFLINE, data=None))


def test_which_methods_act_while_they_learn():
    acting = dataclasses.replace(OFFLINE, method=MethodChoice.of(SAC()), data=None)
    assert acting.acts and not OFFLINE.acts
