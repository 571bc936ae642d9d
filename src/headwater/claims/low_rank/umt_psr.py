"""What it is worth to learn partially observed tasks together that share hidden transitions."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.tabular.partially_observed import (
    ObservedProcess,
    partially_observed_tasks,
)
from headwater.evaluation.instances import stacked
from headwater.evidence.claim import Claim, Criterion, Finding, ratio_of_means
from headwater.methods.low_rank.umt_psr import UMTPSR
from headwater.ops.tabular.latent_models import TiedModels, observation_law, total_variation
from headwater.runs.learn import learn
from headwater.sources.episodes import FreshEpisodes, WholeLog, log_episodes

_PAPER = "huang2024provable"


def _families(seed: int, instances: int, tasks: int, shared: bool = True) -> list[ObservedProcess]:
    found = []
    for i in range(instances):
        key = jax.random.key(1000 * seed + i)
        process = partially_observed_tasks(tasks=tasks, shared=shared, key=key).process
        assert isinstance(process, ObservedProcess)
        found.append(process)
    return found


def _part(process: ObservedProcess, first: int, last: int) -> ObservedProcess:
    """Some tasks of a family."""
    return jax.tree.map(lambda x: x[first:last], process)


@eqx.filter_jit
def _logs(process: ObservedProcess, episodes: int, key: Any) -> Any:
    """Episodes of every task, of uniform actions."""
    even = jnp.full(process.reward.shape[1:], 1.0 / process.actions)
    keys = jax.random.split(key, process.reward.shape[0])
    return jax.vmap(lambda p, k: log_episodes(p, even, episodes=episodes, key=k))(process, keys)


def _errors(models: TiedModels, process: ObservedProcess) -> jax.Array:
    """How far the learned laws are from the true ones, `[task, sequence of actions]`."""

    def one(emission, process):
        steps = process.reward.shape[0]
        learned = observation_law(models.initial, models.transition, emission, steps=steps)
        true = observation_law(process.initial, process.transition, process.emission, steps=steps)
        return total_variation(learned, true)

    return jax.vmap(one)(models.emission, process)


@eqx.filter_jit
def _fitted(
    process: ObservedProcess, data: Any, *, given: tuple[Any, Any] | None = None, key: Any
) -> tuple[TiedModels, jax.Array]:
    """The likeliest models for a log, and each task's mean error.

    **Arguments:** `given`: first states and transitions that are known already, if they are.
    """
    problem = process.problem()
    method = UMTPSR(exploration="uniform", fit_steps=150, memory_size=data.action.shape[1])
    state = None
    if given is not None:
        state = method.with_transition(problem, *given, key=key)
    found = learn(method, problem, WholeLog(data), 1, state=state, key=key).state.best
    return found, jnp.mean(_errors(found, process), axis=1)


def _together(
    seed: int, *, instances: int, judged: int, tasks: tuple[int, ...], episodes: tuple[int, ...],
    shared: bool,
) -> Finding:  # fmt: skip
    """Errors of the first tasks, learned alone and with others."""
    error = np.zeros((len(episodes), len(tasks), instances))
    families = _families(seed, instances, max(tasks), shared)
    for i, family in enumerate(families):
        key = jax.random.fold_in(jax.random.key(seed), i)
        for j, number in enumerate(episodes):
            log = _logs(family, number, jax.random.fold_in(key, number))
            for k, count in enumerate(tasks):
                errors = []
                # Every one of the judged tasks is among those learned, and counts once.
                for first in range(0, judged, count):
                    process = _part(family, first, first + count)
                    data = jax.tree.map(lambda x, a=first, n=count: x[a : a + n], log)
                    found = np.asarray(_fitted(process, data, key=key)[1])
                    errors += found[: judged - first].tolist()
                error[j, k, i] = np.mean(errors)
    last = len(tasks) - 1
    said = f"error of {tasks[last]} tasks together over that of one alone"
    bound = {"at_most": 0.6} if shared else {"at_least": 1.0}
    return Finding(
        tuple(
            Criterion(
                f"{said}, {number} episodes", ratio_of_means(error[j, last], error[j, 0]), **bound
            )
            for j, number in enumerate(episodes)
        ),
        {
            f"error, {number} episodes": {
                str(count): error[j, k].tolist() for k, count in enumerate(tasks)
            }
            for j, number in enumerate(episodes)
        },
        {f"{count} tasks": (list(episodes), error[:, k].T) for k, count in enumerate(tasks)},
        across="episodes of each task",
        up="total variation distance of the laws",
        logarithmic="x",
    )


def _sharing(seed: int, **sizes: Any) -> Finding:
    return _together(seed, shared=True, **sizes)


def _nothing_shared(seed: int, **sizes: Any) -> Finding:
    return _together(seed, shared=False, **sizes)


def _downstream(
    seed: int, *, instances: int, tasks: int, upstream: int, episodes: tuple[int, ...]
) -> Finding:
    """Errors of one more task, with the transitions learned from others and from scratch."""
    kinds = ("learned transitions", "from scratch", "true transitions")
    error = np.zeros((len(episodes), len(kinds), instances))
    for i, family in enumerate(_families(seed, instances, tasks + 1)):
        key = jax.random.fold_in(jax.random.key(seed), i)
        process = _part(family, 0, tasks)
        log = _logs(process, upstream, jax.random.fold_in(key, upstream))
        models = _fitted(process, log, key=key)[0]
        learned = models.initial, models.transition
        process = _part(family, tasks, tasks + 1)
        true = process.initial[0], process.transition[0]
        for j, number in enumerate(episodes):
            data = _logs(process, number, jax.random.fold_in(key, number))
            for k, given in enumerate((learned, None, true)):
                error[j, k, i] = float(jnp.mean(_fitted(process, data, given=given, key=key)[1]))
    return Finding(
        tuple(
            Criterion(
                f"error with learned transitions over that from scratch, {number} episodes",
                ratio_of_means(error[j, 0], error[j, 1]),
                at_most=0.6,
            )
            for j, number in enumerate(episodes)
        ),
        {
            f"error, {number} episodes": {
                kind: error[j, k].tolist() for k, kind in enumerate(kinds)
            }
            for j, number in enumerate(episodes)
        },
        {kind: (list(episodes), error[:, k].T) for k, kind in enumerate(kinds)},
        across="episodes",
        up="total variation distance of the laws",
        logarithmic="x",
    )


def _planned(
    seed: int, *, instances: int, tasks: int, updates: int, restarts: int, steps: int
) -> Finding:
    """The worst error of any sequence of actions, exploring as planned and uniformly."""
    families = stacked(_families(seed, instances, tasks))
    keys = jax.random.split(jax.random.key(seed), instances)

    @eqx.filter_jit
    def worst(method, families):
        def one(process, key):
            source = FreshEpisodes(process, tasks=tasks)
            state = learn(method, process.problem(), source, updates, key=key).state
            return jnp.mean(jnp.max(_errors(state.best, process), axis=1))

        # One after the other: laws of all instances at once would not fit into a cache.
        return jax.lax.map(lambda each: one(*each), (families, keys))

    error = {}
    for exploration in ("planned", "uniform"):
        method = UMTPSR(
            exploration=exploration, num_restarts=restarts, fit_steps=steps, episodes_per_step=2,
            memory_size=updates * 2 * families.horizon,
        )  # fmt: skip
        error[exploration] = np.asarray(worst(method, families), np.float64)
    return Finding(
        (
            Criterion(
                "worst error of planned exploration over that of uniform actions",
                ratio_of_means(error["planned"], error["uniform"]),
                at_most=1.0,
            ),
        ),
        {name: found.tolist() for name, found in error.items()},
    )


# The smallest runs are of one task, which takes few programs to be compiled.
CLAIMS = (
    Claim(
        name="tasks-that-share-hidden-transitions-learn-them-together",
        statement="The laws of tasks with common hidden transitions, learned from eight at once, "
        "are at most 0.6 times as far from the true ones as those learned from each alone, at 50 "
        "to 1,000 episodes of uniform actions.",
        methods=("UMTPSR",),
        paper=_PAPER,
        where="the bound on episodes, which goes with the joint class's size over the tasks; the "
        "numbers are a reproduction's",
        scales={
            "smoke": {"instances": 3, "judged": 1, "tasks": (1,), "episodes": (20,)},
            "small": {
                "instances": 6,
                "judged": 2,
                "tasks": (1, 2, 4, 8),
                "episodes": (50, 100, 300, 1000),
            },
        },
        experiment=_sharing,
    ),
    Claim(
        name="tasks-of-different-hidden-transitions-learn-no-better-together",
        statement="Where every task has hidden transitions of its own, laws learned from eight "
        "tasks as if they shared them are at least as wrong as those learned from each alone.",
        methods=("UMTPSR",),
        paper=_PAPER,
        where="a control of ours: the joint class does not hold these tasks",
        scales={
            "smoke": {"instances": 3, "judged": 1, "tasks": (1,), "episodes": (20,)},
            "small": {"instances": 6, "judged": 2, "tasks": (1, 8), "episodes": (100, 300)},
        },
        experiment=_nothing_shared,
    ),
    Claim(
        name="hidden-transitions-of-other-tasks-save-episodes",
        statement="With the transitions learned from 300 episodes of each of eight tasks, the law "
        "of a ninth is at most 0.6 times as far from the true one as from scratch, at 20 to 100 "
        "episodes.",
        methods=("UMTPSR",),
        paper=_PAPER,
        where="downstream learning in the smaller class; the numbers are a reproduction's",
        scales={
            "smoke": {"instances": 3, "tasks": 1, "upstream": 20, "episodes": (20,)},
            "small": {"instances": 6, "tasks": 8, "upstream": 300, "episodes": (20, 50, 100)},
        },
        experiment=_downstream,
    ),
    Claim(
        name="disagreement-of-likely-models-explores-hidden-states",
        statement="In 96 episodes of each task, those that follow the actions on which two of 32 "
        "likely models disagree most leave no law of a sequence of actions more wrong than "
        "uniform actions do.",
        methods=("UMTPSR",),
        paper=_PAPER,
        where="planning by the distance of models in the confidence set, of which local maxima of "
        "the likelihood stand for the members",
        scales={
            "smoke": {"instances": 3, "tasks": 2, "updates": 2, "restarts": 3, "steps": 10},
            "small": {"instances": 6, "tasks": 2, "updates": 12, "restarts": 32, "steps": 60},
        },
        experiment=_planned,
    ),
)
