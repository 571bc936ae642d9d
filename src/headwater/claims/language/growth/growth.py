"""What growing a decoder in stages, and training parts of it, saves."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_tasks import ShiftedCopies, everywhere
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of, with_numbers
from headwater.methods.language.growth.raptr import RaPTr
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoder import Architecture, Decoder
from headwater.ops.language.tokens import averaged, token_log_probabilities
from headwater.runs.loop import run
from headwater.runs.recipes.growth import (
    Operator,
    Plan,
    growing_stages,
    grown,
    insert_fresh,
    progressive_stages,
    rearrange,
)
from headwater.runs.stage import Outcome, Stage, continue_from
from headwater.sources.language.fresh_texts import FreshTexts

_RATES = {"learning_rate": 2e-3, "warmup_updates": 20.0}


def _problem(seed: int, width: int, layers: int) -> tuple[ShiftedCopies, TokenProblem]:
    task = ShiftedCopies()
    heads = max(width // 12, 1)
    architecture = Architecture(task.vocabulary, 32, width, layers, heads)
    return task, TokenProblem(Decoder(architecture, key=jax.random.key(seed)), task.end)


def _losses(plan: Plan, problem: TokenProblem, task: ShiftedCopies, seed: int, runs: int):
    """Loss on texts of their own after all stages, for each run."""
    result = run(plan.stages, problem, seeds=runs, seed=seed, logs=1, progress=False)
    return _judge(task, seed)(result.outcomes[plan.stages[-1].name])


def _judge(task: ShiftedCopies, seed: int) -> Callable[[Outcome], np.ndarray]:
    """What finds the loss of each run on texts of their own."""
    data = everywhere(task.texts(512, key=jax.random.fold_in(jax.random.key(seed), 2**31)))

    def loss(network):
        log_probabilities = token_log_probabilities(network, data)
        return -averaged(log_probabilities, jnp.asarray(data.response), "token")

    each = jax.jit(lambda states: jax.lax.map(lambda state: loss(state.network), states))
    return lambda outcome: np.asarray(each(outcome.state), np.float64)


def _whole(source: FreshTexts, updates: int, layers: int) -> Plan:
    """The decoder trained as one."""
    method = with_numbers(SFT(), **_RATES, decay_updates=updates)
    return Plan([Stage("whole", method, source, updates)], updates * layers)


def _compare(
    seed: int, plans: dict[str, Plan], problem: TokenProblem, task: ShiftedCopies, runs: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    found = {name: _losses(plan, problem, task, seed, runs) for name, plan in plans.items()}
    numbers = {
        "loss": {name: float(losses.mean()) for name, losses in found.items()},
        "updates of single layers": {name: plan.layer_updates for name, plan in plans.items()},
    }
    return found, numbers


def _criteria(found: dict[str, np.ndarray], name: str, below: float) -> tuple[Criterion, ...]:
    return (
        Criterion(
            f"loss of {name} less that of the whole decoder at the same cost",
            mean_of(found[name] - found["whole, same cost"]),
            at_most=-below,
        ),
        Criterion(
            f"loss of {name} less that of the whole decoder for as many updates",
            mean_of(found[name] - found["whole, as many updates"]),
            at_most=0.03,
        ),
    )


def _baselines(source: FreshTexts, layers: int, updates: int, cost: int) -> dict[str, Plan]:
    return {
        "whole, as many updates": _whole(source, updates, layers),
        "whole, same cost": _whole(source, round(cost / layers), layers),
    }


def _grow(
    seed: int,
    *,
    operators: Sequence[str],
    runs: int,
    updates: int,
    rows: int,
    width: int,
    layers: int,
    stages: int,
) -> Finding:
    task, problem = _problem(seed, width, layers)
    source = FreshTexts(task, rows, whole=True)
    method = with_numbers(SFT(), **_RATES, decay_updates=updates)
    plans = {
        name: growing_stages(
            method, source, layers=layers, stages=stages, updates=updates, operator=name
        )
        for name in operators
    }
    cost = plans[operators[0]].layer_updates
    plans |= _baselines(source, layers, updates, cost)
    found, numbers = _compare(seed, plans, problem, task, runs)
    criteria = [c for name in operators[:1] for c in _criteria(found, name, 0.03)]
    return Finding(tuple(criteria), numbers, {})


def _parts(
    seed: int,
    *,
    depths: Sequence[int],
    runs: int,
    updates: int,
    rows: int,
    width: int,
) -> Finding:
    task, problem = _problem(seed, width, depths[-1])
    source = FreshTexts(task, rows, whole=True)
    plan = progressive_stages(RaPTr(), source, depths=depths, updates=updates)
    stages = [
        eqx.tree_at(lambda s: s.method, s, with_numbers(s.method, **_RATES, decay_updates=updates))
        for s in plan.stages
    ]
    plans = {"RaPTr": Plan(stages, plan.layer_updates)}
    plans |= _baselines(source, depths[-1], updates, plans["RaPTr"].layer_updates)
    found, numbers = _compare(seed, plans, problem, task, runs)
    return Finding(_criteria(found, "RaPTr", 0.02), numbers, {})


def _ways(layers: int) -> dict[str, Operator]:
    """Ways to twice as many layers: copies of these or those, and new ones at every place."""
    order = list(range(layers))
    copies = {tuple(sorted(order + [i] * layers)): f"layer {i} again and again" for i in order}
    # Of one layer they are all the same.
    copies.setdefault(tuple(sorted(order + order)), "each twice")
    copies.setdefault(tuple(order + order), "all once more")
    copies.setdefault(tuple(order + order[::-1]), "all backwards")
    ways = {name: rearrange(each) for each, name in copies.items()}
    for place in range(layers + 1):
        ways[f"random before {place}"] = insert_fresh(place)
        ways[f"silent before {place}"] = insert_fresh(place, adds_nothing=True)
    return ways


def _choose(
    seed: int,
    *,
    runs: int,
    before: int,
    lag: int,
    updates: int,
    rows: int,
    width: int,
    layers: int,
) -> Finding:
    task, problem = _problem(seed, width, layers)
    source = FreshTexts(task, rows, whole=True)
    method = with_numbers(SFT(), **_RATES, decay_updates=before + updates)
    ways = _ways(layers)

    def grow(operator: Operator):
        def begin(outcomes, problem, key):
            return grown(outcomes["shallow"].state, operator, layers, key=key)

        return begin

    stages = [Stage("shallow", method, source, before)]
    for name, way in ways.items():
        stages += [
            Stage(f"{name}, at once", method, source, 0, begin=grow(way)),
            Stage(f"{name}, lag", method, source, lag, begin=continue_from(f"{name}, at once")),
            Stage(name, method, source, updates - lag, begin=continue_from(f"{name}, lag")),
        ]
    outcomes = run(stages, problem, seeds=runs, seed=seed, logs=1, progress=False).outcomes
    judge = _judge(task, seed)
    at_once, after_lag, last = (
        np.stack([judge(outcomes[name + moment]) for name in ways], axis=1)
        for moment in (", at once", ", lag", "")
    )

    def rank_correlation(early: np.ndarray) -> np.ndarray:
        return np.asarray([scipy.stats.spearmanr(a, b)[0] for a, b in zip(early, last)])

    seeds, chosen = np.arange(runs), np.argmin(after_lag, axis=1)
    ranked, ranked_at_once = rank_correlation(after_lag), rank_correlation(at_once)
    criteria = (
        Criterion("rank correlation of the loss after the lag", mean_of(ranked), at_least=0.8),
        Criterion("its gain over the loss at once", mean_of(ranked - ranked_at_once), at_least=0.3),
        Criterion(
            "last loss of what the lag chooses less the least",
            mean_of(last[seeds, chosen] - last.min(axis=1)),
            at_most=0.01,
        ),
    )
    numbers = {
        name: dict(zip(("at once", "after the lag", "last"), map(float, each)))
        for name, *each in zip(ways, at_once.mean(0), after_lag.mean(0), last.mean(0))
    }
    return Finding(criteria, {"loss": numbers, "least, by run": last.min(axis=1).tolist()}, {})


_SMOKE = {"runs": 2, "updates": 30, "rows": 8, "width": 12}
_SMALL = {"runs": 4, "updates": 900, "rows": 32, "width": 36}
_STACKED = {"layers": 6, "stages": 3}

CLAIMS = (
    Claim(
        name="gradual-stacking-saves-layers",
        statement=(
            "A decoder grown in three stages by copying its last layers on top is, after the same "
            "number of layer updates, at least 0.03 nats per token better than one trained whole, "
            "and at most 0.03 worse than one trained whole for as many updates, which costs 1.29 "
            "times as much."
        ),
        methods=("SFT",),
        paper="reddi2023efficient",
        where="the comparison with training from scratch; margins are those of a run of 6 layers",
        scales={
            "smoke": {"operators": ("gradual-stacking",), **_SMOKE, "layers": 2, "stages": 2},
            "small": {"operators": ("gradual-stacking", "random"), **_SMALL, **_STACKED},
        },
        experiment=_grow,
        learned=(
            "On these texts the loss falls suddenly, when copying is discovered, and how soon "
            "that is differs from run to run by hundreds of updates: over four runs the grown "
            "decoder is 0.44 nats worse at the same cost, with an interval from -0.10 to 0.78. "
            "Nothing is decided, and nothing speaks for growing here."
        ),
    ),
    Claim(
        name="midas-saves-layers",
        statement=(
            "A decoder grown in three stages by repeating its middle block is, after the same "
            "number of layer updates, at least 0.03 nats per token better than one trained whole, "
            "and at most 0.03 worse than one trained whole for as many updates."
        ),
        methods=("SFT",),
        paper="saunshi2024inductive",
        where="the comparison of pre-training costs; margins are those of a run of 6 layers",
        scales={
            "smoke": {"operators": ("midas",), **_SMOKE, "layers": 2, "stages": 2},
            "small": {"operators": ("midas",), **_SMALL, **_STACKED},
        },
        experiment=_grow,
        learned=(
            "On these texts the loss falls suddenly, when copying is discovered, and how soon "
            "that is differs from run to run by hundreds of updates: over four runs the grown "
            "decoder is 0.41 nats worse at the same cost, with an interval from -0.10 to 0.68. "
            "Nothing is decided, and nothing speaks for growing here."
        ),
    ),
    Claim(
        name="raptr-saves-layers",
        statement=(
            "Random sub-networks of 3, 4, 5 and 6 of 6 layers, a quarter of the updates each, end "
            "at least 0.02 nats per token below a decoder trained whole at the same cost in "
            "layers, and at most 0.03 above one trained whole for as many updates."
        ),
        methods=("RaPTr", "SFT"),
        paper="panigrahi2025efficient",
        where="the comparison of pre-training costs (20 to 33 % fewer operations)",
        scales={
            "smoke": {"depths": (2, 3), **_SMOKE},
            "small": {"depths": (3, 4, 5, 6), **_SMALL},
        },
        experiment=_parts,
        learned=(
            "On these texts the loss falls suddenly, when copying is discovered, and how soon "
            "that is differs from run to run by hundreds of updates: over four runs the "
            "difference at the same cost is -0.01 nats with an interval from -0.81 to 0.83."
        ),
    ),
    Claim(
        name="a-lag-tells-how-growth-will-end",
        statement=(
            "Of fourteen ways to grow three layers to six, the loss 30 updates later ranks them "
            "as the loss after 300 does, with a rank correlation of at least 0.8 and 0.3 above "
            "that of the loss at once, and what it chooses ends within 0.01 nats of the best."
        ),
        methods=("SFT",),
        paper="karp2024landscape",
        where="the correlation of early with final losses; the numbers are ours",
        scales={
            "smoke": {"runs": 2, "before": 20, "lag": 5, "updates": 20, "rows": 8, "width": 12}
            | {"layers": 1},
            "small": {"runs": 3, "before": 200, "lag": 30, "updates": 300, "rows": 32, "width": 36}
            | {"layers": 3},
        },
        experiment=_choose,
        learned=(
            "All ways end within 0.04 nats of each other on average (1.93 to 1.97), so that their "
            "order is mostly noise; the best is 0.04 below what the lag chooses. New layers lead "
            "at once (2.04 nats, where copies begin at 2.3 to 3.4) and at the end, so that the "
            "loss at once ranks them nearly as well as the loss after the lag does, whose rank "
            "correlation is 0.65."
        ),
    ),
)
