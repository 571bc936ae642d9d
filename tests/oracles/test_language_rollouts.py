"""Methods that learn from their own or weighted texts, where every expectation is exact."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.environments.language.token_process import every_response
from headwater.evaluation.exact_tokens import expected, log_policy
from headwater.methods.language.rewards.grpo import GRPO
from headwater.methods.language.rewards.reinforce import Reinforce
from headwater.methods.language.rewards.rloo import RLOO
from headwater.methods.language.texts.mezo import MeZO
from headwater.methods.language.texts.sft import SFT
from headwater.networks.token_table import PrefixTable

RESPONSES = every_response(vocabulary=3, new_tokens=2)


AS_USERS_DO = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}
"""How programs are compiled outside of the tests; promises to the bit are about these."""


def learn(method, task, data, *, key, updates, options=None):
    """The state and the metrics after `updates` on the same batch."""

    def step(state, i):
        return method.update(state, data, key=jax.random.fold_in(key, i))

    def run():
        return jax.lax.scan(step, method.init(task, key=key), jnp.arange(updates))

    return jax.jit(run, compiler_options=options)()


def with_reference(state, reference):
    """The same state, with another network to stay close to."""
    return eqx.tree_at(lambda tuned: tuned.frozen, state, reference)


def expected_gradient(method, state, reward, *, key, with_chances=True):
    """Of an update's loss, over all pairs of responses to one prompt under the current policy.

    It is read off the first moment of Adam, a tenth of the gradient after one step.
    """
    chances = log_policy(state.network, RESPONSES)[0]
    first, second = (x.ravel() for x in np.meshgrid(np.arange(9), np.arange(9)))
    pairs = np.stack([first, second], axis=1)[:, None]
    tokens, response = (jnp.asarray(x)[0][pairs] for x in (_TOKENS, _MASK))
    own = jax.nn.log_softmax(state.network.logits(tokens[..., :-1]), axis=-1)
    own = jnp.take_along_axis(own, tokens[..., 1:, None], axis=-1)[..., 0]
    own = jnp.concatenate([jnp.zeros_like(own[..., :1]), own], axis=-1)
    data = Completions(tokens, response, reward[pairs], own if with_chances else None)

    def gradient(data):
        moved, metrics = method.update(state, data, key=key)
        return 10.0 * optax.tree.get(moved.optimiser, "mu").table, metrics

    gradients, metrics = jax.jit(jax.vmap(gradient))(data)
    weights = jnp.exp(chances[pairs[:, 0, 0]] + chances[pairs[:, 0, 1]])
    return jnp.tensordot(weights, gradients, axes=1), metrics


_TOKENS, _MASK = RESPONSES.data.tokens, RESPONSES.data.response


def task_with_reward(key):
    """A random policy, another one as its reference, and random rewards."""
    keys = jax.random.split(key, 3)
    policy, reference = PrefixTable(3, 3, key=keys[0]), PrefixTable(3, 3, key=keys[1])
    return TokenProblem(policy), reference, jax.random.normal(keys[2], (9,))


def exact_gradient(network, reference, reward, weight):
    """Of the expected reward less `weight` times the divergence from the reference."""
    other = log_policy(reference, RESPONSES)

    def objective(network):
        own = log_policy(network, RESPONSES)
        return expected(own, reward[None] - weight * (own - other))[0]

    return eqx.filter_grad(objective)(network).table


@pytest.mark.parametrize("place", ["reward", "loss"])
@pytest.mark.parametrize("with_chances", [True, False])
def test_rloo_follows_the_policy_gradient_on_average(place, with_chances, key):
    task, reference, reward = task_with_reward(key)
    method = RLOO(divergence_weight=0.3, divergence_in=place, largest_gradient=1e9)
    state = with_reference(method.init(task, key=key), reference)
    found, metrics = expected_gradient(method, state, reward, key=key, with_chances=with_chances)
    exact = exact_gradient(task.network, reference, reward, 0.3)
    np.testing.assert_allclose(found, -exact, atol=2e-6)
    assert float(jnp.max(metrics["sampler_gap"])) < 1e-6


def test_grpo_without_scales_follows_the_policy_gradient_on_average(key):
    task, reference, reward = task_with_reward(key)
    method = GRPO(scale_rewards="none", average="constant", response_length=1, largest_gradient=1e9)
    found, _ = expected_gradient(method, method.init(task, key=key), reward, key=key)
    # Its baseline holds the response itself, which takes one part in two away.
    exact = 0.5 * exact_gradient(task.network, reference, reward, 0.0)
    np.testing.assert_allclose(found, -exact, atol=2e-6)


def test_the_divergence_of_grpo_is_the_other_one_unless_asked_for(key):
    """With k3 its gradient is of KL(reference‖π); with the surrogate of KL(π‖reference)."""
    policy, reference = PrefixTable(3, 2, key=key), PrefixTable(3, 2, key=jax.random.key(5))
    responses = every_response(vocabulary=3, new_tokens=1)
    own, other = (log_policy(network, responses) for network in (policy, reference))

    def gradient(divergence):
        method = GRPO(divergence_weight=1.0, divergence=divergence, largest_gradient=1e9)
        state = with_reference(method.init(TokenProblem(policy), key=key), reference)

        def one(index):
            data = jax.tree.map(lambda x: x[:, jnp.stack([index, index])], responses.data)
            data = eqx.tree_at(
                lambda d: d.reward, data, jnp.zeros((1, 2)), is_leaf=lambda x: x is None
            )
            moved, _ = method.update(state, data, key=key)
            return 10.0 * optax.tree.get(moved.optimiser, "mu").table

        gradients = jax.jit(jax.vmap(one))(jnp.arange(3))
        return jnp.tensordot(jnp.exp(own[0]), gradients, axes=1)

    def reverse(network):
        own = log_policy(network, responses)
        return expected(own, own - other)[0]

    def forward(network):
        return expected(other, other - log_policy(network, responses))[0]

    for divergence, objective in (("surrogate", reverse), ("k3", forward)):
        exact = eqx.filter_grad(objective)(policy).table
        np.testing.assert_allclose(gradient(divergence), exact, atol=2e-6)


def test_reinforce_standardises_by_what_it_has_seen(key):
    """Rewards of 2 and then of 4 have known running means; the gradient is the advantage's."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    method = Reinforce(divergence_weight=0.0, statistics_rate=0.5, largest_gradient=1e9)
    data = jax.tree.map(lambda x: x[0], RESPONSES.data)
    state = method.init(task, key=key)
    two = Completions(data.tokens, data.response, jnp.full(9, 2.0))
    four = Completions(data.tokens, data.response, jnp.full(9, 4.0))
    update = jax.jit(lambda state, data: method.update(state, data, key=key))
    state, metrics = update(state, two)
    assert float(metrics["baseline"]) == pytest.approx(2.0)
    for moved, first in zip(jax.tree.leaves(state.tuned.network), jax.tree.leaves(task.network)):
        np.testing.assert_array_equal(moved, first)
    state, metrics = update(state, four)
    # Weights 1/4 and 1/2 of rewards 2 and 4.
    mean, square = (0.5 * 0.5 * 2 + 0.5 * 4) / 0.75, (0.25 * 4 + 0.5 * 16) / 0.75
    assert float(metrics["baseline"]) == pytest.approx(mean)
    advantage = (4.0 - mean) / (np.sqrt(square - mean**2) + 1e-4)
    own = log_policy(task.network, RESPONSES)[0]
    assert float(metrics["loss"]) == pytest.approx(-advantage * float(jnp.mean(own)), rel=1e-4)


@pytest.mark.parametrize("method", [RLOO(), GRPO()])
def test_groups_and_rewards_are_asked_for_in_words(method, key):
    data = jax.tree.map(lambda x: x[0], RESPONSES.data)
    state = method.init(TokenProblem(PrefixTable(3, 3)), key=key)
    with pytest.raises(SpecificationError, match="give their source a reward"):
        method.update(state, data, key=key)
    data = Completions(data.tokens, data.response, jnp.zeros(9))
    with pytest.raises(SpecificationError, match=r"\[prompt, sample\].*\[9\]"):
        method.update(state, data, key=key)


def test_sft_reaches_the_frequencies_of_what_it_is_shown(key):
    task = TokenProblem(PrefixTable(3, 3, key=key))
    shown = np.asarray([0, 0, 0, 1, 4, 4, 8, 8])
    data = jax.tree.map(lambda x: x[0, shown], RESPONSES.data)
    state, _ = learn(SFT(learning_rate=0.1), task, data, key=key, updates=300)
    chances = np.exp(log_policy(state.network, RESPONSES))[0]
    frequencies = np.bincount(shown, minlength=9) / len(shown)
    np.testing.assert_allclose(chances, frequencies, atol=0.01)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_mezo_is_replayed_from_its_log_bit_for_bit(weight_decay, key):
    task = TokenProblem(PrefixTable(3, 3, key=key))
    data = jax.tree.map(lambda x: x[0, :4], RESPONSES.data)
    method = MeZO(learning_rate=0.01, decay_updates=80.0, weight_decay=weight_decay)
    state, metrics = learn(method, task, data, key=key, updates=50, options=AS_USERS_DO)
    assert len(set(np.asarray(metrics["seed"]).tolist())) == 50
    # Through text, as a log holds them.
    logged = [
        jnp.asarray([float(repr(float(x))) for x in metrics[name]], jnp.float32)
        for name in ("seed", "slope", "rate")
    ]
    again = jax.jit(method.replay, compiler_options=AS_USERS_DO)(task.network, *logged)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(state.network)):
        np.testing.assert_array_equal(one, other)
    assert any(
        np.any(np.asarray(one) != np.asarray(other))
        for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(task.network))
    )


def test_mezo_follows_the_gradient_on_average(key):
    """The mean of slope times noise is the gradient, so losses fall as far as this foresees."""
    task = TokenProblem(PrefixTable(3, 2, key=key))
    responses = every_response(vocabulary=3, new_tokens=1)
    data = jax.tree.map(lambda x: x[0, :2], responses.data)
    method = MeZO(learning_rate=1e-3)
    state = method.init(task, key=key)

    def step(key):
        moved, _ = method.update(state, data, key=key)
        return jax.tree.map(lambda new, old: new - old, moved.network, task.network)

    keys = jax.random.split(key, 20_000)
    each = jax.jit(lambda: jax.lax.map(step, keys, batch_size=1000))()

    def loss(network):
        return -jnp.mean(log_policy(network, responses)[0, :2])

    exact = jax.tree.leaves(eqx.filter_grad(loss)(task.network))[0]
    moved = jnp.mean(jax.tree.leaves(each)[0], axis=0)
    np.testing.assert_allclose(-moved / 1e-3, exact, atol=0.03)


def test_mezo_lowers_what_has_no_gradient(key):
    """The share of tokens that greedy choices get wrong."""
    task = TokenProblem(PrefixTable(3, 3, key=key))
    unlikely = jnp.argmin(log_policy(task.network, RESPONSES)[0])
    data = jax.tree.map(lambda x: x[0, unlikely[None]], RESPONSES.data)
    method = MeZO(objective="errors", distance=2.0, learning_rate=1.0)
    _, metrics = learn(method, task, data, key=key, updates=200)
    losses = np.asarray(metrics["loss"])
    assert losses[:5].mean() >= 0.5 and losses[-20:].mean() < 0.1
