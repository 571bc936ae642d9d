"""Rules by which clusters schedule jobs: by arrival, fair shares, rest of the work, or paths."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from headwater.core.method import AbstractPolicy
from headwater.environments.systems.job_scheduling import JobScheduling, Queue


class FirstInFirstOut(AbstractPolicy):
    """The job that came first, whole, before the next (Spark's default).

    State and key are not looked at.

    **Arguments:** `task`: whose observations are read.
    """

    task: JobScheduling = eqx.field(static=True, default=JobScheduling())

    def __call__(self, observation: Float[Array, " observation"]) -> Int[Array, ""]:
        """The stage for an observation of the task."""
        return _least(self.task.queue(observation), jnp.zeros(self.task.jobs))

    def act(self, state: PyTree, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return self(observation), ()


class FairShare(AbstractPolicy):
    """The job that has the fewest executors for its weight, its work to the power `exponent`.

    With 0 all jobs get as many; below it short jobs get more. Decima's strongest rule has the
    exponent that is best on its jobs. State and key are not looked at.

    **Arguments:** `exponent`: see above; `task`: whose observations are read.
    """

    exponent: float = 0.0
    task: JobScheduling = eqx.field(static=True, default=JobScheduling())

    def __call__(self, observation: Float[Array, " observation"]) -> Int[Array, ""]:
        """The stage for an observation of the task."""
        seen = self.task.queue(observation)
        weight = jnp.maximum(_work(seen), 1e-3) ** self.exponent
        return _least(seen, (jnp.sum(seen.running, axis=1) + 1.0) / weight)

    def act(self, state: PyTree, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return self(observation), ()


class ShortestJobFirst(AbstractPolicy):
    """The job of which the least work is left. State and key are not looked at.

    **Arguments:** `task`: whose observations are read.
    """

    task: JobScheduling = eqx.field(static=True, default=JobScheduling())

    def __call__(self, observation: Float[Array, " observation"]) -> Int[Array, ""]:
        """The stage for an observation of the task."""
        seen = self.task.queue(observation)
        return _least(seen, _work(seen))

    def act(self, state: PyTree, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return self(observation), ()


class CriticalPath(AbstractPolicy):
    """The stage from which the longest way leads to the end of its job.

    State and key are not looked at.

    **Arguments:** `task`: whose observations are read.
    """

    task: JobScheduling = eqx.field(static=True, default=JobScheduling())

    def __call__(self, observation: Float[Array, " observation"]) -> Int[Array, ""]:
        """The stage for an observation of the task."""
        seen = self.task.queue(observation)
        return jnp.argmax(jnp.where(seen.runnable, seen.path, -1.0)).astype(jnp.int32)

    def act(self, state: PyTree, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return self(observation), ()


def _work(seen: Queue) -> Float[Array, " job"]:
    """Seconds of one executor that a job still takes, tasks that are being run as whole ones."""
    return jnp.sum((seen.left + seen.running) * seen.seconds, axis=1)


def _least(seen: Queue, value: Float[Array, " job"]) -> Int[Array, ""]:
    """Of the jobs that can run something, that with the least value; its stage by the way left."""
    job = jnp.argmin(jnp.where(jnp.any(seen.runnable, axis=1), value, jnp.inf))
    stage = jnp.argmax(jnp.where(seen.runnable[job], seen.path[job], -1.0))
    return (job * seen.runnable.shape[1] + stage).astype(jnp.int32)
