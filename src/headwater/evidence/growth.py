"""What claims about decoders that grow, or train in parts, share: the task and its baselines."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_tasks import ShiftedCopies, everywhere
from headwater.evidence.claim import Criterion, Finding, mean_of, with_numbers
from headwater.methods.language.texts.sft import SFT
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.tokens import averaged, token_log_probabilities
from headwater.runs.loop import run
from headwater.runs.recipes.growth import Plan, growing_stages
from headwater.runs.stage import Outcome, Stage
from headwater.sources.language.fresh_texts import FreshTexts

RATES = {"learning_rate": 2e-3, "warmup_updates": 20.0}
SMOKE = {"runs": 2, "updates": 30, "rows": 8, "width": 12}
SMALL = {"runs": 4, "updates": 900, "rows": 32, "width": 36}
STACKED = {"layers": 6, "stages": 3}


def growth_problem(seed: int, width: int, layers: int) -> tuple[ShiftedCopies, TokenProblem]:
    """Shifted copies, and a new decoder of `layers` layers for them."""
    task = ShiftedCopies()
    heads = max(width // 12, 1)
    architecture = Architecture(task.vocabulary, 32, width, layers, heads)
    return task, TokenProblem(Decoder(architecture, key=jax.random.key(seed)), task.end)


def losses_of(plan: Plan, problem: TokenProblem, task: ShiftedCopies, seed: int, runs: int):
    """Loss on texts of their own after all stages, for each run."""
    result = run(plan.stages, problem, seeds=runs, seed=seed, logs=1, progress=False)
    return losses_by_run(task, seed)(result.outcomes[plan.stages[-1].name])


def losses_by_run(task: ShiftedCopies, seed: int) -> Callable[[Outcome], np.ndarray]:
    """A function from an outcome to the loss of each run, `[run]`, on texts of their own."""
    data = everywhere(task.texts(512, key=jax.random.fold_in(jax.random.key(seed), 2**31)))

    def loss(network):
        log_probabilities = token_log_probabilities(network, data)
        return -averaged(log_probabilities, jnp.asarray(data.response), "token")

    each = jax.jit(lambda states: jax.lax.map(lambda state: loss(state.network), states))
    return lambda outcome: np.asarray(each(outcome.state), np.float64)


def trained_whole(source: FreshTexts, updates: int, layers: int) -> Plan:
    """The decoder trained as one."""
    method = with_numbers(SFT(), **RATES, decay_updates=updates)
    return Plan([Stage("whole", method, source, updates)], updates * layers)


def compare_plans(
    seed: int, plans: dict[str, Plan], problem: TokenProblem, task: ShiftedCopies, runs: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The last losses, `[run]`, of each plan, and what a record holds of them."""
    found = {name: losses_of(plan, problem, task, seed, runs) for name, plan in plans.items()}
    numbers = {
        "loss": {name: float(losses.mean()) for name, losses in found.items()},
        "updates of single layers": {name: plan.layer_updates for name, plan in plans.items()},
    }
    return found, numbers


def criteria_of(found: dict[str, np.ndarray], name: str, below: float) -> tuple[Criterion, ...]:
    """Whether `name` is `below` under the whole decoder at its cost, and near its loss at all."""
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


def baselines(source: FreshTexts, layers: int, updates: int, cost: int) -> dict[str, Plan]:
    """The decoder trained as one: for as many updates, and at the same cost in layers."""
    return {
        "whole, as many updates": trained_whole(source, updates, layers),
        "whole, same cost": trained_whole(source, round(cost / layers), layers),
    }


def grow(
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
    """Growing with each of the operators, of which the first is judged, beside the baselines."""
    task, problem = growth_problem(seed, width, layers)
    source = FreshTexts(task, rows, whole=True)
    method = with_numbers(SFT(), **RATES, decay_updates=updates)
    plans = {
        name: growing_stages(
            method, source, layers=layers, stages=stages, updates=updates, operator=name
        )
        for name in operators
    }
    cost = plans[operators[0]].layer_updates
    plans |= baselines(source, layers, updates, cost)
    found, numbers = compare_plans(seed, plans, problem, task, runs)
    return Finding(criteria_of(found, operators[0], 0.03), numbers, {})
