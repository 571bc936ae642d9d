"""The soft actor-critic family in plain double-precision NumPy, differentiated by hand."""

import jax
import numpy as np

from .numpy_twin import (
    ACTION,
    CHOICES,
    ROWS,
    Adam,
    Perceptron,
    expect_gradient,
    expect_same,
    member,
    move,
)
from .numpy_twin import leaves as leaves_of

RATES = {
    "actor_learning_rate": 2e-2,
    "critic_learning_rate": 1e-2,
    "temperature_learning_rate": 3e-2,
    "polyak_rate": 0.1,
}
"""Settings under which three updates change everything visibly."""


class SoftTwin:
    """Actor, critics and temperature; the steps are called in the method's own order."""

    def __init__(self, state, discrete=False, log_std_range=(-20.0, 2.0), log_std_offset=0.0):
        self.discrete, self.range, self.offset = discrete, log_std_range, log_std_offset
        self.actor = Perceptron(leaves_of(state.actor))
        self.members = jax.tree.leaves(state.critics)[0].shape[0]
        self.critics, self.targets = (
            [Perceptron(member(state.critics, i)) for i in range(self.members)] for _ in "ab"
        )
        self.log_temperature = [np.asarray(state.log_temperature, np.float64)]
        self.actor_adam = Adam(self.actor.parameters, RATES["actor_learning_rate"])
        self.critic_adams = [
            Adam(c.parameters, RATES["critic_learning_rate"]) for c in self.critics
        ]
        self.temperature_adam = Adam(self.log_temperature, RATES["temperature_learning_rate"])

    @property
    def temperature(self):
        return np.exp(self.log_temperature[0])

    def noise(self, key, rows):
        """The standard normal numbers that a squashed normal policy draws with `key`."""
        return np.asarray(jax.random.normal(key, (rows, ACTION)), np.float64)

    def sample(self, s, noise):
        """Actions and log-densities; remembers what `actor_step` needs."""
        mean, log_std = np.split(self.actor.forward(s), 2, -1)
        log_std = log_std + self.offset
        self.inside = (log_std > self.range[0]) & (log_std < self.range[1])
        log_std = np.clip(log_std, *self.range)
        self.spread = np.exp(log_std) * noise
        action = np.tanh(mean + self.spread)
        normal = np.sum(-0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi), -1)
        return action, normal - np.sum(np.log1p(-(action**2)), -1)

    def policy(self, s):
        """Probabilities of discrete actions."""
        logits = self.actor.forward(s)
        probability = np.exp(logits - logits.max(-1, keepdims=True))
        return probability / probability.sum(-1, keepdims=True)

    def q(self, networks, s, a):
        """Values by `networks`: `[member, row]`, or `[member, row, action]` if discrete."""
        if self.discrete:
            return np.stack([c.forward(s) for c in networks])
        return np.stack([c.forward(np.concatenate([s, a], -1))[:, 0] for c in networks])

    def target(self, reward, terminal, following, noise, *, chosen=None, discount=0.99, share=1.0):
        """Regression targets; `chosen`: which target critics take part."""
        networks = self.targets if chosen is None else [self.targets[i] for i in chosen]
        following = np.where(terminal[:, None], 0.0, following)
        bonus = share * self.temperature
        if self.discrete:
            p = self.policy(following)
            q = np.min(self.q(networks, following, None), 0)
            value = np.sum(p * (q - bonus * np.log(p)), -1)
        else:
            a, log_density = self.sample(following, noise)
            value = np.min(self.q(networks, following, a), 0) - bonus * log_density
        return reward + discount * np.where(terminal, 0.0, value)

    def critic_step(self, s, a, y):
        """Squared error; returns the loss."""
        total = 0.0
        for critic, adam in zip(self.critics, self.critic_adams):
            q = self.q([critic], s, a)[0]
            predicted = q[np.arange(len(y)), a] if self.discrete else q
            total += np.mean((predicted - y) ** 2)
            slope = 2 * (predicted - y)[:, None] / len(y)
            adam.step(critic.backward(slope * np.eye(CHOICES)[a] if self.discrete else slope)[0])
        self.move()
        return total

    def move(self):
        for target, critic in zip(self.targets, self.critics):
            move(target, critic.parameters, RATES["polyak_rate"])

    def actor_step(self, s, noise, reduction="min"):
        """Returns the loss and the entropy before the step."""
        rows = len(s)
        if self.discrete:
            p = self.policy(s)
            q = self.q(self.critics, s, None)
            q = q.min(0) if reduction == "min" else q.mean(0)
            cost = self.temperature * np.log(p) - q
            loss = np.sum(p * cost, -1, keepdims=True)
            self.policy(s)
            self.actor_adam.step(self.actor.backward(p * (cost - loss) / rows)[0])
            return loss.mean(), -np.mean(np.sum(p * np.log(p), -1))
        a, log_density = self.sample(s, noise)
        q = self.q(self.critics, s, a)
        share = np.full_like(q, 1 / self.members)
        if reduction == "min":
            share = (np.arange(self.members)[:, None] == np.argmin(q, 0)).astype(float)
        value = np.sum(share * q, 0)
        by_action = np.zeros_like(a)
        for critic, each in zip(self.critics, share):
            by_action -= critic.backward(each[:, None] / rows)[1][:, -ACTION:]
        by_raw = by_action * (1 - a**2) + self.temperature * 2 * a / rows
        by_log_std = (by_raw * self.spread - self.temperature / rows) * self.inside
        self.actor_adam.step(self.actor.backward(np.concatenate([by_raw, by_log_std], -1))[0])
        return np.mean(self.temperature * log_density - value), -np.mean(log_density)

    def temperature_step(self, entropy, target_entropy):
        self.temperature_adam.step([np.asarray(entropy - target_entropy)])

    def expect(self, state, tolerance=2e-5):
        """Fails unless `state` is where this twin is, moments included."""
        expect_gradient(state.actor_optimiser, self.actor_adam)
        expect_gradient(state.temperature_optimiser, self.temperature_adam)
        expect_same(state.actor, self.actor.parameters, tolerance)
        expect_same(state.log_temperature, self.log_temperature, tolerance)
        for i in range(self.members):
            for ensemble, networks in (
                (state.critics, self.critics),
                (state.target_critics, self.targets),
            ):
                for ours, theirs in zip(member(ensemble, i), networks[i].parameters):
                    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
            moments = state.critic_optimiser[0].mu
            for ours, theirs in zip(member(moments, i), self.critic_adams[i].first):
                np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def columns(data, standardise):
    """Observation, action, reward, terminal and next observation in double precision."""
    a = np.asarray(data.action)
    return (
        standardise(data.observation),
        a.astype(np.float64) if a.ndim == 2 else a,
        np.asarray(data.reward, np.float64),
        np.asarray(data.terminal),
        standardise(data.next_observation),
    )


def before_the_critics(twin, state, metrics, columns_, key, target_entropy, discrete=False):
    """Temperature, actor and target, in that order; returns the target."""
    s, _, r, terminal, following = columns_
    temperature_key, actor_key, critic_key = jax.random.split(key, 3)
    if discrete:
        p = twin.policy(s)
        entropy = -np.mean(np.sum(p * np.log(p), -1))
    else:
        entropy = -np.mean(twin.sample(s, twin.noise(temperature_key, ROWS))[1])
    twin.temperature_step(entropy, target_entropy)
    np.testing.assert_allclose(metrics["temperature"], twin.temperature, rtol=1e-5)
    loss, _ = twin.actor_step(s, twin.noise(actor_key, ROWS))
    np.testing.assert_allclose(metrics["actor_loss"], loss, rtol=1e-4)
    noise = twin.noise(jax.random.split(critic_key)[0], ROWS)
    return twin.target(r, terminal, following, noise)
