"""Least-squares value iteration: what has to be kept of the data, and the values fitted to it.

Ridge regression of `r + V(s')` on features only meets next states through the values of states, so
sums of features by next state are all that it needs: whatever the values become, the regression
over all data so far is exact, and costs the same however much data there is.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem
from headwater.core.records import Episodes
from headwater.ops.linear.elliptical import elliptical_norm
from headwater.ops.linear_algebra import cholesky, cholesky_solve
from headwater.ops.sums import CompensatedSum, add_all, no_sum

_BLOCK = 1024
"""Episodes of a log that are added at once."""


class FeatureSums(eqx.Module):
    r"""Sums over all steps seen, of each step of the horizon.

    **Arguments:** `covariance`: $\sum \phi \phi^\top$, without ridge; `following`: φ by
    next state; `reward`: $\sum \phi r$, of rewards rescaled to [0, 1].
    """

    covariance: CompensatedSum
    following: CompensatedSum
    reward: CompensatedSum


class FittedValues(eqx.Module):
    """What ridge regression makes of the sums.

    **Arguments:** `action_value`: clipped; `norm`: elliptical, of every feature.
    """

    action_value: Float[Array, "horizon state action"]
    norm: Float[Array, "horizon state action"]


def features_of(
    problem: FiniteProblem, method: str
) -> Float[Array, "horizon state action feature"]:
    """The features that the problem tells, else `one_hot_features`.

    Raises `SpecificationError`, naming `method`, if they do not fit the problem.
    """
    if problem.features is None:
        return one_hot_features(problem)
    return check_features(problem.features, problem, method)


def one_hot_features(problem: FiniteProblem) -> Float[Array, "horizon state action feature"]:
    """One feature for each state and action: what to use where nothing better is known."""
    horizon, states, actions = problem.sizes
    each = jnp.eye(states * actions).reshape(states, actions, -1)
    return jnp.broadcast_to(each, (horizon, *each.shape))


def check_features(
    features: Float[Array, "..."], problem: FiniteProblem, method: str
) -> Float[Array, "horizon state action feature"]:
    """The features in single precision. Raises `SpecificationError` if their shape is wrong."""
    if features.ndim != 4 or features.shape[:3] != problem.sizes:
        horizon, states, actions = problem.sizes
        raise SpecificationError(
            f"{method} got features of shape {features.shape}, but the problem has {horizon} steps,"
            f" {states} states and {actions} actions: they must be ({horizon}, {states}, {actions},"
            " features)"
        )
    return features.astype(jnp.float32)


def no_sums(features: Float[Array, "horizon state action feature"]) -> FeatureSums:
    """Before anything was seen."""
    horizon, states, _, size = features.shape
    return FeatureSums(
        no_sum((horizon, size, size)), no_sum((horizon, size, states)), no_sum((horizon, size))
    )


def add_episodes(
    sums: FeatureSums,
    features: Float[Array, "horizon state action feature"],
    data: Episodes,
    problem: FiniteProblem,
) -> FeatureSums:
    """Adds episodes of `problem`, any number of them."""
    steps = data.action.shape[-1]
    reward = problem.in_unit(jnp.asarray(data.reward))
    columns = (data.state[..., :-1], data.action, reward, data.state[..., 1:])
    columns = [jnp.asarray(column).reshape(-1, steps) for column in columns]
    rows = columns[0].shape[0]
    columns.append(jnp.ones((rows, steps)))
    step = jnp.arange(steps)

    def one(sums, block):
        state, action, reward, following, weight = block
        seen = features[step, state, action] * weight[..., None]
        square = jnp.einsum("nhf,nhg->hfg", seen, seen)
        led = jnp.zeros_like(sums.following.total).at[step, :, following].add(seen)
        reward_sums = jnp.einsum("nhf,nh->hf", seen, reward)
        return FeatureSums(
            add_all(sums.covariance, square),
            add_all(sums.following, led),
            add_all(sums.reward, reward_sums),
        ), None

    if rows <= _BLOCK:
        return one(sums, tuple(columns))[0]
    # A whole log's features at once would be large, and its sums would lose digits.
    short = -rows % _BLOCK
    padded = [jnp.pad(x, ((0, short), (0, 0))).reshape(-1, _BLOCK, steps) for x in columns]
    return jax.lax.scan(one, sums, tuple(padded))[0]


def fitted_values(
    sums: FeatureSums,
    features: Float[Array, "horizon state action feature"],
    reward: Float[Array, "horizon state action"] | None,
    *,
    ridge: float | Float[Array, ""],
    radius: float | Float[Array, ""],
    low: float | Float[Array, ""],
    high: float | Float[Array, ""] | Float[Array, " horizon"],
) -> FittedValues:
    r"""Least-squares value iteration.

    $Q_h = \mathrm{clip}(\phi^\top w_h + \beta \|\phi\|_{\Lambda_h^{-1}})$, $V_h = \max_a Q_h$,
    $w_h = \Lambda_h^{-1} \sum \phi (r + V_{h+1}(s'))$, $\Lambda_h = \lambda I + \sum \phi
    \phi^\top$.

    **Arguments:** `reward`: expected rewards where they are known, then added to $Q$ and left out
    of the regression; `ridge`: λ; `radius`: β: above zero for optimism, below for
    pessimism, zero for neither; `low`, `high`: what values are clipped to, `high` for all steps or
    one for each.
    """
    identity = jnp.eye(features.shape[-1], dtype=features.dtype)
    covariance = sums.covariance.total + (ridge * identity)[None]
    norm = jax.vmap(elliptical_norm)(features, covariance)
    root = jax.vmap(cholesky)(covariance)
    immediate = radius * norm
    regressed = sums.reward.total
    if reward is not None:
        immediate, regressed = immediate + reward, jnp.zeros_like(regressed)
    highest = jnp.broadcast_to(jnp.asarray(high, features.dtype), features.shape[:1])

    def one(value, step):
        features, root, following, regressed, immediate, highest = step
        weights = cholesky_solve(root, regressed + following @ value)
        action_value = jnp.clip(features @ weights + immediate, low, highest)
        return jnp.max(action_value, axis=-1), action_value

    steps = (features, root, sums.following.total, regressed, immediate, highest)
    start = jnp.zeros(features.shape[1], features.dtype)
    return FittedValues(jax.lax.scan(one, start, steps, reverse=True)[1], norm)
