"""CRM: an update against NumPy, a known best policy, and what the level of rewards changes."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.methods.bandits.crm import CRM

from .rounds import rounds

ESTIMATORS = ("ips", "self_normalised", "doubly_robust")


def softmax(scores):
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def standardised(x, axes):
    """Over the rows, by the deviation of a sample."""
    x = np.asarray(x, float)
    count = np.prod([x.shape[i] for i in np.atleast_1d(axes)])
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).sum(axes, keepdims=True) / (count - 1) + 1e-8)


def linear(network, problem, data):
    """What a network without hidden layers says of each arm, in float64."""
    weight, bias = np.asarray(network.weights[0], float), np.asarray(network.biases[0], float)
    context, features = np.asarray(data.context, float), np.asarray(data.features, float)
    if not problem.feature_size:
        own = context if problem.context_size else np.ones((len(context), 1))
        return own @ weight + bias
    shown = np.repeat(context[:, None], problem.arms, axis=1)
    return (np.concatenate([shown, features], axis=-1) @ weight)[..., 0] + bias[0]


def said(estimator, chances, predicted, data, most):
    """What each row says of the policy's reward."""
    index, arm = np.arange(len(data.arm)), np.asarray(data.arm)
    reward = np.asarray(data.reward, float)
    weight = np.minimum(chances[index, arm] / np.asarray(data.propensity, float), most)
    if estimator == "ips":
        return weight * reward
    if estimator == "self_normalised":
        value = np.sum(weight * reward) / np.sum(weight)
        return value + weight * (reward - value) / np.mean(weight)
    return (chances * predicted).sum(1) + weight * (reward - predicted[index, arm])


@pytest.mark.parity
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(
    "problem",
    [Arms(3, 2, low=-2.0, high=2.0), Arms(3, 2, 2, low=-2.0, high=2.0)],
    ids=["contexts", "features"],
)
def test_an_update(estimator, problem):
    method = CRM(
        estimator=estimator, hidden_sizes=(), max_weight=3.0, variance_weight=0.5,
        learning_rate=0.01,
    )  # fmt: skip
    given, key = rounds(problem, 12), jax.random.key(0)
    # As a user might have them: what is far from zero and one is standardised.
    given = dataclasses.replace(
        given, context=40.0 + 9.0 * given.context, features=0.01 * given.features
    )
    before = method.init(problem, key=key)
    after, metrics = jax.jit(method.update)(before, given, key=key)
    data = dataclasses.replace(
        given,
        context=standardised(given.context, 0),
        features=standardised(given.features, (0, 1)),
        reward=np.asarray(given.reward, float) / 4.0,
    )
    predicted = None
    if before.rewards is not None:
        predicted = linear(before.rewards, problem, data)
        error = predicted[np.arange(12), np.asarray(data.arm)] - np.asarray(data.reward, float)
        np.testing.assert_allclose(metrics["reward_loss"], np.mean(error**2), rtol=1e-4)

    def loss(scores):
        each = said(estimator, softmax(scores), predicted, data, 3.0)
        return -each.mean() + 0.5 * np.sqrt(each.var() / 12)

    scores = linear(before.policy, problem, data)
    np.testing.assert_allclose(metrics["loss"], loss(scores), rtol=1e-4)
    # Adam's first step is one learning rate against the sign of each slope.
    weights = np.asarray(before.policy.weights[0], float)
    moved = np.asarray(after.policy.weights[0], float) - weights
    slopes = np.zeros_like(weights)
    for place in np.ndindex(*weights.shape):
        values = []
        for step in (1e-4, -1e-4):
            changed = weights.copy()
            changed[place] += step
            network = eqx.tree_at(lambda n: n.weights[0], before.policy, changed)
            values.append(loss(linear(network, problem, data)))
        slopes[place] = (values[0] - values[1]) / 2e-4
    clear = np.abs(slopes) > 1e-3
    assert clear.any()
    np.testing.assert_allclose(moved[clear], -0.01 * np.sign(slopes[clear]), rtol=1e-2)


def logged(rows: int = 400) -> tuple[Pulls, np.ndarray]:
    """Two kinds of rounds, whose arms earn what the table says; one arm is pulled seldom."""
    draw = np.random.default_rng(3)
    table = np.asarray([[0.2, 0.5, 0.9], [0.8, 0.3, 0.1]])
    chances = np.asarray([[0.5, 0.4, 0.1], [0.1, 0.5, 0.4]])
    kind = draw.integers(2, size=rows)
    arm = np.asarray([draw.choice(3, p=chances[k]) for k in kind])
    data = Pulls(
        jnp.eye(2)[kind],
        jnp.zeros((rows, 3, 0)),
        jnp.asarray(arm, jnp.int32),
        jnp.asarray(table[kind, arm], jnp.float32),
        jnp.asarray(chances[kind, arm], jnp.float32),
    )
    return data, table


def learned(method, data, problem, updates=300):
    """The state after learning from all rows again and again, and the metrics on the way."""
    key = jax.random.key(0)

    @jax.jit
    def follow(data):
        def one(state, _):
            return method.update(state, data, key=key)

        return jax.lax.scan(one, method.init(problem, key=key), None, length=updates)

    return follow(data)


@pytest.mark.oracle
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_it_finds_the_arms_that_earn_most(estimator):
    data, table = logged()
    method = CRM(estimator=estimator, hidden_sizes=(), learning_rate=0.05, variance_weight=0.0)
    state, metrics = learned(method, data, Arms(3, 2))
    chances = np.asarray(jax.nn.softmax(state.policy(state.context.standardised(jnp.eye(2)))))
    assert np.argmax(chances, 1).tolist() == np.argmax(table, 1).tolist() and chances.max() > 0.9
    share = np.asarray(data.context).mean(0)
    worth = (share[:, None] * chances * table).sum()
    np.testing.assert_allclose(metrics["estimated_reward"][-1], worth, atol=0.1)


@pytest.mark.oracle
@pytest.mark.parametrize(("estimator", "says"), [("ips", 0.0), ("self_normalised", -1.0)])
def test_only_plain_weights_gain_by_avoiding_the_log(estimator, says):
    """Every policy earns -1 in every round, but one that avoids what was logged has no weight."""
    draw = np.random.default_rng(0)
    data = Pulls(
        jnp.asarray(draw.normal(size=(30, 60)), jnp.float32),
        jnp.zeros((30, 3, 0)),
        jnp.asarray(draw.integers(3, size=30), jnp.int32),
        jnp.full(30, -1.0),
        jnp.full(30, 1.0 / 3.0),
    )
    method = CRM(estimator=estimator, hidden_sizes=(), learning_rate=0.05, variance_weight=0.0)
    _, metrics = learned(method, data, Arms(3, 60))
    np.testing.assert_allclose(metrics["estimated_reward"][-1], says, atol=0.01)
