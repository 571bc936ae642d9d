"""A small process with linear rewards and a log of compared episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.environments.linear.linear_reward import random_linear_rewards
from headwater.ops.linear.preference import trajectory_features
from headwater.ops.tabular.planning import occupancy
from headwater.sources.comparisons import BradleyTerryJudge, log_comparisons

TASK = random_linear_rewards(states=3, actions=2, horizon=3, features=2, key=jax.random.key(0))


PROCESS, KEY = TASK.process, jax.random.key(1)


FEATURES = np.asarray(TASK.features, np.float64)


def log_of(comparisons: int, key=KEY):
    uniform = jnp.full(PROCESS.reward.shape, 0.5)
    judge = BradleyTerryJudge(PROCESS.reward)
    return log_comparisons(PROCESS, judge, uniform, uniform, comparisons=comparisons, key=key)


LOG = log_of(12)


def differences(data) -> np.ndarray:
    first, second = (
        np.asarray(trajectory_features(e, TASK.features)) for e in (data.first, data.second)
    )
    return (first - second).astype(np.float64)


def worst_case(policy, weights, precision, width, reference) -> float:
    occupied = np.asarray(occupancy(PROCESS, jnp.asarray(policy)), np.float64)
    away = np.einsum("hsa,hsaf->f", occupied, FEATURES) - reference
    return away @ weights - width * np.sqrt(away @ np.linalg.inv(precision) @ away)


def expect_known_start_asked_for(method):
    """Fails unless `method` says that it must know where episodes start."""
    with pytest.raises(SpecificationError, match="plans from where episodes start"):
        method.init(FiniteProblem(3, 2, 3), key=KEY)
