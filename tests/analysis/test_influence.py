"""Influence against the damped Gauss–Newton matrix, computed from Jacobians."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.analysis.influence import influence
from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.iql import IQL
from headwater.testing import check_analysis

INPUTS, CLASSES, ROWS, DAMPING = 3, 4, 9, 0.1
SPACES = Spaces(Box((-1.0,) * INPUTS, (1.0,) * INPUTS), Discrete(CLASSES))


def _rows(count, seed, spaces=SPACES):
    random = np.random.default_rng(seed)
    observation = jnp.asarray(random.normal(size=(count, INPUTS)), jnp.float32)
    if spaces.discrete:
        action = jnp.asarray(random.integers(0, CLASSES, count), jnp.int32)
    else:
        action = jnp.asarray(random.uniform(-1, 1, (count, 2)), jnp.float32)
    zeros = jnp.zeros(count)
    return Transitions(observation, action, zeros, observation, zeros > 0, zeros > 0)


def _agent(*hidden_sizes, spaces=SPACES):
    method = BC(hidden_sizes=hidden_sizes)
    return Agent(method, method.init(spaces, key=jax.random.key(3)))


def _ours(agent, curvature="exact"):
    training, queries = _rows(ROWS, 0), _rows(5, 1)
    return {"agent": agent, "training": training, "queries": queries, "curvature": curvature}


def _jacobians(agent, data):
    """Of the logits, for each layer `[row, class, parameter]`, with the probabilities."""
    network = agent.state.actor.network

    def logits(layers, x):
        for i, (weight, bias) in enumerate(layers):
            x = jnp.dot(x, weight) + bias
            x = jax.nn.relu(x) if i < len(layers) - 1 else x
        return x

    layers = list(zip(network.weights, network.biases))
    each = jax.vmap(jax.jacrev(logits), (None, 0))(layers, data.observation)
    # Weight by weight and then the biases: the order of parameters within a layer is ours.
    found = [
        np.concatenate([np.reshape(x, (*x.shape[:2], -1)) for x in layer], -1, dtype=np.float64)
        for layer in each
    ]
    outputs = jax.vmap(logits, (None, 0))(layers, data.observation)
    return found, np.asarray(jax.nn.softmax(outputs), np.float64)


def _gauss_newton(agent, *, between_layers):
    training, queries = _rows(ROWS, 0), _rows(5, 1)
    (jacobian, probability), (asked, theirs) = (_jacobians(agent, x) for x in (training, queries))
    groups = [[*range(len(jacobian))]] if between_layers else [[i] for i in range(len(jacobian))]

    def gradient(slopes, probability, data):
        return np.einsum("rcp,rc->rp", slopes, probability - np.eye(CLASSES)[data.action])

    inner = np.einsum("rc,cd->rcd", probability, np.eye(CLASSES))
    inner = inner - np.einsum("rc,rd->rcd", probability, probability)
    slopes = [np.concatenate([jacobian[i] for i in group], -1) for group in groups]
    matrices = [np.einsum("rcp,rcd,rdq->pq", x, inner, x) / ROWS for x in slopes]
    shift = DAMPING * sum(map(np.trace, matrices)) / sum(map(len, matrices))
    answer = 0.0
    for group, slope, matrix in zip(groups, slopes, matrices):
        rows = gradient(slope, probability, training)
        query = gradient(np.concatenate([asked[i] for i in group], -1), theirs, queries)
        answer = answer + query @ np.linalg.solve(matrix + shift * np.eye(len(matrix)), rows.T)
    return answer


@pytest.mark.parametrize(("curvature", "between"), [("exact", True), ("layers", False)])
def test_it_is_that_of_the_gauss_newton_matrix(curvature, between):
    agent = _agent(5)
    check_analysis(
        influence,
        _ours(agent, curvature),
        _gauss_newton(agent, between_layers=between),
        rows={"training": 1, "queries": 0},
        rtol=1e-3,
    )


@pytest.mark.parametrize("curvature", ["ekfac", "kfac"])
def test_kronecker_factors_are_exact_where_all_rows_curve_alike(curvature):
    # Without weights every class is as probable in every row, so what comes back is independent of
    # what goes in, and the curvature is a Kronecker product.
    agent = _agent()
    layer = lambda a: (a.state.actor.network.weights[0], a.state.actor.network.biases[0])
    agent = eqx.tree_at(layer, agent, replace_fn=jnp.zeros_like)
    check_analysis(
        influence,
        _ours(agent, curvature),
        _gauss_newton(agent, between_layers=True),
        rows={"training": 1, "queries": 0},
        rtol=1e-3,
    )


def test_corrected_eigenvalues_are_the_mean_squares_in_the_basis_of_the_factors():
    agent = _agent(5)
    network, training, queries = agent.state.actor.network, _rows(ROWS, 0), _rows(5, 1)
    weights, biases = (jax.tree.map(np.asarray, x) for x in (network.weights, network.biases))

    def gone_through(data):
        """What goes into each layer, and what comes back of it for each class."""
        x = np.asarray(data.observation, np.float64)
        hidden = x @ weights[0] + biases[0]
        active = np.maximum(hidden, 0.0)
        output = active @ weights[1] + biases[1]
        p = np.exp(output) / np.exp(output).sum(1, keepdims=True)
        back = p[:, None] - np.eye(CLASSES)[None]  # [row, class, output]
        first = (back @ weights[1].T) * (hidden > 0)[:, None]
        ones = np.ones((len(x), 1))
        inputs = [np.concatenate([x, ones], 1), np.concatenate([active, ones], 1)]
        return p, list(zip(inputs, (first, back)))

    p, layers = gone_through(training)
    numbers = np.arange(ROWS)
    fitted, bases, sums, size = [], [], 0.0, 0
    for inputs, back in layers:
        _, left = np.linalg.eigh(inputs.T @ inputs / ROWS)
        _, right = np.linalg.eigh(np.einsum("rc,rco,rcp->op", p, back, back) / ROWS)
        gradients = np.einsum("ri,rco->rcio", inputs, back)
        turned = np.einsum("rcio,ij,op->rcjp", gradients, left, right)
        fitted.append(np.einsum("rc,rcjp->jp", p, turned**2) / ROWS)
        bases.append((left, right))
        sums, size = sums + fitted[-1].sum(), size + fitted[-1].size
    shift, expected = DAMPING * sums / size, 0.0
    _, asked = gone_through(queries)
    for (inputs, back), (theirs, answer), f, (left, right) in zip(layers, asked, fitted, bases):
        row = np.einsum("ri,ro->rio", inputs, back[numbers, np.asarray(training.action)])
        query = np.einsum("ri,ro->rio", theirs, answer[np.arange(5), np.asarray(queries.action)])
        row, query = (np.einsum("rio,ij,op->rjp", g, left, right) for g in (row, query))
        expected = expected + np.einsum("qjp,rjp->qr", query / (f + shift), row)
    check_analysis(influence, _ours(agent, "ekfac"), expected, rtol=1e-3)


def test_it_says_what_one_more_copy_does():
    """To a network without hidden layers, whose loss has one minimum, trained until it is there."""
    agent = _agent()
    training, queries = _rows(ROWS, 0), _rows(5, 1)
    x = jnp.concatenate([training.observation, jnp.ones((ROWS, 1))], 1)
    targets = jax.nn.one_hot(training.action, CLASSES)

    def losses(w, x, targets):
        return -jnp.sum(targets * jax.nn.log_softmax(x @ w), axis=-1)

    @jax.jit
    def trained(counts):
        # The penalty, whose second derivative is the damping, is what gives it a minimum.
        loss = lambda w: counts @ losses(w, x, targets) / ROWS + 0.05 * jnp.sum(w**2)
        w = jnp.zeros((INPUTS + 1, CLASSES))

        def newton(_, w):
            flat = jnp.reshape(jax.hessian(loss)(w), (w.size, w.size))
            return w - jnp.linalg.solve(flat, jax.grad(loss)(w).reshape(-1)).reshape(w.shape)

        return jax.lax.fori_loop(0, 12, newton, w)

    counts = jnp.ones(ROWS)
    w = trained(counts)
    layer = lambda a: (a.state.actor.network.weights[0], a.state.actor.network.biases[0])
    agent = eqx.tree_at(layer, agent, (w[:-1], w[-1]))
    asked = jnp.concatenate([queries.observation, jnp.ones((5, 1))], 1)
    wanted = jax.nn.one_hot(queries.action, CLASSES)
    before = losses(w, asked, wanted)
    step = 0.01
    fallen = [
        (before - losses(trained(counts.at[i].add(step)), asked, wanted)) * ROWS / step
        for i in range(ROWS)
    ]
    curvature = jax.hessian(lambda w: jnp.mean(losses(w, x, targets)))(w).reshape(w.size, w.size)
    damping = 0.1 / (jnp.trace(curvature) / w.size)  # The penalty's second derivative.
    found = influence(agent, training, queries, curvature="exact", damping=float(damping))
    expected = np.stack(fallen, axis=1)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_targets_that_cannot_be_enumerated_are_drawn_from_what_was_learned():
    spaces = Spaces(Box((-1.0,) * INPUTS, (1.0,) * INPUTS), Box((-1.0,) * 2, (1.0,) * 2))
    agent = _agent(spaces=spaces)
    training, queries = _rows(4_000, 0, spaces), _rows(3, 1, spaces)
    found = influence(agent, training, queries, curvature="exact")
    x = np.concatenate([training.observation, np.ones((4_000, 1))], 1)
    network = agent.state.actor.network
    w = np.concatenate([network.weights[0], network.biases[0][None]])
    slope = 1 - np.tanh(x @ w) ** 2
    # The loss is the mean of two squares: its second derivative is one for each.
    matrix = np.zeros((8, 8))
    for j in range(2):
        rows = x * slope[:, j : j + 1]
        matrix[j::2, j::2] = rows.T @ rows / len(x)

    def gradient(data):
        inputs = np.concatenate([data.observation, np.ones((len(data.action), 1))], 1)
        output = np.tanh(inputs @ w)
        back = (output - data.action) * (1 - output**2)
        return np.einsum("ri,ro->rio", inputs, back).reshape(len(inputs), 8)

    shift = DAMPING * np.trace(matrix) / 8
    rows, asked = gradient(training), gradient(queries)
    expected = asked @ np.linalg.solve(matrix + shift * np.eye(8), rows.T)
    assert np.corrcoef(np.ravel(found), np.ravel(expected))[0, 1] > 0.99


def test_what_it_cannot_do_is_said():
    training = _rows(4, 0)
    method = IQL(hidden_sizes=(4,))
    continuous = Spaces(SPACES.observation, Box((-1.0,), (1.0,)))
    agent = Agent(method, method.init(continuous, key=jax.random.key(0)))
    with pytest.raises(SpecificationError, match="a loss for each row, which IQL has not"):
        influence(agent, training, training)
    with pytest.raises(SpecificationError, match="damping = 0 must be positive"):
        influence(_agent(5), training, training, damping=0.0)
