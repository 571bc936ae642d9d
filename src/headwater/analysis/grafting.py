"""Which few of a tuned network's numbers its new skill is in."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from headwater.analysis.registry import analysis
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork
from headwater.decoding.merging import largest, largest_changes
from headwater.ops.language.tokens import averaged, token_log_probabilities

_NEAR = 4.0
"""A number that is in the mask at first, or out of it, is so by the sigmoid of this."""


@analysis(paper="panigrahi2023task")
def skill_mask(
    before: AbstractTokenNetwork,
    after: AbstractTokenNetwork,
    data: Completions,
    *,
    share: float = 0.01,
    steps: int = 100,
    learning_rate: float = 1.0,
) -> PyTree[Bool[Array, "..."]]:
    r"""Numbers of which as few as `share` make the network before tuning do what it does after.

    From the mask $\gamma_0$ of the largest changes,
    $\gamma = \gamma_0 + (1 - 2\gamma_0)\sigma(S - 4)$ is learned: $S$, zero at first, goes down the
    gradient of the loss on `data` of the network with $\theta_{before} + \gamma\Delta$. The
    largest $\gamma$ are the mask. With as many numbers as that, `grafted` makes the network.

    **Arguments:** `before`, `after`: of one form; `data`: of the skill; `share`: of all trainable
    numbers; `steps`: of plain gradient descent; `learning_rate`: what the number with the largest
    gradient moves in the first step (the authors take rates of up to 10^7 to the same end).

    **Returns:** a mask of the form of the network's trainable arrays.
    """
    first = largest_changes(before, after, share)
    return largest(_learned(before, after, data, first, steps, learning_rate), share)


@eqx.filter_jit
def _learned(
    before: AbstractTokenNetwork,
    after: AbstractTokenNetwork,
    data: Completions,
    first: PyTree[Bool[Array, "..."]],
    steps: int,
    learning_rate: float,
) -> PyTree[Float[Array, "..."]]:
    r"""The $\gamma$ of every number. **Arguments:** `first`: the mask at first."""
    numbers, fixed = eqx.partition(before, before.trainable())
    tuned = eqx.filter(after, before.trainable())
    response = jnp.asarray(data.response)

    def relaxed(scores):
        soft = jax.tree.map(lambda s: jax.nn.sigmoid(s - _NEAR), scores)
        return jax.tree.map(lambda m, s: jnp.where(m, 1.0 - s, s), first, soft)

    def loss(scores):
        mixed = jax.tree.map(
            lambda g, old, new: old + g.astype(old.dtype) * (new - old),
            relaxed(scores),
            numbers,
            tuned,
        )
        own = token_log_probabilities(eqx.combine(mixed, fixed), data)
        return -averaged(own, response, "token")

    scores = jax.tree.map(lambda x: jnp.zeros(x.shape), numbers)
    steepest = jnp.max(
        jnp.stack([jnp.max(jnp.abs(g)) for g in jax.tree.leaves(jax.grad(loss)(scores))])
    )
    rate = learning_rate / jnp.maximum(steepest, 1e-30)

    def step(scores, _):
        slopes = jax.grad(loss)(scores)
        return jax.tree.map(lambda s, g: s - rate * g, scores, slopes), None

    return relaxed(jax.lax.scan(step, scores, None, length=steps)[0])
