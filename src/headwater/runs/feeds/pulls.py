"""Rounds of bandits, live and logged."""

from typing import Any

import jax
import jax.numpy as jnp

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.finite import checked_range
from headwater.core.method import AbstractArmPolicy, AbstractMethod
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.datasets.bandits.pulls_files import PullsFile, check_pulls, read_pulls
from headwater.environments.bandits.bandit import AbstractBandit
from headwater.runs.feeds.flow import Fed, Flow, Inputs, wrong_data
from headwater.runs.learn import learn
from headwater.runs.options import Options
from headwater.runs.stage import Stage
from headwater.sources.pulls import LivePulls, LoggedPulls


def _pulling(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    name, bandit = type(method).__name__, inputs.task
    if isinstance(bandit, AbstractBandit) and options.reward_range is not None:
        raise SpecificationError(
            f"reward_range is of a log without an environment, and {bandit.name} says itself which "
            "rewards it has: leave it out"
        )
    if inputs.data is not None:
        return _in_order(method, inputs, options)
    if bandit is None:
        raise SpecificationError(
            f"{name} learns from rounds of a bandit: give it an environment, or data"
        )
    if not isinstance(bandit, AbstractBandit):
        raise SpecificationError(
            f"{name} pulls the arms of a bandit, and {bandit.name} is none: take one such as "
            "linear-bandit"
        )
    if not isinstance(method, AbstractArmPolicy):
        raise SpecificationError(f"{name} has no distribution over arms, so it pulls none")
    assert options.batch_size is not None
    if options.random_steps or options.block != 1:
        idle = "random_steps" if options.random_steps else "block"
        raise SpecificationError(f"{name} acts from the first round on: leave out {idle}")
    updates = max(1, options.steps // options.batch_size - options.delay)
    source = LivePulls(bandit, options.batch_size, options.delay, options.shows_all)
    return _fed(method, source, updates, bandit.problem)


def _in_order(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    data, problem = _log(method, inputs, options)
    assert options.batch_size is not None
    source = LoggedPulls(jax.tree.map(jnp.asarray, data), options.batch_size)
    return _fed(method, source, max(1, len(data.arm) // options.batch_size), problem)


def _again_and_again(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    data, problem = _log(method, inputs, options)
    assert options.batch_size is not None and options.updates is not None
    source = LoggedPulls(jax.tree.map(jnp.asarray, data), options.batch_size, in_order=False)
    return _fed(method, source, options.updates, problem)


def _fed(
    method: AbstractMethod, source: LivePulls | LoggedPulls, updates: int, problem: Arms
) -> Fed:
    # Traced once, not computed: what a method cannot learn from is said before anything begins.
    jax.eval_shape(lambda key: learn(method, problem, source, 1, key=key), jax.random.key(0))
    return Fed(Stage("learn", method, source, updates), problem)


def _log(method: AbstractMethod, inputs: Inputs, options: Options) -> tuple[Pulls, Arms]:
    if options.delay or options.shows_all:
        idle = "delay" if options.delay else "shows_all"
        raise SpecificationError(
            f"{idle} is of a bandit to act in, and this is a log: leave it out"
        )
    given: Any = inputs.data
    bandit = inputs.task
    bounds = None if options.reward_range is None else checked_range(options.reward_range)
    if isinstance(given, PullsFile):
        data, problem = read_pulls(given.path, reward_range=bounds, columns=given.columns)
    elif isinstance(given, Pulls):
        data, problem = given, arms_of(given, *(bounds or (0.0, 1.0)))
    else:
        raise wrong_data(method, "logged rounds of a bandit (hw.Pulls)", given)
    if isinstance(bandit, AbstractBandit):
        problem = bandit.problem
    check_pulls(data, problem)
    return data, problem


def arms_of(data: Pulls, low: float, high: float) -> Arms:
    """What a log says of the bandit that it is of."""
    _, arms, size = data.features.shape
    fixed = data.features[0] if len(data.features) == 1 and size else None
    return Arms(arms, data.context.shape[-1], size, fixed, low, high)


FLOWS: dict[tuple[type, Feed], Flow] = {
    (Pulls, Feed.PULLS): Flow(
        "from rounds of a bandit, in their order",
        (),
        ("env", "data"),
        ("acting", "pulls", "rewards"),
        {"updates": 1, "batch_size": 1, "seeds": 4, "random_steps": 0, "block": 1},
        _pulling,
        True,
    ),
    (Pulls, Feed.STORED): Flow(
        "from logged rounds of a bandit, in any order",
        ("data",),
        ("env",),
        ("pulls", "rewards"),
        {"updates": 10_000, "batch_size": 256, "seeds": 4},
        _again_and_again,
    ),
}
"""What methods declare, and how that is brought to them."""
