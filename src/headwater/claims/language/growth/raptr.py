"""What training random sub-networks of growing depth saves."""

from collections.abc import Sequence

import equinox as eqx

from headwater.evidence.claim import Claim, Finding, with_numbers
from headwater.evidence.growth import (
    RATES,
    SMALL,
    SMOKE,
    baselines,
    compare_plans,
    criteria_of,
    growth_problem,
)
from headwater.methods.language.growth.raptr import RaPTr
from headwater.runs.recipes.growth import Plan, progressive_stages
from headwater.sources.language.fresh_texts import FreshTexts


def _parts(
    seed: int,
    *,
    depths: Sequence[int],
    runs: int,
    updates: int,
    rows: int,
    width: int,
) -> Finding:
    task, problem = growth_problem(seed, width, depths[-1])
    source = FreshTexts(task, rows, whole=True)
    plan = progressive_stages(RaPTr(), source, depths=depths, updates=updates)
    stages = [
        eqx.tree_at(lambda s: s.method, s, with_numbers(s.method, **RATES, decay_updates=updates))
        for s in plan.stages
    ]
    plans = {"RaPTr": Plan(stages, plan.layer_updates)}
    plans |= baselines(source, depths[-1], updates, plans["RaPTr"].layer_updates)
    found, numbers = compare_plans(seed, plans, problem, task, runs)
    return Finding(criteria_of(found, "RaPTr", 0.02), numbers, {})


CLAIMS = (
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
            "smoke": {"depths": (2, 3), **SMOKE},
            "small": {"depths": (3, 4, 5, 6), **SMALL},
        },
        experiment=_parts,
        learned=(
            "On these texts the loss falls suddenly, when copying is discovered, and how soon "
            "that is differs from run to run by hundreds of updates: over four runs the "
            "difference at the same cost is -0.01 nats with an interval from -0.81 to 0.83."
        ),
    ),
)
