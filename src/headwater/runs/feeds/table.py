"""From what a method declares and what a user has to a stage that can run.

A method declares its kind of data and how it is fed; `FLOWS` says for every such pair what a user
has to give and makes the source of it. Nothing else knows methods by name or by folder, and this is
the only place that grows with a new flow of data."""

import dataclasses
import math

from headwater.core.catalogue import all_methods, build_method, learns_from, settings
from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import AbstractMethod
from headwater.core.records import Episodes
from headwater.runs.feeds import control, finite, language, pulls, queries
from headwater.runs.feeds.flow import Fed, Flow, Inputs
from headwater.runs.options import GROUPS, Options
from headwater.runs.recipes.continual import check_learns_tasks
from headwater.runs.recipes.online import online_ready

FLOWS: dict[tuple[type, Feed], Flow] = {
    **control.FLOWS,
    **finite.FLOWS,
    **language.FLOWS,
    **pulls.FLOWS,
    **queries.FLOWS,
}
"""Every flow of data: what methods declare, and how that is brought to them."""


def flow_of(cls: type[AbstractMethod]) -> Flow:
    """The flow of the methods of this class. Raises `SpecificationError` if there is none."""
    data = learns_from(cls)[1]
    if (data, cls.feed) not in FLOWS:
        raise SpecificationError(
            f"{cls.__name__} learns from {data.__name__}, fed as {cls.feed.name}, for which "
            "runs/feeds/ has no flow: build its source in Python"
        )
    return FLOWS[data, cls.feed]


_IN_WORDS = {
    "data": "data",
    "env": "an environment",
    "process": "a process",
    "model": "a model",
    "reward": "a reward",
    "judge": "a judge",
}


def check_inputs(cls: type[AbstractMethod], given: set[str]) -> None:
    """Raises `SpecificationError`, in one sentence, for what is missing or is not looked at.

    **Arguments:** `given`: which of `data`, `env`, `process`, `model`, `reward`, `judge` there are.
    """
    flow, name = flow_of(cls), cls.__name__
    idle = [what for what in _IN_WORDS if what in given and what not in (*flow.needs, *flow.takes)]
    missing = [what for what in flow.needs if what not in given]
    statement = f"{name} learns {flow.learns}"
    if missing:
        missing_words = " and ".join(_IN_WORDS[what] for what in missing)
        if learns_from(cls)[1] is Episodes and "data" in missing and "process" in given:
            missing_words += ", such as hw.log_episodes(process, policy, episodes=…, key=…) makes"
        out = "" if not idle else f", and leave out {' and '.join(idle)}"
        raise SpecificationError(f"{statement}: give it {missing_words}{out}")
    if idle:
        others = _others(cls, given)
        instead = f" (or take {' or '.join(others)})" if others else ""
        raise SpecificationError(f"{statement}: leave out {' and '.join(idle)}{instead}")


def _others(cls: type[AbstractMethod], given: set[str]) -> list[str]:
    """A few methods for the same problem that look at all that is given, and best need all."""
    found: dict[str, int] = {}
    for name, other in all_methods().items():
        flow = FLOWS.get((learns_from(other)[1], other.feed))
        if flow is None or learns_from(other)[0] is not learns_from(cls)[0]:
            continue
        if given <= {*flow.needs, *flow.takes} and given >= set(flow.needs):
            found[name] = len(flow.needs)
    return [name for name, needed in found.items() if needed == max(found.values())][:3]


def check_options(cls: type[AbstractMethod], options: Options) -> None:
    """Raises `SpecificationError` for an option that this class of methods does not look at."""
    flow = flow_of(cls)
    for group in GROUPS:
        unusual = options.unusual((group,)) if group not in ("training", *flow.groups) else []
        if unusual:
            raise SpecificationError(
                f"{unusual[0]} is one of the {GROUPS[group]} options, but {cls.__name__} learns "
                f"{flow.learns}: leave it out"
            )
    for name, why in flow.idle.items():
        if getattr(options, name) is not None:
            raise SpecificationError(f"{cls.__name__} learns {flow.learns}: {why}")


def settle(method: AbstractMethod, options: Options) -> tuple[AbstractMethod, Options]:
    """Both with everything settled that was left open.

    A method that reads the probabilities of what is written does so at the temperature of writing,
    a rate that falls during learning reaches zero with the last update, and a scale of
    rewards goes to the method. Raises `SpecificationError` if a temperature or a scale was given
    twice, or if the method does not scale rewards.
    """
    flow = flow_of(type(method))
    usual = {n: value for n, value in flow.usual.items() if getattr(options, n) is None}
    options = dataclasses.replace(options, **usual)
    options = dataclasses.replace(options, seeds=tuple(options.seed_list))
    if options.online_ready:
        method = online_ready(method)
    method = _with_reward_scale(method, options.reward_scale)
    for name in ("actor_decay_updates", "decay_updates"):
        if settings(method).get(name, math.inf) is None and options.updates:
            own = settings(method)
            steps = options.updates * own.get("num_epochs", 1) * own.get("num_minibatches", 1)
            method = dataclasses.replace(method, **{name: float(steps)})
    if "writing" not in flow.groups:
        return method, options
    own = settings(method)
    if "temperature" not in own:
        given = 1.0 if options.temperature is None else options.temperature
        return method, dataclasses.replace(options, temperature=given)
    if options.temperature is None:
        return method, dataclasses.replace(options, temperature=own["temperature"])
    name = type(method).__name__
    if own["temperature"] not in (options.temperature, settings(build_method(name))["temperature"]):
        raise SpecificationError(
            f"texts are written at temperature {options.temperature}, but {name} was told "
            f"{own['temperature']}: give the temperature once"
        )
    return build_method(name, {**own, "temperature": options.temperature}), options


def _with_reward_scale(method: AbstractMethod, scale: float | str | None) -> AbstractMethod:
    """The method with rewards scaled as the option says. Raises `SpecificationError`."""
    if scale is None:
        return method
    name, own = type(method).__name__, settings(method)
    if "reward_scale" not in own:
        raise SpecificationError(f"{name} does not scale rewards: leave out reward_scale")
    if own["reward_scale"] not in (scale, settings(build_method(name))["reward_scale"]):
        raise SpecificationError(
            f"reward_scale is {scale}, but {name} was told {own['reward_scale']}: give it once"
        )
    return dataclasses.replace(method, reward_scale=scale)


def feed(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    """The stage in which `method` learns from `inputs`.

    **Arguments:** `options`: settled. Raises `SpecificationError` or `DataError` for what does not
    fit together.
    """
    flow = flow_of(type(method))
    if inputs.later:
        check_learns_tasks(method, 1 + len(inputs.later))
    if inputs.budget is not None and flow.kind == "control" and not flow.acts:
        # A method that learned from a log may go on by acting.
        return control.acting(method, inputs, options)
    return flow.stage(method, inputs, options)
