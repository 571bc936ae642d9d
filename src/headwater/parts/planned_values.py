"""What methods share that count what episodes show and plan with it, after each of them."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.finite import FiniteProblem
from headwater.core.method import Metrics
from headwater.core.records import Episodes
from headwater.ops.tabular.counts import Counts, certified_gap
from headwater.ops.tabular.planning import greedy_table


class PlannedValues(eqx.Module):
    """Counts, and the values of actions that were planned with them, of rewards in [0, 1]."""

    counts: Counts
    action_value: Float[Array, "horizon state action"]
    problem: FiniteProblem


def episode_metrics(
    data: Episodes,
    action_value: Float[Array, "horizon state action"],
    name: str,
    problem: FiniteProblem,
) -> Metrics:
    """Mean return, and under `name` what the plan promises from where the episodes began.

    **Arguments:** `action_value`: of rewards rescaled to [0, 1]; the metrics are not.
    """
    promised = jnp.mean(jnp.max(action_value[0], axis=-1)[data.state[..., 0]])
    return {
        "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
        name: problem.from_unit(promised, problem.horizon),
    }


def greedy_gap(
    counts: Counts,
    action_value: Float[Array, "horizon state action"],
    problem: FiniteProblem,
    failure_probability: float | Float[Array, ""],
) -> Float[Array, ""]:
    """By how much the greedy policy falls short at most, with the promised probability."""
    policy = greedy_table(action_value)[0]
    return certified_gap(counts, policy, problem, failure_probability)
