"""IQL against NumPy, against cloning, and on problems with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.iql import IQL

from .. import identities
from ..numpy_twin import (
    ROWS,
    Adam,
    Perceptron,
    batch,
    begin,
    expect_same,
    expect_twins,
    leaves,
    member,
    move,
    standardised,
    update,
)
from ..small_problems import (
    CHAIN_SETTINGS,
    CHAIN_STATES,
    COUNTS,
    REWARDS,
    arms,
    chain,
    chain_values,
    trained,
    values,
)

EXPECTILE, BETA, LARGEST, RATE, TARGET_RATE, DECAY = 0.8, 3.0, 0.35, 1e-2, 0.1, 4
REWARD_SCALE = 100.0
"""1000 over the spread of returns, which is 10 in the twin's problem."""


class _Twin:
    """Actor, two critics, their targets and the state's value in double precision."""

    def __init__(self, state, discrete: bool):
        self.discrete = discrete
        actor, networks = leaves(state.networks.actor), state.networks
        self.actor = Perceptron(actor if discrete else actor[:-1])
        self.log_std = [] if discrete else [actor[-1].copy()]
        self.critics, self.targets = (
            [Perceptron(member(networks.critics, i)) for i in (0, 1)] for _ in "ab"
        )
        self.value = Perceptron(leaves(networks.value))
        self.actor_adam = Adam([*self.actor.parameters, *self.log_std], RATE)
        self.adams = [Adam(n.parameters, RATE) for n in (*self.critics, self.value)]

    def q(self, network, s, a):
        if self.discrete:
            return network.forward(s)[np.arange(ROWS), a]
        return network.forward(np.concatenate([s, a], -1))[:, 0]

    def clone(self, s, a, weight):
        """Loss and gradients of minus the weighted mean log-density."""
        output = self.actor.forward(s)
        if self.discrete:
            logged = np.eye(output.shape[-1])[a]
            log_p = output - np.log(np.exp(output).sum(-1, keepdims=True))
            slope = weight[:, None] * (np.exp(log_p) - logged)
            log_density, by_std = np.sum(logged * log_p, -1), []
        else:
            mean, std = np.tanh(output), np.exp(self.log_std[0])
            z = (a - mean) / std
            log_density = np.sum(-0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi), -1)
            slope = -weight[:, None] * z / std * (1 - mean**2)
            by_std = [np.mean(-weight[:, None] * (z**2 - 1), 0)]
        return -np.mean(weight * log_density), self.actor.backward(slope / ROWS)[0] + by_std

    def step(self, data, pace):
        """One update; returns what is logged."""
        s, a = standardised(data.observation), np.asarray(data.action)
        a = a if self.discrete else a.astype(np.float64)
        following = np.where(
            np.asarray(data.terminal)[:, None], 0.0, standardised(data.next_observation)
        )
        onward = np.where(data.terminal, 0.0, self.value.forward(following)[:, 0])
        y = REWARD_SCALE * np.asarray(data.reward, np.float64) + 0.99 * onward
        lower = np.min([self.q(target, s, a) for target in self.targets], axis=0)
        advantage = lower - self.value.forward(s)[:, 0]
        weight = np.minimum(np.exp(BETA * advantage), LARGEST)
        actor_loss, gradients = self.clone(s, a, weight)
        # The schedule is the actor's rate, as in the paper's code.
        self.actor_adam.learning_rate = RATE * pace
        self.actor_adam.step(gradients)
        side = np.where(advantage < 0, 1 - EXPECTILE, EXPECTILE)
        critic_loss, mean_q = 0.0, []
        for critic, adam in zip(self.critics, self.adams):
            predicted = self.q(critic, s, a)
            mean_q.append(predicted.mean())
            critic_loss += 0.5 * np.mean((predicted - y) ** 2)
            slope = (predicted - y)[:, None] / ROWS
            if self.discrete:
                slope = slope * np.eye(critic.parameters[-1].size)[a]
            adam.step(critic.backward(slope)[0])
        self.value.forward(s)
        self.adams[-1].step(self.value.backward(-2 * (side * advantage)[:, None] / ROWS)[0])
        for target, critic in zip(self.targets, self.critics):
            move(target, critic.parameters, TARGET_RATE)
        return weight, {
            "value_loss": np.mean(side * advantage**2),
            "critic_loss": critic_loss,
            "actor_loss": actor_loss,
            "q": np.mean(mean_q),
            "advantage": np.mean(advantage),
        }


@pytest.mark.parity
@pytest.mark.parametrize("discrete", [False, True])
def test_three_updates(discrete):
    method = IQL(
        expectile=EXPECTILE,
        beta=BETA,
        max_weight=LARGEST,
        learning_rate=RATE,
        polyak_rate=TARGET_RATE,
        actor_decay_updates=float(DECAY),
        reward_scale="return_range",
        hidden_sizes=(8, 8),
    )
    state = begin(method, discrete)
    twin = _Twin(state, discrete)
    bounded = []
    for i in range(3):
        data = batch(i, discrete)
        # Rewards of a hundredth, so that values stay where the weights tell rows apart.
        data = eqx.tree_at(lambda d: d.reward, data, 0.01 * data.reward)
        state, metrics = update(method, state, data, key=jax.random.key(i))
        weight, expected = twin.step(data, pace=0.5 * (1 + np.cos(np.pi * i / DECAY)))
        assert set(metrics) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=2e-5, atol=1e-6, err_msg=name)
        bounded.append(np.mean(weight == LARGEST))
    assert 0.0 < np.mean(bounded) < 1.0, "the bound on weights was never or always met"
    networks, moments = state.networks, state.optimiser[0]
    for name in ("first", "second"):
        kept = moments.mu if name == "first" else moments.nu
        expect_same(kept.actor, getattr(twin.actor_adam, name), 1e-5)
        expect_same(kept.value, getattr(twin.adams[2], name), 1e-5)
        for i in (0, 1):
            for ours, theirs in zip(member(kept.critics, i), getattr(twin.adams[i], name)):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    expect_same(networks.actor, [*twin.actor.parameters, *twin.log_std])
    expect_same(networks.value, twin.value.parameters)
    expect_twins(networks.critics, twin.critics)
    expect_twins(state.target_critics, twin.targets)


@pytest.mark.parity
def test_the_actor_stops_where_its_cosine_ends():
    method = IQL(actor_decay_updates=2.0, learning_rate=RATE, hidden_sizes=(8,))
    state = begin(method, False)
    for i in range(3):
        before = state
        state, _ = update(method, state, batch(i, False), key=jax.random.key(i))
    expect_same(state.networks.actor, leaves(before.networks.actor), 0.0)
    identities.expect_different(state.networks.value, before.networks.value)


@pytest.mark.equivalence("BC")
def test_without_an_inverse_temperature_it_is_cloning():
    fields = {"learning_rate": 1e-2, "hidden_sizes": identities.WIDTHS}
    spaces = identities.problem(True)
    iql = IQL(beta=0.0, actor_decay_updates=float("inf"), **fields)
    bc = BC(**fields)
    begun = identities.begin(iql, spaces)
    clone = eqx.tree_at(lambda s: s.actor, identities.begin(bc, spaces), begun.networks.actor)
    batches = identities.several(True)
    one, other = identities.learn(iql, begun, *batches), identities.learn(bc, clone, *batches)
    identities.expect_same(one.networks.actor, other.actor, 1e-6)
    identities.expect_different(begun.networks.actor, one.networks.actor)


def exact_expectile(expectile: float) -> float:
    """Of the arms' rewards, by halving an interval until the two sides balance."""
    low, high = REWARDS.min(), REWARDS.max()
    for _ in range(100):
        middle = 0.5 * (low + high)
        side = np.where(middle > REWARDS, 1 - expectile, expectile)
        if np.sum(COUNTS * side * (REWARDS - middle)) > 0:
            low = middle
        else:
            high = middle
    return low


SETTINGS = {"learning_rate": 3e-3, "polyak_rate": 0.05, "hidden_sizes": (32,)}
ONE = jnp.ones(1)


@pytest.mark.oracle
@pytest.mark.parametrize("expectile", [0.5, 0.9, 0.999])
def test_values_go_from_the_mean_of_logged_actions_to_their_maximum(expectile):
    problem, data = arms(COUNTS, REWARDS)
    state = trained(IQL(expectile=expectile, **SETTINGS), problem, data, 2000)
    value = float(state.networks.value(ONE))
    assert value == pytest.approx(exact_expectile(expectile), abs=5e-3)
    if expectile == 0.5:
        assert value == pytest.approx(np.average(REWARDS, weights=COUNTS), abs=5e-3)
    if expectile == 0.999:
        assert value == pytest.approx(REWARDS.max(), abs=0.02)
    q = values(IQL(), state, data)
    np.testing.assert_allclose(q, data.reward, atol=5e-3)


@pytest.mark.oracle
@pytest.mark.parametrize("largest", [100.0, 1.2])
def test_the_policy_weighs_logged_actions_by_their_advantages(largest):
    problem, data = arms(COUNTS, REWARDS)
    method = IQL(expectile=0.7, beta=2.0, max_weight=largest, **SETTINGS)
    state = trained(method, problem, data, 2000)
    weight = COUNTS * np.minimum(np.exp(2.0 * (REWARDS - exact_expectile(0.7))), largest)
    probability = jax.nn.softmax(state.networks.actor(ONE).logits)
    np.testing.assert_allclose(probability, weight / weight.sum(), atol=5e-3)


@pytest.mark.oracle
def test_an_expectile_of_one_half_evaluates_the_behaviour():
    problem, data = chain()
    method = IQL(expectile=0.5, polyak_rate=0.05, **CHAIN_SETTINGS)
    state = trained(method, problem, data, 3000)
    learned = np.asarray(values(method, state, data)).reshape(CHAIN_STATES, 2)
    # Every action was logged once: the behaviour is uniform.
    uniform = np.full((CHAIN_STATES, 2), 0.5)
    np.testing.assert_allclose(learned, chain_values(uniform), atol=0.02)
    np.testing.assert_allclose(
        state.networks.value(jnp.eye(CHAIN_STATES)), chain_values(uniform).mean(-1), atol=0.02
    )
