"""Rules of scheduling beside what they say, on queues written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.environments.interaction import episode_returns
from headwater.environments.systems.job_scheduling import JobScheduling
from headwater.environments.systems.scheduling_policies import (
    CriticalPath,
    FairShare,
    FirstInFirstOut,
    ShortestJobFirst,
)

TASK = JobScheduling(jobs=3, stages=2, tasks=4, executors=4)


def observation(left, running, seconds, path, runnable):
    """Of three jobs of two stages that are all there."""
    parts = [np.asarray(x, np.float32).ravel() for x in (left, running, seconds, path, runnable)]
    return jnp.asarray(np.concatenate([*parts, np.ones(3), np.zeros(3), [1.0]]), jnp.float32)


# Job 0 is long and has two executors, job 1 is shorter and has one, job 2 is short and has one.
SEEN = observation(
    left=[[3, 1], [2, 2], [1, 0]],
    running=[[2, 0], [0, 1], [0, 1]],
    seconds=[[5, 4], [2, 3], [1, 2]],
    path=[[9, 4], [3, 7], [1, 2]],
    runnable=[[1, 0], [1, 1], [1, 0]],
)


@pytest.mark.parametrize(
    ("rule", "action"),
    [
        (FirstInFirstOut(TASK), 0),
        # Jobs 1 and 2 both have one executor: the one that came first, its longer way.
        (FairShare(0.0, TASK), 3),
        # (2 + 1) / 29, (1 + 1) / 13 and (1 + 1) / 3: the heaviest job is the furthest behind.
        (FairShare(1.0, TASK), 0),
        (FairShare(-1.0, TASK), 4),
        (ShortestJobFirst(TASK), 4),
        (CriticalPath(TASK), 0),
    ],
    ids=["first", "fair", "by work", "against work", "shortest", "path"],
)
def test_a_rule_does_what_it_says(rule, action):
    assert int(rule(SEEN)) == action
    assert int(rule.act(None, SEEN, key=jax.random.key(0), explore=False)[0]) == action


def test_only_what_can_run_is_chosen():
    idle = observation([[3, 1], [2, 2], [1, 1]], np.zeros((3, 2)), np.ones((3, 2)),
                       [[9, 8], [7, 6], [1, 2]], [[0, 0], [0, 0], [0, 1]])  # fmt: skip
    for kind in (FirstInFirstOut, ShortestJobFirst, CriticalPath):
        assert int(kind(TASK)(idle)) == 5
    assert int(FairShare(0.0, TASK)(idle)) == 5


def test_short_jobs_first_end_sooner_in_the_mean():
    task = JobScheduling()

    def times(rule):
        act = lambda seen, key: rule(seen)
        run = jax.jit(lambda key: episode_returns(task, act, episodes=60, key=key))
        return -np.asarray(run(jax.random.key(0)))

    first, shortest = times(FirstInFirstOut(task)), times(ShortestJobFirst(task))
    assert (first > 0.0).all() and shortest.mean() < 0.9 * first.mean()
