"""Linear processes: transitions and rewards are linear in features of a state and an action."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import DataError, SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess


class LinearProcess(eqx.Module):
    r"""A finite process with the features in which it is linear.

    $P_h(s'|s,a) = \phi_h(s,a)^\top \mu_h(s')$ and $r_h(s,a) = \phi_h(s,a)^\top \theta_h$.

    **Arguments:** `process`: with the arrays multiplied out; `features`: φ, with norms of at most
    one; `measure`: μ; `weight`: θ.
    """

    process: FiniteProcess
    features: Float[Array, "horizon state action feature"]
    measure: Float[Array, "horizon feature state"]
    weight: Float[Array, "horizon feature"]

    def problem(self, *, known_reward: bool = False) -> FiniteProblem:
        """What a method is told: sizes, first states, features, and rewards if they are known."""
        problem = self.process.problem(known_reward=known_reward)
        return dataclasses.replace(problem, features=self.features)


def linear_process(
    features: Any, measure: Any, weight: Any, initial: Any = 0, *, noisy: bool = False
) -> LinearProcess:
    """The process that is linear in these features, checked.

    **Arguments:** `features`: `[horizon, state, action, feature]`, or without `horizon` where they
    are the same at every step; `measure`: `[horizon, feature, next state]`; `weight`: of rewards,
    `[horizon, feature]`; `initial`: distribution of first states, or the one state where every
    episode starts; `noisy`: draw rewards as zero or one.

    Raises `SpecificationError` if shapes do not fit together, and `DataError`, with the place, if a
    feature is longer than one, or if a product is no distribution or no reward in [0, 1].
    """
    measure, weight = _numbers("measure", measure, 3), _numbers("weight", weight, 2)
    features = _numbers("features", features, np.ndim(features) if np.ndim(features) == 3 else 4)
    horizon, size, states = measure.shape
    if features.ndim == 3:
        features = np.broadcast_to(features, (horizon, *features.shape))
    expected = (horizon, states, features.shape[2], size)
    if features.shape != expected:
        raise SpecificationError(
            f"features have shape {features.shape}, but measure has {horizon} steps, {size} "
            f"features and {states} states: they must be ({horizon}, {states}, actions, {size})"
        )
    if weight.shape != (horizon, size):
        raise SpecificationError(
            f"weight has shape {weight.shape}, but measure has {horizon} steps and {size} features:"
            f" it must be ({horizon}, {size})"
        )
    norms = np.linalg.norm(features, axis=-1)
    if (norms > 1.0 + 1e-5).any():
        at = tuple(np.argwhere(norms > 1.0 + 1e-5)[0].tolist())
        raise DataError(
            f"features: the norm at step {at[0]}, state {at[1]}, action {at[2]} is {norms[at]:.5g},"
            " but must be at most 1: divide all features by the largest norm and multiply measure "
            "and weight by it"
        )
    transition = np.einsum("hsad,hdt->hsat", features, measure)
    # Products of measures with signs may fall short of zero by rounding.
    transition = np.where(np.abs(transition) < 1e-9, 0.0, transition)
    reward = np.einsum("hsad,hd->hsa", features, weight)
    reward = np.where(np.abs(reward) < 1e-9, 0.0, reward)
    reward = np.where(np.abs(reward - 1.0) < 1e-6, 1.0, reward)
    process = FiniteProcess.from_arrays(
        transition, reward, initial, reward_range=(0.0, 1.0), noisy=noisy
    )
    parts = (jnp.asarray(part, jnp.float32) for part in (features, measure, weight))
    return LinearProcess(process, *parts)


def random_linear_process(
    *,
    states: int,
    actions: int,
    horizon: int,
    features: int,
    concentration: float = 0.3,
    measure_concentration: float = 0.3,
    noisy: bool = False,
    key: PRNGKeyArray,
) -> LinearProcess:
    """A linear process drawn at random.

    Features, and for every step and feature a measure over next states, come from symmetric
    Dirichlet distributions, so that every product is a distribution; the weights of rewards are
    uniform between zero and one. Features are the same at every step. Episodes start anywhere.

    **Arguments:** `features`: how many; `concentration`: of the features' distribution, a small one
    makes each pair nearly of one kind; `measure_concentration`: of the measures'; `noisy`: draw
    rewards as zero or one.

    Raises `SpecificationError` for sizes below one or concentrations that are not above zero.
    """
    _require_sizes(states=states, actions=actions, horizon=horizon, features=features)
    for name, value in (
        ("concentration", concentration),
        ("measure_concentration", measure_concentration),
    ):
        if not value > 0.0:
            raise SpecificationError(f"{name} = {value:g} must be above zero")
    draw = _generator(key)
    simplex = draw.dirichlet(np.full(features, concentration), (states, actions))
    measure = draw.dirichlet(np.full(states, measure_concentration), (horizon, features))
    weight = draw.uniform(size=(horizon, features))
    return linear_process(simplex, measure, weight, np.full(states, 1.0 / states), noisy=noisy)


def linear_lock(
    *,
    states: int,
    actions: int,
    horizon: int,
    features: int = 4,
    open_share: float = 0.5,
    slip: float = 0.0,
    key: PRNGKeyArray,
) -> LinearProcess:
    """A combination lock with many states but few features.

    At every step some states are open, the others stuck. Each open state has one right action,
    whose feature is the first vertex of the simplex: it leads to an open state of the next step,
    whichever. All other pairs have one of the other vertices, which lead to stuck states only.
    Which states are open, which action is right in each, the features and the measures are drawn
    from `key`, anew for every step. The last right action earns one. Episodes start in an open
    state. The best return is `(1 - slip)^(horizon - 1)`.

    Its features make it as hard as a lock with two states, however many it has; to a learner that
    tells states apart it is harder the more there are.

    **Arguments:** `features`: how many, at least two; `open_share`: how many of the states are
    open; `slip`: probability that a right action leads to a stuck state.

    Raises `SpecificationError` for sizes that are too small, or shares that leave no state open or
    none stuck.
    """
    _require_sizes(actions=actions, horizon=horizon)
    if features < 2 or states < 2:
        raise SpecificationError(
            f"a lock needs at least two features and two states, not {features} and {states}"
        )
    opened = round(open_share * states)
    if not 1 <= opened < states:
        raise SpecificationError(
            f"open_share = {open_share:g} leaves {opened} of {states} states open: at least one "
            "must be open and one stuck"
        )
    if not 0.0 <= slip <= 1.0:
        raise SpecificationError(f"slip = {slip:g} must be a probability")
    draw = _generator(key)
    phi = np.zeros((horizon, states, actions, features))
    # Vertices too: were they shorter than the right one, that would tell it apart unseen.
    phi[..., 1:] = np.eye(features - 1)[draw.integers(0, features - 1, phi.shape[:-1])]
    is_open = np.zeros((horizon + 1, states), bool)
    for step in range(horizon + 1):
        is_open[step, draw.choice(states, opened, replace=False)] = True
    right = draw.integers(0, actions, (horizon, states))
    measure = np.zeros((horizon, features, states))
    for step in range(horizon):
        here = np.flatnonzero(is_open[step])
        phi[step, here, right[step, here]] = np.eye(features)[0]
        following = is_open[step + 1]
        stuck = draw.dirichlet(np.ones(states - opened), features)
        measure[step][:, ~following] = stuck
        measure[step, 0, ~following] *= slip
        measure[step, 0, following] = (1.0 - slip) * draw.dirichlet(np.ones(opened))
    weight = np.zeros((horizon, features))
    weight[-1, 0] = 1.0
    return linear_process(phi, measure, weight, is_open[0] / opened)


def _numbers(name: str, given: Any, axes: int) -> np.ndarray:
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise SpecificationError(f"{name} is not an array of numbers") from None
    if found.ndim != axes or 0 in found.shape:
        expected = {
            "features": "[horizon, state, action, feature] or [state, action, feature]",
            "measure": "[horizon, feature, next state]",
            "weight": "[horizon, feature]",
        }[name]
        raise SpecificationError(f"{name} has shape {found.shape}: it must be {expected}")
    if not np.isfinite(found).all():
        raise DataError(f"{name} holds a number that is not finite")
    return found


def _generator(key: PRNGKeyArray) -> np.random.Generator:
    # Instances are made on the host: nothing has to be compiled for them.
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise SpecificationError(f"{name} = {size} must be at least one")
