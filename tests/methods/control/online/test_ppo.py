"""PPO against NumPy, against the plain policy gradient, and where it begins."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.core.method import Agent
from headwater.evidence.claim import with_numbers
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.online.ppo import PPO
from headwater.networks.distributions import Categorical
from headwater.ops.control.gradient_steps import begin, descend
from headwater.testing.kinds.transitions import problems, transitions

_PLAIN = PPO(num_epochs=1, num_minibatches=1, normalise_returns=False, hidden_sizes=(8,))


def _rollout(key, discrete: bool, steps: int = 9, copies: int = 3):
    rows = transitions(key, (steps * copies,), discrete)
    rows = replace(rows, next_action=None, return_to_go=None, whole_log=None)
    rows = jax.tree.map(lambda x: x.reshape(steps, copies, *x.shape[1:]), rows)
    ends = jax.random.randint(jax.random.fold_in(key, 7), (steps, copies), 0, 6)
    return replace(rows, terminal=ends == 0, truncated=ends == 1)


def _advantages(rows, value, following, discount, decay):
    """One copy and step at a time, from the last to the first."""
    found = np.zeros(value.shape)
    for copy in range(value.shape[1]):
        later = 0.0
        for t in reversed(range(value.shape[0])):
            ended = rows.terminal[t, copy] or rows.truncated[t, copy]
            after = 0.0 if rows.terminal[t, copy] else following[t, copy]
            surprise = rows.reward[t, copy] + discount * after - value[t, copy]
            later = surprise + (0.0 if ended else discount * decay * later)
            found[t, copy] = later
    return found


@pytest.mark.parity
def test_values_learn_generalised_returns(key):
    problem, rows = problems()["discrete"], _rollout(key, True)
    state = _PLAIN.init(problem, key=key)
    _, metrics = _PLAIN.update(state, rows, key=key)
    value = np.asarray(state.critic(rows.observation))[..., 0]
    following = np.asarray(state.critic(rows.next_observation))[..., 0]
    advantage = _advantages(rows, value, following, _PLAIN.discount, _PLAIN.gae_lambda)
    np.testing.assert_allclose(metrics["value_loss"], np.mean(advantage**2), rtol=1e-5)
    policy = state.actor(rows.observation)
    assert isinstance(policy, Categorical)
    logits = np.asarray(policy.logits, np.float64)
    log_probability = logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))
    entropy = -np.mean(np.sum(np.exp(log_probability) * log_probability, -1))
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)
    assert abs(float(metrics["divergence"])) < 1e-6 and float(metrics["clipped"]) == 0.0


@pytest.mark.equivalence
@pytest.mark.parametrize("name", ["discrete", "continuous"])
def test_first_step_is_that_of_the_policy_gradient(name, key):
    """Where ratios are 1, clipping and the ratio's derivative are those of the log-likelihood."""
    problem, rows = problems()[name], _rollout(key, name == "discrete")
    method = replace(_PLAIN, value_weight=0.0, max_gradient_norm=jnp.inf)
    state = method.init(problem, key=key)
    learned, _ = method.update(state, rows, key=key)
    value = np.asarray(state.critic(rows.observation))[..., 0]
    following = np.asarray(state.critic(rows.next_observation))[..., 0]
    advantage = _advantages(rows, value, following, method.discount, method.gae_lambda)
    advantage = (advantage - advantage.mean()) / advantage.std(ddof=1)

    def loss(actor):
        return -jnp.mean(advantage * actor(rows.observation).log_density(rows.action))

    adam = optax.adam(method.learning_rate, eps=1e-5)
    expected, _ = descend(adam, jax.grad(loss)(state.actor), begin(adam, state.actor), state.actor)
    for own, other in zip(jax.tree.leaves(learned.actor), jax.tree.leaves(expected)):
        np.testing.assert_allclose(own, other, rtol=1e-3, atol=2e-6)


@pytest.mark.oracle
def test_what_pays_is_learned_unless_held_at_the_beginning(key):
    """Episodes of one step in which one of four actions pays."""
    problem = problems()["discrete"]
    method = PPO(learning_rate=1e-2, num_epochs=4, num_minibatches=2, hidden_sizes=(8,))

    def learned(method):
        def step(state, key):
            act_key, key = jax.random.split(key)
            observation = jax.random.normal(key, (32, 4, 3))
            action = jax.vmap(
                lambda k, o: method.act(state, o, key=k, explore=True)[0],
                in_axes=(0, 0),
            )(jax.random.split(act_key, 32), observation)
            rows = replace(
                _rollout(key, True, 32, 4),
                observation=observation,
                action=action,
                reward=(action == 2).astype(jnp.float32),
                terminal=jnp.ones((32, 4), bool),
            )
            return method.update(state, rows, key=key)[0], None

        begun = method.init(problem, key=key)
        return jax.lax.scan(step, begun, jax.random.split(key, 30))[0]

    weights = jnp.asarray([0.0, 100.0])
    states = jax.jit(jax.vmap(lambda weight: learned(with_numbers(method, kl_weight=weight))))(
        weights
    )
    place, pays = jnp.zeros(3), jnp.asarray(2)
    free, held = jnp.exp(jax.vmap(lambda s: method.log_probability(s, place, pays))(states))
    assert float(free) > 0.9 and float(held) < 0.35


@pytest.mark.equivalence
def test_a_clone_goes_on_as_it_is(key):
    problem = problems()["continuous"]
    clone = BC(stochastic=True, hidden_sizes=(8,))
    state = clone.init(problem, key=key)
    method = PPO(hidden_sizes=(8,), kl_weight=0.2)
    begun = method.warm_start(Agent(clone, state), problem, key=key)
    assert begun is not None
    rows = transitions(key, (5,), False)
    given = rows.observation, rows.action
    np.testing.assert_array_equal(
        method.log_probability(begun, *given), clone.log_probability(state, *given)
    )
    plain = BC(hidden_sizes=(8,))
    assert method.warm_start(Agent(plain, plain.init(problem, key=key)), problem, key=key) is None
