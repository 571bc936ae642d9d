"""Mixtures of experts: which of several feed-forward parts work on a token, and with what weight.

An expert's matrices are those of a feed-forward part with one more axis in front. Here one layer is
looked at; `networks/decoders/` goes through all of them.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

ExpertWeights = Literal["chosen", "all"]
"""What the outputs of the chosen experts are multiplied by: their probabilities among those chosen,
as in Mixtral, or among all experts, as in the Switch Transformer, whose single expert would
otherwise have weight one whatever the router says."""


class Routing(NamedTuple):
    """What a router decided for each token.

    **Arguments:** `probabilities`: of all experts; `chosen`: those that were asked; `weights`: of
    their outputs, zero for the others; `kept`: those of the chosen that had room for the token.
    """

    probabilities: Float[Array, "*layer token expert"]
    chosen: Bool[Array, "*layer token expert"]
    weights: Float[Array, "*layer token expert"]
    kept: Bool[Array, "*layer token expert"]


class Router(eqx.Module):
    """A linear map from tokens to logits of experts, of which the largest few are chosen.

    **Arguments:** `weight`; `active`: how many experts work on a token, which may change without
    another program; `weighting`: see `ExpertWeights`; `learned`: whether training may change it.
    """

    weight: Float[Array, "*layer width expert"]
    active: Int[Array, "*layer"]
    weighting: ExpertWeights = eqx.field(static=True)
    learned: bool = eqx.field(static=True, default=True)

    def __call__(self, x: Float[Array, "token width"]) -> Routing:
        """What is decided for each token of one layer; equal logits go to the first expert."""
        logits = x.astype(jnp.float32) @ self.weight.astype(jnp.float32)
        chosen = largest(logits, self.active)
        probabilities = jax.nn.softmax(logits)
        weights = jnp.where(chosen, probabilities, 0.0)
        if self.weighting == "chosen":
            weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
        return Routing(probabilities, chosen, weights, chosen)


def largest(
    logits: Float[Array, "token expert"], active: int | Int[Array, ""]
) -> Bool[Array, "token expert"]:
    """The `active` largest for each token; of equal ones the first."""
    order = jnp.argsort(-logits, axis=-1, stable=True)
    return jnp.argsort(order, axis=-1) < active


def fresh_router(
    width: int,
    experts: int,
    active: int,
    weighting: ExpertWeights,
    *,
    key: PRNGKeyArray,
    layers: tuple[int, ...] = (),
) -> Router:
    """A router as the Switch Transformer begins with: normal, of variance 0.1 / width."""
    weight = math.sqrt(0.1 / width) * jax.random.normal(key, (*layers, width, experts))
    return Router(weight, jnp.full(layers, active, jnp.int32), weighting)


def mixed(
    experts: Callable[[Float[Array, "expert token width"]], Float[Array, "expert token width"]],
    routing: Routing,
    x: Float[Array, "token width"],
) -> Float[Array, "token width"]:
    """The weighted sum of what experts make of each token, every expert computed for all tokens."""
    count = routing.weights.shape[-1]
    found = experts(jnp.broadcast_to(x, (count, *x.shape)))
    return jnp.einsum("etw,te->tw", found, routing.weights.astype(x.dtype))


def dispatched(
    experts: Callable[[Float[Array, "expert token width"]], Float[Array, "expert token width"]],
    routing: Routing,
    x: Float[Array, "token width"],
    slots: int,
) -> tuple[Float[Array, "token width"], Routing]:
    """The same where each expert has room for `slots` tokens and computes no more.

    The first tokens that choose an expert get its room. A token that finds none is left to the
    others that it chose, or to nobody: then nothing is added to it.

    **Returns:** the sum, and the routing with what was kept.
    """
    tokens = x.shape[0]
    slots = min(slots, tokens)
    place = jnp.cumsum(routing.chosen, axis=0) - 1
    kept = routing.chosen & (place < slots)
    # For each expert its tokens, in their order, and after them any others, which weigh nothing.
    taken = jnp.argsort(~kept.T, axis=-1, stable=True)[:, :slots]
    weights = jnp.where(kept, routing.weights, 0.0).T
    weights = jnp.take_along_axis(weights, taken, axis=-1).astype(x.dtype)
    found = experts(x[taken]) * weights[..., None]
    total = jnp.zeros_like(x).at[taken].add(found)
    return total, routing._replace(kept=kept)


def balance_loss(
    routing: Routing, counted: Bool[Array, " token"] | None = None
) -> Float[Array, ""]:
    r"""The Switch Transformer's loss of uneven loads: $E\sum_e f_e P_e$, averaged over layers.

    $f_e$ is the share of choices that fall on expert $e$, $P_e$ its average probability. It is 1
    where all are alike and $E$ where one expert gets everything; gradients go through $P_e$.

    **Arguments:** `counted`: tokens that count (default: all).
    """
    probabilities, chosen = routing.probabilities, routing.chosen.astype(jnp.float32)
    experts = probabilities.shape[-1]
    weight = jnp.ones(probabilities.shape[-2]) if counted is None else counted.astype(jnp.float32)
    weight = weight / jnp.maximum(jnp.sum(weight), 1.0)
    load = jnp.einsum("t,...te->...e", weight, chosen)
    load = load / jnp.maximum(jnp.sum(load, axis=-1, keepdims=True), 1e-9)
    average = jnp.einsum("t,...te->...e", weight, probabilities)
    return jnp.mean(experts * jnp.sum(load * average, axis=-1))
