"""Tasks that are linear in the same few features, which are unknown functions of what is seen."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.hypotheses import FiniteTask


def shared_feature_tasks(
    *,
    tasks: int = 20,
    states: int = 40,
    actions: int = 5,
    horizon: int = 3,
    feature_size: int = 10,
    rank: int = 3,
    concentration: float = 0.1,
    sharpness: float = 4.0,
    shared: bool = True,
    key: PRNGKeyArray,
) -> FiniteTask:
    r"""Stacked tasks, linear in $\phi(x)$ where only $x$ is seen: the problem's `features`.

    A state and an action show $x$, standard normal, the same at every step and in every task.
    $\phi_k = |u_k \cdot x|^p / \sum_j |u_j \cdot x|^p$ with orthonormal $u_k$. Next states are
    drawn from $\sum_k \phi_k \mu_k$ and rewards are one with probability $\sum_k \phi_k \theta_k$,
    else zero: $\mu$, Dirichlet, and $\theta$, uniform and stretched to reach from zero to one, are
    each task's and step's own.

    **Arguments:** `feature_size`: of x; `rank`: of φ, at most `feature_size`; `concentration`: of
    the Dirichlet distributions; `sharpness`: p; `shared`: if false, every task has its own $u$ (a
    control).

    Raises `SpecificationError` for sizes below one, a rank above `feature_size`, or a concentration
    or sharpness that is not above zero.
    """
    sizes = {"tasks": tasks, "states": states, "actions": actions, "horizon": horizon}
    for name, size in {**sizes, "feature_size": feature_size, "rank": rank}.items():
        if size < 1:
            raise SpecificationError(f"{name} = {size} must be at least one")
    if rank > feature_size:
        raise SpecificationError(
            f"rank = {rank}: there are no more orthogonal directions than features, {feature_size}"
        )
    for name, value in {"concentration": concentration, "sharpness": sharpness}.items():
        if not value > 0.0:
            raise SpecificationError(f"{name} = {value:g} must be above zero")
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    seen = random.normal(size=(states, actions, feature_size))
    processes = []
    directions = _directions(random, feature_size, rank)
    for _ in range(tasks):
        own = directions if shared else _directions(random, feature_size, rank)
        power = np.abs(seen @ own) ** sharpness
        feature = power / power.sum(axis=-1, keepdims=True)
        measure = random.dirichlet(np.full(states, concentration), (horizon, rank))
        weight = random.random((horizon, rank))
        low, high = weight.min(axis=1, keepdims=True), weight.max(axis=1, keepdims=True)
        weight = (weight - low) / np.where(high > low, high - low, 1.0)
        processes.append(
            FiniteProcess.from_arrays(
                np.einsum("sak,hkt->hsat", feature, measure),
                np.clip(np.einsum("sak,hk->hsa", feature, weight), 0.0, 1.0),
                np.full(states, 1.0 / states),
                noisy=True,
            )
        )
    process = jax.tree.map(lambda *x: jnp.stack(x), *processes)
    features = jnp.broadcast_to(jnp.asarray(seen, jnp.float32), (tasks, horizon, *seen.shape))
    return FiniteTask(dataclasses.replace(process.problem(), features=features), process)


def _directions(random: np.random.Generator, size: int, rank: int) -> np.ndarray:
    return np.linalg.qr(random.normal(size=(size, size)))[0][:, :rank]
