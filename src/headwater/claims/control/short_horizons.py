"""IQL on short and long horizons, whatever the units and the level of the rewards."""

import itertools
from functools import partial
from typing import Any

import numpy as np

from headwater.core.catalogue import build_method
from headwater.evaluation.statistics import Interval
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of
from headwater.evidence.horizon_logs import Cell, horizon_log, shares_closed

_STARTS: dict[str, dict[str, Any]] = {
    "level of the log": {},
    "from zero": {"initial_level": "zero", "reward_scale": "return_range"},
}
"""As it is by default, and as the paper has it."""


def _grid(
    seed: int,
    *,
    instances: int,
    horizons: tuple[int, ...],
    offsets: tuple[float, ...],
    scales: tuple[float, ...],
    updates: int,
    rows: int,
    step_seen: bool = False,
) -> Finding:
    cells = [Cell(*each) for each in itertools.product(horizons, offsets, scales)]
    numbers = [1_000 * seed + i for i in range(instances)]
    log = partial(horizon_log, rows=rows, step_seen=step_seen)
    logs = [log(cell, instance=n) for n in numbers for cell in cells]
    shares = {}
    for name, fields in _STARTS.items():
        settings = {"hidden_sizes": (32,), "learning_rate": 1e-3, "actor_decay_updates": updates}
        method = build_method("IQL", {**settings, **fields})
        found = shares_closed(
            method, logs, updates=updates, batch_size=64, seed=seed, step_seen=step_seen
        )
        shares[name] = found.reshape(instances, len(horizons), len(offsets), len(scales))
    ours, zero = shares.values()
    worst = np.unravel_index(ours.mean(0).argmin(), ours.shape[1:])
    by_scale = ours.mean(0)
    spread = float((by_scale.max(-1) - by_scale.min(-1)).max())
    return Finding(
        (
            Criterion("share closed in the worst cell", mean_of(ours[:, *worst]), 0.5),
            Criterion(
                "largest change of the share by the scale alone",
                Interval(spread, spread, spread, 0.95, instances),
                at_most=0.1,
            ),
            Criterion(
                "share closed where rewards are near -5 and episodes have at most ten steps, less "
                "that from zero",
                mean_of((ours - zero)[:, np.asarray(horizons) <= 10][:, :, 0].mean((1, 2))),
                0.0,
            ),
        ),
        {
            name: dict(zip(map(str, horizons), found.mean((0, 3)).round(3).tolist()))
            for name, found in shares.items()
        },
        {name: (np.asarray(horizons), found.mean((2, 3))) for name, found in shares.items()},
        across="steps of an episode",
        up="share of the gap to the optimum",
        logarithmic="x",
    )


_SMOKE: dict[str, Any] = {
    "instances": 3,
    "horizons": (1, 5),
    "offsets": (-5.0,),
    "scales": (0.1, 100.0),
    "updates": 20,
    "rows": 100,
}
_SMALL: dict[str, Any] = {
    "instances": 4,
    "horizons": (1, 5, 10, 100, 1000),
    "offsets": (-5.0, 0.0, 5.0),
    "scales": (0.1, 1.0, 100.0),
}

CLAIMS = (
    Claim(
        "iql-learns-at-every-horizon",
        "From logs of random actions in random processes IQL closes at least half of the gap "
        "between the behaviour and the optimum at horizons of 1, 5, 10, 100 and 1000 steps, with "
        "rewards in [0, 1] moved by -5, 0 and 5 and multiplied by 0.1, 1 and 100; the multiplier "
        "alone changes the share by at most 0.1; and where rewards are near -5 and episodes short, "
        "it closes more than from values of zero with rewards scaled by the range of returns.",
        ("IQL",),
        "kostrikov2022iql",
        "ours: the initial level of values and the scale of rewards are none of the paper's",
        {
            "smoke": _SMOKE,
            "small": {**_SMALL, "updates": 2_000, "rows": 2_000},
        },
        _grid,
        learned=(
            "Where the step is not seen and rewards are far from 0, the end of an episode is a "
            "surprise worth many times what any action is worth: with an offset half of the gap is "
            "closed at 1 and 1000 steps, and not at 5, 10 and 100 (-0.12 to 0.39); with rewards "
            "near 0 it is closed at all horizons (0.87 and more). The multiplier alone changes "
            "nothing."
        ),
    ),
    Claim(
        "iql-learns-at-every-horizon-where-the-step-is-seen",
        "The same where the share of the episode that is over is observed, from logs of 10,000 "
        "rows and with 4,000 updates.",
        ("IQL",),
        "kostrikov2022iql",
        "ours: the initial level of values and the scale of rewards are none of the paper's",
        {
            "smoke": {**_SMOKE, "step_seen": True},
            "small": {**_SMALL, "updates": 4_000, "rows": 10_000, "step_seen": True},
        },
        _grid,
        learned=(
            "Held at horizons of 1, 5 and 10 (0.72 and more) and not at 100 steps with an offset "
            "(0.17), where 4,000 updates do not suffice to learn how values of several hundred "
            "deviations fall towards the end. The multiplier alone changes a share by 0.002."
        ),
    ),
)
