"""What explorers that learn a low-rank model share: their state, and how the model is fitted.

A step takes the method itself for its `settings`: each of these methods has the hyper-parameters
that `LowRankSettings` lists, as fields with defaults of its own.
"""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.finite import FiniteProblem
from headwater.ops.linear.low_rank import Factors, Oracle, first_factors, fit_steps, require_rank
from headwater.ops.tabular.counts import Counts, no_counts


class LowRankExploration(eqx.Module):
    """Counts and factors (`factors.feature` is the representation), and where to explore next."""

    counts: Counts
    factors: Factors
    explorer: Float[Array, "*task horizon state action"]
    updates: Int[Array, ""]
    problem: FiniteProblem


@runtime_checkable
class LowRankSettings(Protocol):
    """The hyper-parameters that the steps below read from a method."""

    @property
    def rank(self) -> int: ...
    @property
    def oracle(self) -> Oracle: ...
    @property
    def smoothing(self) -> float: ...
    @property
    def num_restarts(self) -> int: ...


def begin_low_rank(
    settings: LowRankSettings,
    problem: FiniteProblem,
    method: str,
    *,
    tasks: int | None = None,
    key: PRNGKeyArray,
) -> LowRankExploration:
    """The state before any data: features at random, and uniform exploration.

    **Arguments:** `method`: its name, for errors; `tasks`: how many, if counts and policies have an
    axis for them.

    Raises `SpecificationError` if first states are not known or the rank does not fit.
    """
    problem.require_initial(method)
    require_rank(settings.rank, problem, method)
    lead = () if tasks is None else (tasks,)
    counts = jax.tree.map(lambda x: jnp.zeros((*lead, *x.shape), x.dtype), no_counts(problem))
    return LowRankExploration(
        counts,
        first_factors(settings.rank, tasks or 1, problem, key=key),
        jnp.full((*lead, *problem.sizes), 1.0 / problem.actions, jnp.float32),
        jnp.zeros((), jnp.int32),
        problem,
    )


def likeliest_factors(
    settings: LowRankSettings,
    following: Int[Array, "task horizon state action state"],
    previous: Factors,
    *,
    key: PRNGKeyArray,
) -> Factors:
    """The factors of all steps that are likeliest for these counts of next states."""
    return fit_steps(
        following.astype(jnp.float32),
        previous,
        oracle=settings.oracle,
        smoothing=settings.smoothing,
        restarts=settings.num_restarts,
        key=key,
    )


def log_class_sizes(
    rank: int, problem: FiniteProblem, updates: Int[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""$\ln|\Phi|$, exact for kinds, and $\ln|\Psi|$, of a net that gets finer with `updates`."""
    _, states, actions = problem.sizes
    features = states * actions * jnp.log(float(rank))
    return features, rank * states * jnp.log1p(updates.astype(jnp.float32))
