"""Classes of value functions: those that models imply, and what methods read of them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.hypotheses import ValueClass
from headwater.ops.tabular.planning import optimal_values


def value_class_of(models: FiniteProcess, problem: FiniteProblem) -> ValueClass:
    """Optimal action values of each model, and every backup of one of them by another.

    Realizable and complete if the true process is among the models. Backups that agree at a step
    are kept once; steps with fewer of them than others repeat one.

    **Arguments:** `models`: stacked along a leading axis; `problem`: the true one.

    Raises `SpecificationError` if the models are not stacked or not of the problem's sizes.
    """
    if models.reward.ndim != 4 or models.reward.shape[1:] != problem.sizes:
        raise SpecificationError(
            f"models have rewards of shape {models.reward.shape}: it must be (models, "
            f"*{problem.sizes}), for the problem's horizon, states and actions"
        )
    plan = jax.vmap(optimal_values)(models)
    transition = np.asarray(models.transition, np.float64)
    reward, after = np.asarray(models.reward, np.float64), np.asarray(plan.value, np.float64)
    backups = []
    for step in range(problem.horizon):
        # Thinned before and after: many models share a row or a value.
        value = np.unique(np.round(after[:, step + 1], 6), axis=0)
        every = reward[:, None, step] + np.einsum("msat,ct->mcsa", transition[:, step], value)
        flat = every.reshape(-1, problem.states * problem.actions)
        backups.append(np.unique(np.round(flat, 6), axis=0))
    most = max(len(found) for found in backups)
    padded = [found[np.minimum(np.arange(most), len(found) - 1)] for found in backups]
    helpers = np.stack(padded, axis=1).reshape(most, *problem.sizes)
    return ValueClass.from_arrays(problem, plan.action_value, helpers)


def first_values(problem: ValueClass) -> Float[Array, " candidate"]:
    """What each candidate promises from where episodes start."""
    initial = problem.problem.require_initial("A class of value functions")
    return jnp.max(problem.candidates[:, 0], axis=-1) @ initial


def following_values(problem: ValueClass) -> Float[Array, "horizon state candidate"]:
    """What each candidate promises from the next step on; nothing after the last one."""
    value = jnp.moveaxis(jnp.max(problem.candidates, axis=-1), 0, -1)
    return jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])


def most_optimistic(
    problem: ValueClass,
    alive: Bool[Array, " candidate"],
    contradiction: Float[Array, " candidate"],
) -> Int[Array, ""]:
    """The candidate alive that promises most; if there is none, the one contradicted least."""
    best = jnp.argmax(jnp.where(alive, first_values(problem), -jnp.inf))
    return jnp.where(jnp.any(alive), best, jnp.argmin(contradiction)).astype(jnp.int32)
