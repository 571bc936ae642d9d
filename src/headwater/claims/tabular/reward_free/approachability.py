"""Reward-free exploration, and constrained problems solved afterwards."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.evaluation.constrained import best_within, course_of, measurement
from headwater.evaluation.instances import stacked
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.rovers import rovers
from headwater.methods.tabular.reward_free.rf_ucrl import RFUCRL
from headwater.methods.tabular.reward_free.vi_zero import VIZero
from headwater.ops.tabular.approachability import approach, vector_returns
from headwater.ops.tabular.convex import distance, within_budgets

_PAPER = "miryoosefi2022simple"


def _explored(
    seed: int,
    episodes: int,
    explorer: str,
    bonus_scale: float,
    processes: list[FiniteProcess],
):
    """Models of reward-free exploration, with the rewards and costs that are told afterwards."""
    kind = {"RFUCRL": RFUCRL, "VIZero": VIZero}[explorer]
    method = kind(stationary=True, bonus_scale=bonus_scale)
    course = course_of(
        method,
        stacked(processes),
        [1.0],
        draws=episodes,
        every=episodes,
        explore=True,
        key=jax.random.fold_in(jax.random.key(seed), 1),
    )
    models = []
    for index, process in enumerate(processes):
        state = jax.tree.map(lambda leaf, i=index: leaf[i], course.state)
        models.append(method.model(state, process.reward, process.cost))
    return models


def _every_budget(
    seed: int,
    *,
    maps: int,
    size: int,
    pits: int,
    horizon: int,
    episodes: int,
    budgets: tuple[float, ...],
    bonus_scale: float,
    explorer: str = "RFUCRL",
) -> Finding:
    processes = rovers(
        seed, maps=maps, size=size, pits=pits, horizon=horizon, lowest=budgets[0],
        highest=budgets[-1],
    )  # fmt: skip
    models = _explored(seed, episodes, explorer, bonus_scale, processes)
    share, over = np.zeros((maps, len(budgets))), np.zeros((maps, len(budgets)))
    for i, (process, model) in enumerate(zip(processes, models)):
        for j, budget in enumerate(budgets):
            best = best_within(process, [budget]).value
            try:
                plan = best_within(model, [budget])
            except SpecificationError:
                # The model knows of no policy that keeps to this budget: nothing is earned.
                continue
            policy = jnp.asarray(plan.policy, jnp.float32)
            found = np.asarray(vector_returns(process, measurement(process), policy))
            share[i, j], over[i, j] = found[0] / best, found[1] - budget
    criteria = []
    for j, budget in enumerate(budgets):
        criteria += [
            Criterion(f"reward at budget {budget:g}, of the best", mean_of(share[:, j]), 0.95),
            Criterion(f"cost over budget {budget:g}", mean_of(over[:, j]), at_most=0.04),
        ]
    return Finding(
        tuple(criteria),
        {"episodes": episodes, "budgets": list(budgets), "share": share.tolist()},
        {"reward, of the best": (list(budgets), share), "cost over budget": (list(budgets), over)},
        across="budget",
        up="share of the best reward, and cost over budget",
    )


def _mixture(
    seed: int,
    *,
    maps: int,
    size: int,
    pits: int,
    horizon: int,
    episodes: int,
    budget: float,
    rounds: int,
    bonus_scale: float,
    explorer: str = "RFUCRL",
) -> Finding:
    processes = rovers(
        seed, maps=maps, size=size, pits=pits, horizon=horizon, lowest=budget, highest=budget
    )
    models = _explored(seed, episodes, explorer, bonus_scale, processes)
    gaps = np.zeros((maps, rounds))
    for i, (process, model) in enumerate(zip(processes, models)):
        # On the published map this asks for the 1.5 of the sheet: 0.036 less than the best.
        least = best_within(process, [budget]).value - 0.036
        target = within_budgets(least, 2.0, jnp.asarray([budget]))
        found = approach(model, measurement(model), target, rounds=rounds, largest=2.0,
                         judge=process)  # fmt: skip
        # Returns in the true process, so with the true rewards and costs.
        gaps[i] = np.asarray(jax.vmap(lambda x, t=target: distance(t, x))(found.averages))
    criteria = (Criterion("distance of the mixture's returns", mean_of(gaps[:, -1]), at_most=0.05),)
    return Finding(
        criteria,
        {"last": gaps[:, -1].tolist()},
        {"mixture": (np.arange(1, rounds + 1), gaps)},
        across="rounds",
        up="distance from the set",
        logarithmic="x",
    )


_SMALL = {"maps": 12, "size": 8, "pits": 10, "horizon": 30, "episodes": 800, "bonus_scale": 0.02}


_SMOKE = {"maps": 3, "size": 4, "pits": 2, "horizon": 10, "episodes": 200, "bonus_scale": 0.02}


_ZERO = {"explorer": "VIZero", "bonus_scale": 1e-5}


CLAIMS = (
    Claim(
        name="one-exploration-serves-every-budget",
        statement="After 800 episodes without rewards or costs, planning in the learned model earns"
        " at least 95 % of the best reward at a cost of at most 0.04 over the budget, for budgets "
        "of 0.1, 0.3 and 0.5, without another episode.",
        methods=("RFUCRL",),
        paper=_PAPER,
        where="Section 4, the reduction to a reward-free oracle; numbers are a reproduction's",
        scales={
            "smoke": {**_SMOKE, "budgets": (0.2, 0.4)},
            "small": {**_SMALL, "budgets": (0.1, 0.3, 0.5)},
        },
        experiment=_every_budget,
        learned=(
            "The mean cost over budget is below 0.04 for each of the three (0.013, 0.030 and "
            "0.028), but over twelve maps the intervals for budgets of 0.3 and 0.5 reach 0.041 and "
            "0.057. The rewards are as stated. For the budget of 0.1 some plans earn more than the "
            "best that keeps to it, up to 1.4 times as much."
        ),
    ),
    Claim(
        name="vi-zero-serves-every-budget",
        statement="The same with the episodes of VI-Zero, the explorer that the paper recommends.",
        methods=("VIZero",),
        paper=_PAPER,
        where="Section 4, the reduction to a reward-free oracle; numbers are a reproduction's",
        scales={
            "smoke": {**_SMOKE, "budgets": (0.2, 0.4), **_ZERO},
            "small": {**_SMALL, "budgets": (0.1, 0.3, 0.5), **_ZERO},
        },
        experiment=_every_budget,
        learned=(
            "Only with a bonus 100,000 times smaller than the theorem's: its part in H²S/N never "
            "leaves its cap at this size. The costs over the budgets of 0.3 and 0.5 are 0.04 with "
            "intervals up to 0.06, where at most 0.04 was asked for."
        ),
    ),
    Claim(
        name="reward-free-approachability-in-fifty-plans",
        statement="On the model of 800 episodes without rewards, the mixture of 50 plans for "
        "changing rewards returns within 0.05 of the set of policies that nearly earn the best "
        "within a budget of 0.3.",
        methods=("RFUCRL",),
        paper=_PAPER,
        where="Section 3, approachability by no-regret play; numbers are a reproduction's",
        scales={
            "smoke": {**_SMOKE, "budget": 0.3, "rounds": 50},
            "small": {**_SMALL, "budget": 0.3, "rounds": 50},
        },
        experiment=_mixture,
    ),
)
