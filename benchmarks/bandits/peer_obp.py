"""Open Bandit Pipeline's estimates of a policy, from the rows that `zozotown.py` hands over."""

import json
import sys
import types

import numpy as np

try:
    import torch  # noqa: F401
except ModuleNotFoundError:
    # Its learners need it, but its estimators do not.
    sys.modules["torch"] = types.SimpleNamespace(tensor=None, Tensor=type(None))

from obp.ope import (
    DirectMethod,
    DoublyRobust,
    InverseProbabilityWeighting,
    SelfNormalizedDoublyRobust,
    SelfNormalizedInverseProbabilityWeighting,
)

with np.load(sys.argv[1]) as file:
    rows = dict(file)
rounds = len(rows["item"])
every = {
    "action": rows["item"],
    "reward": rows["click"],
    "pscore": rows["propensity"],
    "position": rows["position"],
    "action_dist": np.broadcast_to(rows["shares"].T, (rounds, *rows["shares"].T.shape)),
}
model = np.broadcast_to(rows["rates"].T, (rounds, *rows["rates"].T.shape))
limit = float(rows["max_weight"])
estimators = {
    "IPS": InverseProbabilityWeighting(),
    "SNIPS": SelfNormalizedInverseProbabilityWeighting(),
    "DM": DirectMethod(),
    "DR": DoublyRobust(),
    "SNDR": SelfNormalizedDoublyRobust(),
    "clipped IPS": InverseProbabilityWeighting(lambda_=limit),
    # Its self-normalised estimators take a limit too, and pay no attention to it.
    "clipped DR": DoublyRobust(lambda_=limit),
}
found = {}
for name, estimator in estimators.items():
    given = dict(every)
    if "D" in name:
        given["estimated_rewards_by_reg_model"] = model
        if name == "DM":
            for needless in ("action", "reward", "pscore"):
                del given[needless]
    value = estimator.estimate_policy_value(**given)
    between = estimator.estimate_interval(
        **given, n_bootstrap_samples=1_000, random_state=0, alpha=0.05
    )
    low, high = (float(v) for key, v in between.items() if "CI" in key)
    found[name] = {"value": float(value), "low": min(low, high), "high": max(low, high)}
print(json.dumps(found))
