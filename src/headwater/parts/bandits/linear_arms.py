"""Ridge regression of rewards on what describes an arm, a pull at a time.

Where arms have features they share one set of weights; otherwise each arm has weights of its own.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls

_Context = Float[Array, " context"]
_Features = Float[Array, "arm feature"]


class LinearArms(eqx.Module):
    """Weights, and the inverses of the covariances behind them, for each group of arms.

    There is one group if the arms share their weights, else one for each arm.
    """

    weights: Float[Array, "group size"]
    inverse: Float[Array, "group size size"]
    pulls: Int[Array, ""]


class Estimates(eqx.Module):
    """Of each arm in one round: the expected reward, and the squared elliptical norm."""

    mean: Float[Array, " arm"]
    variance: Float[Array, " arm"]


def no_weights(problem: Arms, ridge: float | Float[Array, ""]) -> LinearArms:
    """Before any pull. `ridge`: λ of the covariances λI + Σ x xᵀ."""
    groups = 1 if problem.feature_size else problem.arms
    size = inputs_of(
        jnp.zeros(problem.context_size), jnp.zeros((problem.arms, problem.feature_size))
    ).shape[-1]
    inverse = jnp.broadcast_to(jnp.eye(size), (groups, size, size)) / ridge
    return LinearArms(jnp.zeros((groups, size)), inverse, jnp.zeros((), jnp.int32))


def inputs_of(context: _Context, features: _Features) -> Float[Array, "arm size"]:
    """What describes each arm in a round.

    Without features the context (or a one, if there is none either); with them, the features and
    their products with the context.
    """
    arms, size = features.shape
    if not size:
        own = context if context.shape[0] else jnp.ones(1)
        return jnp.broadcast_to(own, (arms, own.shape[0]))
    if not context.shape[0]:
        return features
    products = features[:, :, None] * context[None, None, :]
    return jnp.concatenate([features, products.reshape(arms, -1)], axis=1)


def estimates(state: LinearArms, context: _Context, features: _Features) -> Estimates:
    """What is believed of each arm."""
    inputs = inputs_of(context, features)
    if features.shape[1]:
        spread = jnp.sum((inputs @ state.inverse[0]) * inputs, axis=1)
        return Estimates(inputs @ state.weights[0], jnp.maximum(spread, 0.0))
    own = inputs[0]
    spread = jnp.einsum("gij,i,j->g", state.inverse, own, own)
    return Estimates(state.weights @ own, jnp.maximum(spread, 0.0))


def learn_weights(state: LinearArms, data: Pulls) -> tuple[LinearArms, Float[Array, ""]]:
    """After the pulls of a batch, one after the other; and their mean squared error beforehand."""
    shared = data.features.shape[-1] > 0

    def one(state: LinearArms, row: Pulls):
        own = inputs_of(row.context, row.features)[row.arm]
        group = jnp.zeros_like(row.arm) if shared else row.arm
        # Sherman and Morrison's formula: the inverse after one more row.
        turned = state.inverse[group] @ own
        gain = turned / (1.0 + own @ turned)
        error = row.reward - state.weights[group] @ own
        return LinearArms(
            state.weights.at[group].add(gain * error),
            state.inverse.at[group].add(-gain[:, None] * turned[None, :]),
            state.pulls + 1,
        ), None

    def error(row: Pulls):
        own = inputs_of(row.context, row.features)[row.arm]
        return row.reward - state.weights[jnp.zeros_like(row.arm) if shared else row.arm] @ own

    rows = Pulls(data.context, data.features, data.arm, data.reward, data.propensity)
    errors = jax.vmap(error)(rows)
    return jax.lax.scan(one, state, rows)[0], jnp.mean(errors**2)
