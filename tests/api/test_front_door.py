"""One front door: every method of the catalogue is trained through it, or refused in a sentence."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.core.catalogue import learns_from, method_class, settings
from headwater.core.errors import DataError, SpecificationError
from headwater.core.feed import Feed
from headwater.core.finite import FiniteProblem
from headwater.core.hypotheses import FiniteTask
from headwater.core.listing import method_modules
from headwater.core.method import AbstractTokenPolicy
from headwater.core.records import AuxiliaryTransitions, EpisodeComparisons, Transitions
from headwater.datasets.segments.answers import write_answers
from headwater.datasets.segments.judges import judge_segments
from headwater.datasets.write import write
from headwater.environments.processes import make_process
from headwater.environments.registry import make
from headwater.environments.tabular.constrained import mars_rover
from headwater.environments.tabular.finite import random_process, river_swim
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.hugging_face import write_decoder
from headwater.runs.feeds.table import FLOWS, flow_of
from headwater.sources.episodes import log_episodes
from headwater.texts.tokenizers import ByteTokenizer

from .problems import cart_pole_log, pendulum_log, write_responses

METHODS = sorted(method_modules())
PROCESS = river_swim(states=3, horizon=3)


def rows(path, found) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """What a user might have: logs, processes, a model, texts."""
    folder = tmp_path_factory.mktemp("shelf")
    architecture = Architecture(264, 24, width=8, layers=2, heads=1, hidden=8, tied=True)
    write_decoder(Decoder(architecture, key=jax.random.key(0)), folder / "model", end=257)
    ByteTokenizer().write(folder / "model")
    judged = [
        {"prompt": f"{a}+", "completion": str(a), "reward": float(a % 2), "label": a % 2 > 0}
        for a in range(8)
    ]
    rows(folder / "texts.jsonl", judged)
    pairs = [{"prompt": f"{a}?", "chosen": "yes", "rejected": "no"} for a in range(8)]
    rows(folder / "pairs.jsonl", pairs)
    write(pendulum_log(), folder / "log.npz")
    answers = judge_segments(pendulum_log(), pairs=12, length=4)
    write_answers(folder / "answers.jsonl", answers, pendulum_log())
    write_responses(folder / "responses.csv")
    return folder


def _takes(method, problem):
    try:
        jax.eval_shape(lambda key: method.init(problem, key=key), jax.random.key(0))
    except SpecificationError:
        return False
    return True


def uniform(process):
    return jnp.full((process.horizon, process.states, process.actions), 1.0 / process.actions)


def logged(process, episodes=12):
    return log_episodes(process, uniform(process), episodes=episodes, key=jax.random.key(1))


def compared(process):
    first, second = logged(process), logged(process)
    second = jax.tree.map(lambda x: x[::-1], second)
    return EpisodeComparisons(
        first, second, jnp.sum(first.reward, -1) >= jnp.sum(second.reward, -1)
    )


def finite_task(cls, process) -> FiniteTask:
    """The process, and whatever methods of this kind of problem have to be told of it."""
    known = FiniteTask.of(process)
    sizes = known.problem.sizes
    draw = np.random.default_rng(0)
    return FiniteTask(
        known.problem,
        known.process,
        candidates=draw.uniform(size=(3, *sizes)).astype(np.float32),
        rewards=draw.uniform(size=(3, *sizes)).astype(np.float32),
        transitions=draw.dirichlet(np.ones(sizes[1]), (2, *sizes)).astype(np.float32),
    )


SIZES = {
    "hidden_sizes": (8, 8),
    "num_critics": 3,
    "num_critic_updates": 2,
    "model_updates": 2,
    "num_proposals": 2,
    "num_workers": 2,
    "num_experts": 2,
    "novelty_columns": (0, 1),
    "population_size": 4,
    "cells": 4,
    "planning_steps": 2,
    "num_plans": 4,
    "planning_rounds": 2,
    "num_particles": 1,
    "shortest_lifetime": 2,
    "longest_lifetime": 4,
    "unroll_updates": 2,
    "recurrent_size": 4,
    "drift_size": 4,
    "num_layers": 1,
    "num_heads": 2,
    "num_buckets": 4,
}


def small(name):
    """The method called `name` with small networks."""
    cls = method_class(name)
    known = settings(cls())
    return cls(**{field: value for field, value in SIZES.items() if field in known})


BONUSES = ("CountBonus", "E3B", "NovelD")
SMALL = {
    "control": {"seeds": 2, "batch_size": 8, "evaluations": 1, "episodes": 1},
    "finite": {"seeds": 2, "evaluations": 1},
    "bandits": {"seeds": 2, "batch_size": 3, "evaluations": 1},
    "black boxes": {"seeds": 2, "batch_size": 1, "evaluations": 1},
    "language": {"seeds": 2, "batch_size": 2, "updates": 1, "evaluations": 1},
}


BANDITS = {
    "features": make("feature-bandit", arms=4, feature_size=3),
    "no context": make("bernoulli-bandit", arms=4),
}


def learns_from_bandit(method):
    """Which of these bandits the method takes."""
    try:
        method.init(BANDITS["features"].problem, key=jax.random.key(0))
    except SpecificationError:
        return "no context"
    return "features"


def uniform_pulls(bandit, rounds=24) -> hw.Pulls:
    """A log of a bandit whose arms are the same in every round."""
    arms = bandit.problem.arms
    features = jnp.zeros((arms, 0)) if bandit.problem.features is None else bandit.problem.features
    draw = np.random.default_rng(0)
    return hw.Pulls(
        jnp.zeros((rounds, 0)),
        features[None],
        jnp.asarray(draw.integers(arms, size=rounds), jnp.int32),
        jnp.asarray(draw.integers(2, size=rounds), jnp.float32),
        jnp.full(rounds, 1.0 / arms),
    )


def earlier_tasks() -> hw.EarlierTasks:
    """Evaluations of two tasks in one space."""
    draw = np.random.default_rng(0)
    tables = [(draw.uniform(size=(12, 2)), draw.uniform(size=12)) for _ in range(2)]
    return hw.EarlierTasks.of(hw.SearchSpace((0.0, 0.0), (1.0, 1.0)), tables)


def suitable(name, shelf):
    """Small inputs that the method called `name` learns from, and options."""
    cls = method_class(name)
    flow = flow_of(cls)
    method, options = small(name), dict(SMALL[flow.kind])
    inputs = {}
    if flow.kind == "control":
        discrete = not _takes(method, make("pendulum").spaces)
        options |= {"steps": 12} if flow.acts else {"updates": 2}
        if flow.rollouts:
            options = {"seeds": 2, "evaluations": 1, "episodes": 1, "steps": 32, "block": 16}
        elif flow.acts and cls.feed is not Feed.STREAM:
            options["random_steps"] = 4
        if "data" in flow.needs:
            inputs["data"] = cart_pole_log() if discrete else pendulum_log()
        if learns_from(cls)[1] is AuxiliaryTransitions:
            inputs["data"] = str(shelf / "responses.csv")
        if "segments" in flow.groups:
            options["comparisons"] = str(shelf / "answers.jsonl")
        if flow.acts:
            # Bonuses count cells, for which observations need bounds.
            discrete_task = "corridors" if name in BONUSES else "cart-pole"
            inputs["env"] = discrete_task if discrete else "pendulum"
        elif "env" in flow.takes:
            inputs["env"] = "none"
        return method, inputs, options
    if flow.kind == "bandits":
        problem = learns_from_bandit(method)
        inputs["env"] = BANDITS[problem]
        if not flow.acts:
            return (
                method,
                {**inputs, "data": uniform_pulls(BANDITS[problem])},
                options | {"updates": 2},
            )
        if name == "BatchedHedge":
            options["shows_all"] = True
        return method, inputs, options | {"steps": 24}
    if flow.kind == "black boxes":
        if learns_from(cls)[0] is hw.MeasuredSpace:
            return method, {"env": "point-reach"}, options | {"steps": 12, "batch_size": 4}
        if cls.feed is Feed.STORED:
            return method, {"data": earlier_tasks()}, {"seeds": 2, "updates": 2}
        # The first that the method does not refuse: some choose among fidelities.
        boxes = ("branin", "branin-fidelities", "pairwise-landscape")
        takes = [box for box in boxes if _takes(method, make(box).space)]
        return method, {"env": takes[0]}, options | {"steps": 3}
    if flow.kind == "language":
        data = learns_from(cls)[1].__name__
        pairs = data == "ComparisonsAndCompletions" or (
            data == "CompletionComparisons" and cls.feed is Feed.STORED
        )
        if "writing" in flow.groups:
            options |= {"new_tokens": 3, "samples": 2}
        inputs = {"data": str(shelf / ("pairs.jsonl" if pairs else "texts.jsonl"))}
        return method, {**inputs, "model": shelf / "model"}, options
    process = PROCESS
    if "constrained" in method_modules()[name]:
        process = mars_rover(horizon=3)
        options["budgets"] = [0.5] * process.cost.shape[-1]
    if name == "REFUEL" or cls.feed is Feed.TASKS:
        stacked = [random_process(states=3, actions=2, horizon=3, key=jax.random.key(i))
                   for i in range(2)]  # fmt: skip
        process = jax.tree.map(lambda *x: jnp.stack(x), *stacked)
    elif name in ("PEVI", "LSVIUCB"):
        task = make_process("deceptive-chain", states=3)
        process = None
    if process is not None:
        task = finite_task(cls, process)
    if name == "RepUCB":
        options["known_reward"] = True
    inputs["process"] = task
    if flow.acts:
        options["steps"] = 24
    elif cls.feed is Feed.TASKS:
        options["updates"] = 2
    else:
        inputs["data"] = (
            compared(task.process)
            if learns_from(cls)[1] is EpisodeComparisons
            else logged(task.process)
        )
    return method, inputs, options


@pytest.mark.repeated_on_change
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_trained_from_what_it_learns_from(name, shelf):
    method, inputs, options = suitable(name, shelf)
    if name == "StreamTD":
        with pytest.raises(SpecificationError, match="StreamTD predicts and does not act"):
            hw.train(method, **inputs, **options, progress=False)
        return
    run = hw.train(method, **inputs, **options, progress=False)
    assert run.seeds == 2 and run.finished
    assert run.metrics and all(
        np.isfinite(value).all() for value in run.metrics[-1]["metrics"].values()
    )
    flow = flow_of(type(method))
    if flow.kind == "finite" and not isinstance(run.problem, Transitions):
        assert np.asarray(run.policies).shape[0] == 2
        assert run.final_returns is not None and run.final_returns.shape[0] == 2
        # Two seeds of a learner that draws see different things; a log is the same for both.
        # Within budgets the best of all policies is nothing to regret.
        within = getattr(run.problem, "budgets", None) is not None
        assert (run.regret is not None) == (flow.acts and not within)
    if flow.kind == "bandits":
        assert (run.regret is not None) == flow.acts
        assert run.regret is None or run.regret[0][-1] == 24
        assert run.final_returns is not None and run.final_returns.shape == (2, 1)
    if isinstance(method, AbstractTokenPolicy):
        assert len(run.models) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"env": "cart-pole", "random_steps": 3}, "leave out random_steps"),
        ({"env": "cart-pole", "block": 4}, "leave out block"),
        ({"env": "gymnasium:CartPole-v1"}, "CartPole-v1 is none"),
    ],
)
def test_what_a_stream_cannot_be(given, message):
    with pytest.raises(SpecificationError, match=message):
        hw.train("StreamQ", **given, steps=10, progress=False)


WRONG = ("transitions", "environment", "process", "model", "nothing", "everything", "strange")


@pytest.mark.repeated_on_change
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", METHODS)
def test_whatever_else_is_given_is_refused_in_one_sentence(name, wrong, shelf, tmp_path):
    given = {
        "transitions": {"data": pendulum_log(), "env": "none"},
        "environment": {"env": "pendulum"},
        "process": {"process": PROCESS},
        "model": {"model": shelf / "model"},
        "nothing": {},
        "everything": {
            "data": str(shelf / "texts.jsonl"),
            "env": "pendulum",
            "process": "river-swim",
            "model": shelf / "model",
        },
        "strange": {"data": 3, "env": 3, "process": 3, "model": 3},
    }[wrong]
    flow = flow_of(method_class(name))
    there = {what for what, value in given.items() if value != "none"}
    fits = set(flow.needs) <= there <= {*flow.needs, *flow.takes} and wrong != "strange"
    out = tmp_path / "run"
    if fits and flow.kind == "control" and not small(name).__class__.__name__.startswith("D"):
        return  # What these learn from: the test above trains them.
    try:
        hw.train(small(name), **given, **fitting_options(flow), out=out, progress=False)
    except (SpecificationError, DataError) as error:
        said = str(error)
        assert "\n" not in said and 20 < len(said) < 400, said
        assert said.rstrip(".").count(". ") <= 1, said
        assert not out.exists()
    else:
        assert fits


def fitting_options(flow):
    options = {"seeds": 1, "evaluations": 1}
    if flow.acts:
        options["steps"] = 12
    elif flow.kind == "control":
        options["updates"] = 2
    return options


def test_every_flow_is_somebodys():
    used = {(learns_from(cls)[1], cls.feed) for cls in hw.all_methods().values()}
    assert used == set(FLOWS)
    assert {feed for _, feed in used} == set(Feed)


@pytest.mark.parametrize(
    "method, options, sentence",
    [
        ("IQL", {"samples": 3}, "samples is one of the text-writing options, but IQL learns from "
         "logged experience: leave it out"),
        ("UCBVI", {"process": "river-swim", "rank": 4}, "rank is one of the language-model"),
        ("IQL", {"updats": 4}, "unknown option 'updats': did you mean updates"),
        ("IQL", {"updates": "many"}, "updates = 'many' must be a whole number"),
        ("UCBVI", {"process": "river-swim", "updates": 9}, "UCBVI learns from its own episodes "
         "in a finite process: updates is for methods that do not act: say steps instead"),
        ("PPO", {"env": "pendulum", "updates": 9}, "methods that do not act: say steps instead"),
        ("UCBVI", {"process": "river-swim", "batch_size": 9}, "is for methods that draw rows"),
        ("UCBVI", {"process": "river-swym"}, "unknown process 'river-swym': did you mean "
         "river-swim"),
        ("UCBVI", {"process": "lost/x.npz"}, "lost/x.npz: there is no such file"),
        ("UCBVI", {"process": "deep-sea"}, "deep-sea needs the option size: give size="),
        ("UCBVI", {"process": "river-swim", "process_options": {"horizn": 3}},
         "river-swim: unknown option 'horizn': did you mean horizon"),
        ("UCBVI", {"process": "river-swim", "budgets": [1.0]}, "there are 1 budgets, but the "
         "process has 0 costs"),
        ("MGOLF", {"process": "river-swim"}, "MGOLF seeks the optimal values among candidates"),
        ("ConRL", {"process": "mars-rover"}, "ConRL keeps to budgets of costs"),
        ("PbTS", {"process": "river-swim", "judge": max}, "give a judge that derives from "
         "AbstractJudge"),
        ("SFT", {"model": "nowhere", "data": __file__}, "there is no such directory with a model"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(method, options, sentence):
    given = {"data": pendulum_log()} if method == "IQL" else {}
    with pytest.raises((SpecificationError, DataError), match=sentence):
        hw.train(method, **given, **options)


def test_offline_methods_need_no_process():
    run = hw.train("PessimisticValueIteration", logged(PROCESS), seeds=1, progress=False)
    assert isinstance(run.problem, FiniteProblem) and run.problem.sizes == (3, 3, 2)
    assert run.final_returns is None and run.bounds is None
