"""Locks of low rank, and problems that methods of low rank must refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.claims.low_rank.refuel import explore
from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.environments.linear.low_rank import latent_lock
from headwater.methods.low_rank.refuel import REFUEL

RANK = 2


def locks(tasks: int):
    return latent_lock(
        tasks=tasks, states=6, actions=2, horizon=3, rank=RANK, key=jax.random.key(3)
    )


def expect_locks_opened(cls):
    """Fails unless a method of one task opens each of two locks and knows their dynamics."""
    given = locks(2)
    each = [given.task(0), given.task(1)]
    curves = explore(cls(rank=RANK, episodes_per_step=4, num_restarts=4), each, updates=40, seed=0)
    assert np.all(curves.value[:, -1] > 0.95), curves.value[:, -1]
    assert np.all(curves.error[:, -1] < 0.25) and np.all(curves.error[:, 0] > 0.4)


def expect_other_problems_refused(cls, key):
    """Fails unless `cls` says which problems it takes."""
    tasks = 2 if cls is REFUEL else None
    lead = () if tasks is None else (tasks,)
    known = {
        "initial": jnp.full((*lead, 3), 1.0 / 3.0),
        "reward": jnp.zeros((*lead, 4, 3, 2)),
    }
    problem = FiniteProblem(3, 2, 4, **known, tasks=tasks)
    with pytest.raises(SpecificationError, match="rank = 7 does not fit a problem of 6 pairs"):
        cls(rank=7).init(problem, key=key)
    with pytest.raises(SpecificationError, match=f"{cls.__name__} .*initial"):
        cls(rank=2).init(FiniteProblem(3, 2, 4, reward=known["reward"], tasks=tasks), key=key)
    wrong = FiniteProblem(3, 2, 4, **known, tasks=2 if tasks is None else None)
    with pytest.raises(SpecificationError, match=f"{cls.__name__} learns"):
        cls(rank=2).init(wrong, key=key)
