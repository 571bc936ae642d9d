"""Which rows of the data made a network predict what it predicts."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.analysis.registry import analysis
from headwater.core.errors import SpecificationError
from headwater.core.fields import check_choice
from headwater.core.method import AbstractLoss, Agent
from headwater.networks.mlp import MLP
from headwater.ops.linear_algebra import cholesky, cholesky_solve, symmetric_eigen

Curvature = Literal["ekfac", "kfac", "layers", "exact", "none"]
"""What stands for the Gauss–Newton matrix. `ekfac`: for each layer a Kronecker product of what goes
in and what comes back, with eigenvalues fitted to the gradients; `kfac`: with the product's own
eigenvalues; `layers`: exact within each layer, zero between layers; `exact`: all of it; `none`:
the identity, so that influence is the inner product of gradients."""

_BLOCK = 128
"""Rows whose gradients are held at once."""
_RANK_TOLERANCE = 1e-3
"""Share of a layer's squared gradient that may lie outside one outer product for each row."""


@analysis(paper="grosse2023influence")
def influence(
    agent: Agent,
    training: Any,
    queries: Any,
    *,
    curvature: Curvature = "ekfac",
    damping: float = 0.1,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "query row"]:
    r"""By how much a query's loss falls when a training row counts more, to first order.

    $I(q, i) = \nabla L_q^\top (G + \lambda)^{-1} \nabla L_i$, where $G$ is the Gauss–Newton matrix
    of the mean loss of the training rows. Divided by their number it is what one more copy of row i
    would take off the loss of q, were the network trained until nothing changes any more. Layers
    are those of the multilayer perceptrons that the loss depends on, weights with biases; other
    parameters are held fixed.

    **Arguments:** `agent`: a method that has losses (`AbstractLoss`) and what it learned;
    `training`, `queries`: data of its kind, with one leading axis; `curvature`: see `Curvature`
    (`exact` needs memory for the square of the number of parameters); `damping`: $\lambda$ as a
    share of the mean eigenvalue of $G$; `key`: for targets that cannot be enumerated, which are
    drawn from what was learned.

    **Differences from the paper:** targets that can be enumerated are, with their probabilities, in
    place of one drawn for each row; neither a filter nor low-rank queries for many candidates.

    Raises `SpecificationError` if the method has no losses, the loss depends on no multilayer
    perceptron, or a layer is used several times for one row.
    """
    check_choice(curvature, Curvature, "curvature")
    if not isinstance(agent.method, AbstractLoss):
        name = type(agent.method).__name__
        raise SpecificationError(f"influence needs a loss for each row, which {name} has not")
    if not damping > 0.0:
        raise SpecificationError(f"damping = {damping:g} must be positive")
    used = _used(agent, jax.tree.map(lambda x: x[0], training))
    if not used:
        raise SpecificationError(
            "influence is that of layers of multilayer perceptrons, and the loss depends on none"
        )
    key = jax.random.key(0) if key is None else key
    query_gradients = _gradients(agent, used, queries)
    solved = _solved(agent, used, training, query_gradients, curvature, damping, key)
    return jnp.concatenate([_products(agent, used, solved, rows) for rows in _blocks(training)], 1)


# Gradients --------------------------------------------------------------------------------------


def _layers(state: Any) -> list[Any]:
    """Weights and biases of each layer of each multilayer perceptron in `state`."""
    return [layer for n in _networks(state) for layer in zip(n.weights, n.biases, strict=True)]


def _networks(state: Any) -> list[MLP]:
    leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, MLP))
    return [leaf for leaf in leaves if isinstance(leaf, MLP)]


def _loss(agent: Agent, used: tuple[int, ...], layers: list[Any], row: Any):
    replaced = dict(zip(used, layers, strict=True))
    every = iter([replaced.get(i, layer) for i, layer in enumerate(_layers(agent.state))])

    def renewed(part):
        if not isinstance(part, MLP):
            return part
        weights, biases = zip(*(next(every) for _ in part.weights), strict=True)
        return eqx.tree_at(
            lambda network: (network.weights, network.biases), part, (weights, biases)
        )

    state = jax.tree.map(renewed, agent.state, is_leaf=lambda x: isinstance(x, MLP))
    assert isinstance(agent.method, AbstractLoss)
    return agent.method.losses(state, row)


def _used(agent: Agent, row: Any) -> tuple[int, ...]:
    """Which layers the loss looks at: the moments of an optimiser are layers, too."""
    layers = _layers(agent.state)
    every = tuple(range(len(layers)))
    program = jax.make_jaxpr(lambda layers: _loss(agent, every, layers, row))(layers).jaxpr
    read = {id(variable) for equation in program.eqns for variable in equation.invars}
    # Two arguments for each layer, weights first.
    return tuple(i for i in every if id(program.invars[2 * i]) in read)


@eqx.filter_jit
def _gradients(
    agent: Agent, used: tuple[int, ...], rows: Any
) -> list[Float[Array, "row input output"]]:
    """Of each row's loss, for each layer; the bias is the weight of one more input that is one."""
    layers = [_layers(agent.state)[i] for i in used]
    each = jax.vmap(jax.grad(lambda layers, row: _loss(agent, used, layers, row)), (None, 0))
    return [jnp.concatenate([w, b[:, None]], axis=1) for w, b in each(layers, rows)]


@eqx.filter_jit
def _possible(agent: Agent, used: tuple[int, ...], rows: Any, key: PRNGKeyArray):
    """Gradients `[target, row, input, output]` for every possible target, times the root of its
    probability."""
    assert isinstance(agent.method, AbstractLoss)
    targets, probability = agent.method.possible_targets(agent.state, rows, key=key)
    found = jax.lax.map(lambda rows: _gradients(agent, used, rows), targets)
    root = jnp.sqrt(probability)[..., None, None]
    return [gradient * jnp.broadcast_to(root, gradient.shape) for gradient in found]


@eqx.filter_jit
def _products(agent, used, solved, rows) -> Float[Array, "query row"]:
    found = _gradients(agent, used, rows)
    return jnp.sum(
        jnp.stack([jnp.einsum("qio,rio->qr", q, g) for q, g in zip(solved, found)]), axis=0
    )


def _blocks(data: Any) -> list[Any]:
    size = jax.tree.leaves(data)[0].shape[0]
    starts = range(0, size, _BLOCK)
    return [jax.tree.map(lambda x, i=i: x[i : i + _BLOCK], data) for i in starts]


# Curvature --------------------------------------------------------------------------------------


def _solved(agent, used, training, query_gradients, curvature, damping, key):
    """`query_gradients` multiplied by the inverse of the damped curvature."""
    if curvature == "none":
        return query_gradients
    blocks = _blocks(training)
    count = jax.tree.leaves(training)[0].shape[0]
    possible = [(agent, used, rows, jax.random.fold_in(key, i)) for i, rows in enumerate(blocks)]

    def mean(statistics):
        found = [statistics(_possible(*each)) for each in possible]
        return jax.tree.map(lambda *x: sum(x) / count, *found)

    if curvature in ("exact", "layers"):
        sizes = [gradient[0].size for gradient in query_gradients]
        groups = [range(len(used))] if curvature == "exact" else [[i] for i in range(len(used))]
        matrices = mean(lambda g: [_outer([g[i] for i in group]) for group in groups])
        shift = damping * sum(jnp.trace(m) for m in matrices) / sum(sizes)
        solved = []
        for group, matrix in zip(groups, matrices):
            right = jnp.concatenate(
                [query_gradients[i].reshape(len(query_gradients[i]), -1) for i in group], axis=1
            )
            root = cholesky(matrix + shift * jnp.eye(len(matrix)))
            rows = cholesky_solve(root, right.T).T
            ends = [sum(sizes[i] for i in group[: n + 1]) for n in range(len(group))]
            pieces = jnp.split(rows, ends[:-1], axis=1)
            solved += [piece.reshape(query_gradients[i].shape) for i, piece in zip(group, pieces)]
        return solved

    factors = mean(lambda g: [_factors(gradient) for gradient in g])
    for i, (_, _, _, squared, outside) in enumerate(factors):
        if float(outside) > _RANK_TOLERANCE * float(squared):
            raise SpecificationError(
                f"layer {i} is used several times for one row: influence needs layers that are "
                "used once"
            )
    known = [(a / share, s) for a, s, share, *_ in factors]
    eigen = [(symmetric_eigen(a), symmetric_eigen(s)) for a, s in known]
    bases = [(a[1], s[1]) for a, s in eigen]
    fitted = mean(lambda g: [_squares(x, basis) for x, basis in zip(g, bases)])
    shift = damping * sum(jnp.sum(f) for f in fitted) / sum(f.size for f in fitted)
    if curvature == "kfac":
        fitted = [jnp.maximum(a[0], 0)[:, None] * jnp.maximum(s[0], 0)[None] for a, s in eigen]
    return [_divided(q, basis, f + shift) for q, basis, f in zip(query_gradients, bases, fitted)]


def _outer(gradients: list[Array]) -> Float[Array, "parameter parameter"]:
    rows = [g.reshape(g.shape[0] * g.shape[1], -1) for g in gradients]
    together = jnp.concatenate(rows, axis=1)
    return together.T @ together


@jax.jit
def _factors(gradient: Float[Array, "target row input output"]):
    """Sums over the rows of what goes in and comes back, and whether a gradient is their product.

    The gradient of one layer used once is an outer product, whose last row, of the bias, is what
    comes back. Where nothing does, what went in is unknown, and the row does not count.
    """
    back = gradient[:, :, -1]
    weight = jnp.sum(back**2, axis=(0, 2))
    known = weight > 0.0
    inputs = jnp.einsum("trio,tro->ri", gradient, back)
    inputs = jnp.where(known[:, None], inputs / jnp.where(known, weight, 1.0)[:, None], 0.0)
    outside = jnp.sum((gradient - inputs[None, :, :, None] * back[:, :, None]) ** 2)
    return (
        inputs.T @ inputs,
        jnp.einsum("tro,trp->op", back, back),
        jnp.sum(known),
        jnp.sum(gradient**2),
        outside,
    )


@jax.jit
def _squares(gradient, basis) -> Float[Array, "input output"]:
    turned = jnp.einsum("trio,ij,op->trjp", gradient, *basis)
    return jnp.sum(turned**2, axis=(0, 1))


@jax.jit
def _divided(query_gradients, basis, eigenvalues) -> Float[Array, "query input output"]:
    turned = jnp.einsum("qio,ij,op->qjp", query_gradients, *basis)
    return jnp.einsum("qjp,ij,op->qio", turned / eigenvalues[None], *basis)
