"""Job scheduling beside a simulator that goes from event to event, in plain Python."""

import heapq
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.check import check_environment
from headwater.environments.systems.job_scheduling import JobScheduling, next_runnable

TASK = JobScheduling(jobs=4, stages=3, tasks=3, executors=2, interval=0.7)


def simulated(arrival, seconds, needs, left, executors, actions):
    """Seconds waited at each decision, what could run there, and when each job ended."""
    jobs, stages = left.shape
    left, running = left.copy(), np.zeros_like(left)
    now, free, events, waited, shown, waiting = 0.0, executors, [], [], [], 0.0
    ended = np.full(jobs, np.nan)
    actions = iter(actions)
    while np.isnan(ended).any():
        is_open = (left > 0) | (running > 0)
        can = [
            (job, stage)
            for job in range(jobs)
            for stage in range(stages)
            if arrival[job] <= now
            and left[job, stage] > 0
            and not any(needs[job, stage, other] and is_open[job, other] for other in range(stages))
        ]
        if free and can:
            if shown:
                waited.append(waiting)
            waiting = 0.0
            shown.append({job * stages + stage for job, stage in can})
            wish = next(actions)
            job, stage = min(can, key=lambda at: (at[0] * stages + at[1] - wish) % (jobs * stages))
            left[job, stage] -= 1
            running[job, stage] += 1
            free -= 1
            heapq.heappush(events, (now + seconds[job, stage], job, stage))
            continue
        coming = [time for time in arrival if time > now]
        following = min(coming + [event[0] for event in events[:1]])
        waiting += (following - now) * sum(
            arrival[job] <= now and np.isnan(ended[job]) for job in range(jobs)
        )
        now = following
        while events and events[0][0] <= now:
            _, job, stage = heapq.heappop(events)
            running[job, stage] -= 1
            free += 1
            if not left[job].any() and not running[job].any():
                ended[job] = now
    return np.asarray([*waited, waiting]), shown, ended


@pytest.fixture(scope="module")
def walk():
    """An episode of drawn actions, compiled once: how it began, its actions and its steps."""

    @jax.jit
    def walk(key):
        start, first = TASK.reset(key=key)
        actions = jax.random.randint(jax.random.fold_in(key, 1), (TASK.spaces.horizon,), 0, 12)

        def one(state, action):
            reached, seen = TASK.step(state, action, key=key)
            return reached, (seen, reached.running)

        return start, first, actions, jax.lax.scan(one, start, actions)[1]

    return walk


@pytest.mark.parametrize("seed", range(5))
def test_an_episode_is_what_a_plain_simulator_makes_of_it(walk, seed):
    start, first, actions, (seen, running) = jax.tree.map(np.asarray, walk(jax.random.key(seed)))
    decisions = int(start.left.sum())
    waited, shown, ended = simulated(
        start.arrival.astype(float), start.seconds.astype(float), start.needs, start.left,
        TASK.executors, actions,
    )  # fmt: skip
    assert len(waited) == decisions
    np.testing.assert_allclose(-4.0 * seen.reward[:decisions], waited, rtol=1e-4, atol=1e-4)
    # The return is minus the mean time from arrival to end.
    mean = np.mean(ended - start.arrival)
    np.testing.assert_allclose(-seen.reward[:decisions].sum(), mean, rtol=1e-4)
    assert np.argmax(seen.terminal) == decisions - 1 and not seen.truncated.any()
    observed = np.concatenate([first[None], seen.observation[: decisions - 1]])
    read = jax.tree.map(np.asarray, TASK.queue(jnp.asarray(observed)))
    for runnable, known in zip(read.runnable.reshape(decisions, -1), shown, strict=True):
        assert set(np.flatnonzero(runnable)) == known
    np.testing.assert_allclose(read.running[1:], running[: decisions - 1])
    assert (read.free >= 1).all() and (read.free + read.running.sum((1, 2)) == 2).all()


def test_jobs_are_drawn_as_it_is_documented():
    task = JobScheduling()
    keys = jax.random.split(jax.random.key(0), 500)
    start = jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: task.reset(key=key)[0]))(keys))
    gaps = np.diff(start.arrival, axis=1)
    assert not start.arrival[:, 0].any() and abs(gaps.mean() - 1.0) < 4.0 / np.sqrt(gaps.size)
    there = start.left > 0
    assert set(np.unique(start.left)) == {0, 1, 2, 3, 4}
    # Stages of a job follow each other without a hole, and from one to four are as frequent.
    stages = there.sum(2)
    assert all((np.sort(there, axis=2)[:, :, ::-1] == there).ravel())
    np.testing.assert_allclose(np.bincount(stages.ravel())[1:] / stages.size, 0.25, atol=0.03)
    logarithm = np.log(start.seconds[there])
    assert abs(logarithm.mean()) < 0.06 and abs(logarithm.var() - 1.25) < 0.1
    assert not np.triu(start.needs.any((0, 1))).any()
    both = there[:, :, 1] & start.needs[:, :, 1, 0]
    assert abs(both.sum() / there[:, :, 1].sum() - 0.4) < 0.03


def test_the_longest_way_is_that_of_a_walk_over_all_of_them():
    start = jax.tree.map(np.asarray, TASK.reset(key=jax.random.key(3))[0])
    own = np.where(start.left > 0, start.seconds * np.ceil(start.left / TASK.executors), 0.0)

    def longest(job, stage):
        after = [longest(job, each) for each in range(3) if start.needs[job, each, stage]]
        return own[job, stage] + max(after, default=0.0)

    known = [[longest(job, stage) for stage in range(3)] for job in range(4)]
    np.testing.assert_allclose(start.path, known, rtol=1e-6)


def test_what_cannot_run_stands_for_the_next_that_can():
    runnable = jnp.asarray([False, True, False, False, True, False])
    found = [int(next_runnable(runnable, jnp.asarray(action))) for action in range(6)]
    assert found == [1, 1, 4, 4, 4, 1]


def test_it_keeps_the_rules_of_environments_and_says_what_it_refuses():
    check_environment(TASK)
    for wrong, reason in (
        ({"jobs": 0}, "jobs = 0 must be at least 1"),
        ({"interval": -1.0}, "interval = -1 must not be below 0"),
        ({"dependence": 1.5}, "dependence = 1.5 must be within"),
    ):
        with pytest.raises(SpecificationError, match=f"job-scheduling: {reason}"):
            JobScheduling(**wrong)


def test_no_two_stages_of_one_chain_run_at_once(walk):
    start, _, _, (_, running) = jax.tree.map(np.asarray, walk(jax.random.key(9)))
    active = running > 0
    for job in range(4):
        for stage, other in pairwise(range(3)):
            if start.needs[job, other, stage]:
                assert not (active[:, job, stage] & active[:, job, other]).any()
