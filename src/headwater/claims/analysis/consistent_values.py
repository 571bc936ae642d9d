"""How much data narrow down values read by way of a model, and read by the Bellman equation."""

import numpy as np

from headwater.analysis.models.consistent_values import consistent_values, factored_models
from headwater.evidence.claim import Claim, Criterion, Finding, exactly


def _narrowed(seed: int, *, bits: int, actions: int, steps: int, worlds: int) -> Finding:
    draw = np.random.default_rng(seed)
    models, found = factored_models(bits, actions), []
    for _ in range(worlds):
        world = models[draw.integers(len(models))]
        reward = np.zeros(world.shape)
        reward[draw.integers(len(world))] = 1.0
        state, log = int(draw.integers(len(world))), []
        for action in draw.integers(actions, size=steps):
            log.append((state, action, world[state, action]))
            state = int(world[state, action])
        found.append(consistent_values(models, reward, np.asarray(log)))
    by_model, by_bellman = np.asarray(found).T
    share = float(np.mean(by_model < by_bellman))
    return Finding(
        (
            Criterion(
                "share of worlds in which the model leaves fewer value functions",
                exactly(share),
                at_least=1.0,
            ),
        ),
        {
            "value_functions": {
                "by_model": by_model.tolist(),
                "by_bellman": by_bellman.tolist(),
            }
        },
    )


CLAIMS = (
    Claim(
        "a-model-leaves-fewer-value-functions",
        "In each of 40 random worlds of three bits, which change by themselves and by the action, "
        "with a reward in one state, three steps leave fewer optimal value functions to whoever "
        "learns a model first than to whoever asks that values satisfy the Bellman equation on "
        "these steps.",
        (),
        "young2023benefits",
        "a case of its theorem, counted exactly; worlds and numbers are ours",
        {
            "smoke": {"bits": 2, "actions": 2, "steps": 3, "worlds": 4},
            "small": {"bits": 3, "actions": 2, "steps": 3, "worlds": 40},
        },
        _narrowed,
        learned="That it is never more holds for every class of models; that it is fewer does not. "
        "Of all models of a process, or where no two states are worth the same, it is as many "
        "(`tests/analysis/test_consistent_values.py`). Three worlds of 40 fail with seed 0, with "
        "as many by both: in two of them the three steps end, or stay, where the reward is, and "
        "values tell as much of such steps.",
    ),
)
