"""Choose which stage of which job gets the next free executor of a cluster."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, Step

_STAGE_FEATURES, _JOB_FEATURES = 5, 2
_NEVER = 1e9
"""Seconds at which nothing happens."""


class JobSchedulingState(eqx.Module):
    """The jobs, how far each is, and what every executor is at.

    `needs[job, stage, other]`: whether the stage waits for the other one; `left`: tasks that no
    executor has taken yet; `running`: tasks that are being run; `done_at[executor]`: when its task
    ends, `stage_of[executor]`: that it runs, a number of `[job, stage]`, and -1 where it is free.
    """

    arrival: Float[Array, " job"]
    seconds: Float[Array, "job stage"]
    needs: Bool[Array, "job stage stage"]
    path: Float[Array, "job stage"]
    left: Int[Array, "job stage"]
    running: Int[Array, "job stage"]
    time: Float[Array, ""]
    done_at: Float[Array, " executor"]
    stage_of: Int[Array, " executor"]


class Queue(NamedTuple):
    """What an observation of `JobScheduling` says. Jobs that are not there yet are all zeros.

    **Arguments:** `left`: tasks of a stage that no executor has taken; `running`: that are being
    run; `seconds`: that each takes; `path`: seconds of the longest way from the stage's beginning
    to the end of its job, each stage with all executors; `runnable`: whether it may be chosen;
    `there`: whether a job has come and not ended; `age`: seconds since it came; `free`: executors.
    """

    left: Float[Array, "*batch job stage"]
    running: Float[Array, "*batch job stage"]
    seconds: Float[Array, "*batch job stage"]
    path: Float[Array, "*batch job stage"]
    runnable: Bool[Array, "*batch job stage"]
    there: Bool[Array, "*batch job"]
    age: Float[Array, "*batch job"]
    free: Float[Array, "*batch"]


class JobScheduling(AbstractEnvironment):
    """Give free executors of a cluster to the stages of jobs that arrive (as Spark's scheduler).

    A job is a graph of stages: a stage can run when all that it waits for have ended, and holds
    tasks of equal length, of which each takes one executor until it ends. A step gives one free
    executor to one task: the action is the number of its stage, job after job in the order of
    their arrival. One that cannot run stands for the next that can, the first following the last.
    Time goes on when no executor is free or nothing can run, to where that has changed. Reward:
    minus the seconds that passed times the jobs that were there, over all jobs, so that the return
    is minus the mean time from a job's arrival to its end. Terminal when all jobs have ended.
    Observation: see `queue`.

    **Arguments:** `jobs`: of an episode; `stages`: that a job has at most; `tasks`: that a stage
    has at most; `executors`; `interval`: mean seconds between arrivals, which are exponential;
    `dependence`: probability that a stage waits for an earlier one of its job.

    A job has one to `stages` stages and a stage one to `tasks` tasks, drawn uniformly. Tasks take
    exp(j + 0.5 s) seconds, with j of the job and s of the stage drawn from N(0, 1).

    **Reference:** Mao et al. (2019), Learning scheduling algorithms for data processing clusters
    (Decima). **Differences:** made-up jobs instead of TPC-H's; every task is a decision instead of
    a limit of a job's executors; executors move between jobs at once, and tasks take what they are
    said to.

    Raises `SpecificationError` for a number below 1, an interval below zero, or a probability
    outside of [0, 1].
    """

    name: ClassVar[str] = "job-scheduling"
    reference_returns: ClassVar[None] = None

    jobs: int = eqx.field(static=True, default=8)
    stages: int = eqx.field(static=True, default=4)
    tasks: int = eqx.field(static=True, default=4)
    executors: int = eqx.field(static=True, default=5)
    interval: float | Float[Array, ""] = 1.0
    dependence: float | Float[Array, ""] = 0.4

    def __check_init__(self):
        for name in ("jobs", "stages", "tasks", "executors"):
            if getattr(self, name) < 1:
                raise SpecificationError(
                    f"{self.name}: {name} = {getattr(self, name)} must be at least 1"
                )
        if isinstance(self.interval, int | float) and not 0.0 <= self.interval < float("inf"):
            raise SpecificationError(
                f"{self.name}: interval = {self.interval:g} must not be below 0"
            )
        if isinstance(self.dependence, int | float) and not 0.0 <= self.dependence <= 1.0:
            raise SpecificationError(
                f"{self.name}: dependence = {self.dependence:g} must be within [0, 1]"
            )

    @property
    def spaces(self) -> Spaces:
        every = self.jobs * self.stages
        size = every * _STAGE_FEATURES + self.jobs * _JOB_FEATURES + 1
        return Spaces(
            Box((0.0,) * size, (float("inf"),) * size),
            Discrete(every),
            horizon=every * self.tasks,
        )

    def reset(self, *, key: PRNGKeyArray):
        keys = jax.random.split(key, 6)
        shape = (self.jobs, self.stages)
        gaps = self.interval * jax.random.exponential(keys[0], (self.jobs,))
        # Time begins with the first job.
        arrival = jnp.cumsum(gaps.at[0].set(0.0))
        tasks = jax.random.randint(keys[1], shape, 1, self.tasks + 1)
        used = jax.random.randint(keys[2], (self.jobs, 1), 1, self.stages + 1)
        length = jax.random.normal(keys[3], (self.jobs, 1))
        seconds = jnp.exp(length + 0.5 * jax.random.normal(keys[4], shape))
        waits = jax.random.bernoulli(keys[5], self.dependence, (*shape, self.stages))
        number = jnp.arange(self.stages)
        earlier = number[None, :] < number[:, None]
        there = jnp.broadcast_to(number, shape) < used
        left = jnp.where(there, tasks, 0)
        needs = waits & earlier[None] & there[:, :, None]
        state = JobSchedulingState(
            arrival=arrival,
            seconds=jnp.where(there, seconds, 0.0),
            needs=needs,
            path=self._paths(left, seconds, needs),
            left=left,
            running=jnp.zeros(shape, jnp.int32),
            time=jnp.zeros(()),
            done_at=jnp.full(self.executors, _NEVER),
            stage_of=jnp.full(self.executors, -1),
        )
        return state, self._observe(state)

    def step(self, state: JobSchedulingState, action: Array, *, key: PRNGKeyArray):
        chosen = next_runnable(self._runnable(state).reshape(-1), action)
        executor = jnp.argmax(state.stage_of < 0)
        one = jnp.zeros(state.left.size, jnp.int32).at[chosen].set(1).reshape(state.left.shape)
        state = eqx.tree_at(
            lambda s: (s.left, s.running, s.done_at, s.stage_of),
            state,
            (
                state.left - one,
                state.running + one,
                state.done_at.at[executor].set(state.time + state.seconds.reshape(-1)[chosen]),
                state.stage_of.at[executor].set(chosen),
            ),
        )
        waits = lambda carry: ~self._decides(carry[0]) & ~self._ended(carry[0])
        reached, waited = jax.lax.while_loop(waits, self._next_event, (state, jnp.zeros(())))
        terminal = self._ended(reached)
        return reached, Step(
            self._observe(reached), -waited / self.jobs, terminal, jnp.zeros((), bool)
        )

    def _next_event(self, carry):
        """Time goes to the next end of a task or arrival of a job."""
        state, waited = carry
        coming = jnp.where(state.arrival > state.time, state.arrival, _NEVER)
        time = jnp.minimum(jnp.min(state.done_at), jnp.min(coming))
        waited = waited + (time - state.time) * jnp.sum(self._there(state))
        ends = state.done_at <= time
        finished = jnp.zeros(state.left.size, jnp.int32)
        finished = finished.at[jnp.where(ends, state.stage_of, 0)].add(ends.astype(jnp.int32))
        state = eqx.tree_at(
            lambda s: (s.time, s.running, s.done_at, s.stage_of),
            state,
            (
                time,
                state.running - finished.reshape(state.running.shape),
                jnp.where(ends, _NEVER, state.done_at),
                jnp.where(ends, -1, state.stage_of),
            ),
        )
        return state, waited

    def _paths(self, left, seconds, needs) -> Float[Array, "job stage"]:
        """Seconds from the beginning of each stage to the end of its job, by the longest way."""
        rounds = -(-left // self.executors)
        own = jnp.where(left > 0, seconds * rounds, 0.0)
        path = own
        for stage in reversed(range(self.stages - 1)):
            after = jnp.max(jnp.where(needs[:, :, stage], path, 0.0), axis=1)
            path = path.at[:, stage].set(own[:, stage] + after)
        return path

    def _open(self, state: JobSchedulingState) -> Bool[Array, "job stage"]:
        """Stages that have not ended."""
        return (state.left > 0) | (state.running > 0)

    def _there(self, state: JobSchedulingState) -> Bool[Array, " job"]:
        return (state.arrival <= state.time) & jnp.any(self._open(state), axis=1)

    def _runnable(self, state: JobSchedulingState) -> Bool[Array, "job stage"]:
        blocked = jnp.any(state.needs & self._open(state)[:, None, :], axis=2)
        return (state.left > 0) & ~blocked & self._there(state)[:, None]

    def _decides(self, state: JobSchedulingState) -> Bool[Array, ""]:
        return jnp.any(state.stage_of < 0) & jnp.any(self._runnable(state))

    def _ended(self, state: JobSchedulingState) -> Bool[Array, ""]:
        return ~jnp.any(self._open(state))

    def _observe(self, state: JobSchedulingState) -> Float[Array, " observation"]:
        there = self._there(state)
        features = (state.left, state.running, state.seconds, state.path, self._runnable(state))
        shown = [jnp.where(there[:, None], x, 0.0).astype(jnp.float32) for x in features]
        age = jnp.where(there, state.time - state.arrival, 0.0)
        free = jnp.sum(state.stage_of < 0).astype(jnp.float32)
        parts = [*(x.reshape(-1) for x in shown), there.astype(jnp.float32), age, free[None]]
        return jnp.concatenate(parts)

    def queue(self, observation: Float[Array, "*batch observation"]) -> Queue:
        """The parts of an observation."""
        every = self.jobs * self.stages
        ends = [every * (number + 1) for number in range(_STAGE_FEATURES)]
        ends += [ends[-1] + self.jobs, ends[-1] + 2 * self.jobs]
        *stages, there, age, free = jnp.split(observation, ends, axis=-1)
        batch = observation.shape[:-1]
        left, running, seconds, path, runnable = (
            x.reshape(*batch, self.jobs, self.stages) for x in stages
        )
        return Queue(left, running, seconds, path, runnable > 0.5, there > 0.5, age, free[..., 0])


def next_runnable(runnable: Bool[Array, " stage"], action: Int[Array, ""]) -> Int[Array, ""]:
    """The first stage from `action` on that can run, the first of all following the last."""
    size = runnable.shape[0]
    distance = jnp.mod(jnp.arange(size) - action, size)
    return jnp.argmin(jnp.where(runnable, distance, size)).astype(jnp.int32)
