"""A few rows of each task's log, kept for when the task is over, and how they are chosen."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.records import TaskLog
from headwater.ops.control.nearest import nearest_rows

Selection = Literal["model", "random", "reward"]
"""Which rows are kept. `model`: those nearest to rollouts of the learned policy in a learned model;
`random`: any; `reward`: those with the highest rewards."""

_SMALLEST_DEVIATION = 1e-6


class KeptExperience(eqx.Module):
    """What was observed and done in the rows kept of each task; zero of tasks that are to come."""

    observation: Float[Array, "task row observation"]
    action: Float[Array, "task row action"]

    @classmethod
    def empty(cls, tasks: int, rows: int, observations: int, actions: int) -> "KeptExperience":
        """Room for `rows` rows of each of `tasks` tasks."""
        return cls(jnp.zeros((tasks, rows, observations)), jnp.zeros((tasks, rows, actions)))

    def with_task(
        self, task: Int[Array, ""], log: TaskLog, chosen: Int[Array, " row"]
    ) -> "KeptExperience":
        """With the `chosen` rows of the log of `task`."""
        return dataclasses.replace(
            self,
            observation=self.observation.at[task].set(log.rows.observation[chosen]),
            action=self.action.at[task].set(log.rows.action[chosen]),
        )

    def draw(
        self, known: Int[Array, ""], rows: int, *, key: PRNGKeyArray
    ) -> tuple[Int[Array, " row"], Float[Array, "row observation"], Float[Array, "row action"]]:
        """Rows of the first `known` tasks, each task as likely as every other, and of which task.

        Where none is known, rows of zeros.
        """
        task_key, row_key = jax.random.split(key)
        task = jax.random.randint(task_key, (rows,), 0, jnp.maximum(known, 1))
        row = jax.random.randint(row_key, (rows,), 0, self.observation.shape[1])
        return task, self.observation[task, row], self.action[task, row]


Step = Callable[[Float[Array, "row observation"]], Float[Array, "row observation"]]
"""From observations to where a policy leads from there, in a model."""


def choose_rows(
    selection: Selection,
    step: Step,
    log: TaskLog,
    count: int,
    *,
    rollout_steps: int,
    key: PRNGKeyArray,
) -> Int[Array, " row"]:
    """`count` rows of the log, chosen as `selection` says.

    **Arguments:** `step`, `rollout_steps`: see `rows_along_rollouts`.
    """
    if selection == "random":
        return rows_at_random(log, count, key=key)
    if selection == "reward":
        return rows_of_reward(log, count)
    return rows_along_rollouts(step, log, count, rollout_steps=rollout_steps, key=key)


def rows_at_random(log: TaskLog, count: int, *, key: PRNGKeyArray) -> Int[Array, " row"]:
    """`count` different rows of the log; some twice only if it has fewer."""
    total = len(log.rows.reward)
    return jax.random.permutation(key, total)[jnp.arange(count) % total]


def rows_of_reward(log: TaskLog, count: int) -> Int[Array, " row"]:
    """The `count` rows with the highest rewards; some twice only if the log has fewer."""
    total = len(log.rows.reward)
    return jnp.argsort(log.rows.reward, descending=True)[jnp.arange(count) % total]


def rows_along_rollouts(
    step: Step, log: TaskLog, count: int, *, rollout_steps: int, key: PRNGKeyArray
) -> Int[Array, " row"]:
    """`count` different rows that lie where rollouts lead; some twice only if the log has fewer.

    Rollouts begin where episodes do. Each step goes to the logged row whose observation is nearest
    to the next one, components counted in their deviations in the log, and goes on from that row,
    so that no error of the model adds up. Rows that were chosen before are passed over: where steps
    are shorter than rows are apart, a rollout would stay at one row for ever. Behind a terminal row
    another rollout begins.

    **Arguments:** `rollout_steps`: after which a rollout is cut.
    """
    logged = log.rows.observation
    deviation = jnp.std(logged, axis=0)
    # What never changes is of no use to tell rows by.
    varies = deviation > _SMALLEST_DEVIATION
    weight = jnp.where(varies, 1.0 / jnp.where(varies, deviation, 1.0), 0.0)
    places = logged * jnp.broadcast_to(weight, logged.shape)

    def start(key: PRNGKeyArray) -> Float[Array, " observation"]:
        return logged[log.starts[jax.random.randint(key, (), 0, len(log.starts))]]

    def advance(carry, given):
        point, taken = carry
        number, key = given
        left = jnp.where(jnp.broadcast_to(taken[:, None], places.shape), jnp.inf, places)
        row = nearest_rows((point * weight)[None], left)[0]
        ends = log.rows.terminal[row] | ((number + 1) % rollout_steps == 0)
        point = jnp.where(ends, start(key), step(logged[row][None])[0])
        taken = taken.at[row].set(True)
        return (point, taken & ~jnp.all(taken)), row

    first_key, key = jax.random.split(key)
    begun = start(first_key), jnp.zeros(len(logged), bool)
    return jax.lax.scan(advance, begun, (jnp.arange(count), jax.random.split(key, count)))[1]
