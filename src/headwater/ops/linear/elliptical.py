"""How far a feature lies from what was seen: elliptical norms, and the covariances behind them.

A feature map of a finite process is an array `[state, action, feature]`, for each step; `jax.vmap`
takes several steps or tasks at once.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.ops.linear_algebra import cholesky, cholesky_solve, triangular_solve


def covariance(
    features: Float[Array, "*shape feature"],
    weight: Float[Array, "*shape"] | None = None,
    *,
    ridge: float | Float[Array, ""],
) -> Float[Array, "feature feature"]:
    r"""$\lambda I + \sum_i w_i \phi_i \phi_i^\top$.

    **Arguments:** `features`: any leading axes, summed over; `weight`: of each, such as how often
    it was seen; one if left out; `ridge`: λ, above zero.
    """
    rows = features.reshape(-1, features.shape[-1])
    weighted = rows if weight is None else rows * weight.reshape(-1, 1)
    return weighted.T @ rows + ridge * jnp.eye(rows.shape[-1], dtype=rows.dtype)


def elliptical_norm(
    features: Float[Array, "*shape feature"], covariance: Float[Array, "feature feature"]
) -> Float[Array, "*shape"]:
    r"""$\|\phi\|_{\Sigma^{-1}} = \sqrt{\phi^\top \Sigma^{-1} \phi}$ of every feature.

    **Arguments:** `features`: any leading axes; `covariance`: Σ, symmetric and positive definite.
    """
    rows = features.reshape(-1, features.shape[-1])
    # Through Σ's root the sum of squares cannot come out negative by rounding.
    root = cholesky(covariance)
    whitened = triangular_solve(root, rows.T)
    return jnp.sqrt(jnp.sum(jnp.square(whitened), axis=0)).reshape(features.shape[:-1])


def elliptical_bonus(
    features: Float[Array, "*shape feature"],
    covariance: Float[Array, "feature feature"],
    *,
    scale: float | Float[Array, ""],
    highest: float | Float[Array, ""],
) -> Float[Array, "*shape"]:
    r"""$\min\{\alpha \|\phi\|_{\Sigma^{-1}}, b_{\max}\}$.

    **Arguments:** `features`, `covariance`: as in `elliptical_norm`; `scale`: α; `highest`: what no
    bonus exceeds.
    """
    return jnp.minimum(scale * elliptical_norm(features, covariance), highest)


def ridge_weights(
    features: Float[Array, "*shape feature"],
    targets: Float[Array, "*shape"],
    covariance: Float[Array, "feature feature"],
    weight: Float[Array, "*shape"] | None = None,
) -> Float[Array, " feature"]:
    r"""$\Sigma^{-1} \sum_i w_i \phi_i y_i$: ridge regression of targets on features.

    **Arguments:** `features`, `weight`: as in `covariance`; `targets`: one for each feature;
    `covariance`: Σ of the same features and weights.
    """
    rows = features.reshape(-1, features.shape[-1])
    goals = targets if weight is None else targets * weight
    root = cholesky(covariance)
    return cholesky_solve(root, rows.T @ goals.reshape(-1))
