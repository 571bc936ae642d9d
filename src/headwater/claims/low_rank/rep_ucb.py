"""What knowing the reward saves while features are learned."""

from typing import Any

import numpy as np

from headwater.evidence.claim import Claim, Criterion, Finding, ratio_of_means
from headwater.evidence.low_rank import explore, first_reach, make_tasks
from headwater.methods.low_rank.raffle import RAFFLE
from headwater.methods.low_rank.rep_ucb import RepUCB


def _with_the_reward(
    *, seed: int, updates: int, batch: int, instances: int, value: float, **sizes: Any
) -> Finding:
    """Episodes of RepUCB and RAFFLE, with equal settings, to a share of the best return."""
    given = [make_tasks(tasks=1, seed=seed * 10_000 + at, **sizes) for at in range(instances)]
    rank, per_update = given[0].feature.shape[-1], batch * sizes["horizon"]
    processes = [each.task(0) for each in given]
    curves, reached = {}, {}
    for method in (
        RepUCB(rank=rank, episodes_per_step=batch),
        RAFFLE(rank=rank, episodes_per_step=batch),
    ):
        name = type(method).__name__
        curves[name] = explore(method, processes, updates=updates, seed=seed).value
        reached[name] = [
            first_reach(curve, value, above=True, per_update=per_update) for curve in curves[name]
        ]
    ratio = ratio_of_means(reached["RepUCB"], reached["RAFFLE"])
    across = np.arange(updates + 1) * per_update
    return Finding(
        (Criterion(f"episodes to {value:g} of the best return", ratio, at_most=1.0),),
        numbers=reached,
        curves={name: (across, found) for name, found in curves.items()},
        across="episodes",
        up="share of the best return",
    )


CLAIMS = (
    Claim(
        name="rep-ucb-needs-no-more-than-reward-free",
        statement="RepUCB, which knows the reward while it explores, needs no more episodes to "
        "95 % of the best return than RAFFLE, which does not use it.",
        methods=("RepUCB", "RAFFLE"),
        paper="uehara2022representation",
        where="consequence: optimism for one reward has to learn less than a model for all",
        scales={
            "smoke": {
                "family": "lock",
                "states": 8,
                "actions": 3,
                "horizon": 4,
                "rank": 2,
                "batch": 4,
                "updates": 60,
                "instances": 4,
                "value": 0.95,
            },
            "small": {
                "family": "lock",
                "states": 20,
                "actions": 4,
                "horizon": 5,
                "rank": 4,
                "batch": 8,
                "updates": 120,
                "instances": 12,
                "value": 0.95,
            },
        },
        experiment=_with_the_reward,
    ),
)
