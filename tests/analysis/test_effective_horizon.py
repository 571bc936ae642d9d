"""Effective horizons against brute force over sequences, policies and samples."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.analysis.effective_horizon import (
    covering_length,
    effective_horizon_bound,
    empirical_effective_horizon,
    gorp_success,
    greedy_is_optimal,
    greedy_return,
    k_step_values,
    least_k,
    sticky,
    stochastic_effective_horizon,
)
from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.finite import combination_lock, random_process
from headwater.ops.tabular.planning import expected_return


def _deterministic(seed, *, horizon=3, states=4, actions=2, sparse=False):
    generator = np.random.default_rng(seed)
    arrived = generator.integers(0, states, (horizon, states, actions))
    # Few distinct rewards, so that ties occur.
    reward = generator.integers(0, 3, (horizon, states, actions)) / 4.0
    if sparse:
        reward[:-1] = 0.0
    return FiniteProcess.from_arrays(np.eye(states)[arrived], reward, 0)


def _returns(process, step, state, actions):
    total, following = 0.0, np.asarray(process.transition).argmax(-1)
    for late, action in enumerate(actions, step):
        total += float(process.reward[late, state, action])
        state = following[late, state, action]
    return total


def _q(process, step, state, action, k, leaf):
    """Qᵏ of a deterministic process: best of k actions, then all continuations on average."""
    left = process.horizon - step
    choices = range(process.actions)
    best = -math.inf
    for rest in itertools.product(choices, repeat=min(k, left) - 1):
        sequence = (action, *rest)
        if leaf == "reward":
            value = _returns(process, step, state, sequence)
        else:
            ends = itertools.product(choices, repeat=left - len(sequence))
            value = np.mean([_returns(process, step, state, (*sequence, *end)) for end in ends])
        best = max(best, float(value))
    return best


@pytest.mark.parametrize("leaf", ["uniform", "reward"])
def test_values_are_those_of_all_sequences(leaf):
    process = _deterministic(0)
    for k in (1, 2, 3):
        value = k_step_values(process, k, leaf)
        for at in itertools.product(range(3), range(4), range(2)):
            assert value[at] == pytest.approx(_q(process, *at, k, leaf), abs=1e-6)


def _greedy_policies(process, value):
    """Every deterministic policy that is greedy in `value`, as tables."""
    best = value >= value.max(-1, keepdims=True) - 1e-6
    cells = list(itertools.product(range(process.horizon), range(process.states)))
    options = [np.flatnonzero(best[cell]) for cell in cells]
    for chosen in itertools.product(*options):
        table = np.zeros(process.reward.shape, np.float32)
        for cell, action in zip(cells, chosen):
            table[(*cell, action)] = 1.0
        yield table


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("leaf", ["uniform", "reward"])
def test_least_k_and_worst_returns_are_those_of_all_greedy_policies(seed, leaf):
    process = _deterministic(seed, states=3, sparse=seed % 2 == 1)
    best = max(_returns(process, 0, 0, a) for a in itertools.product(range(2), repeat=3))
    each = jax.jit(jax.vmap(lambda policy: expected_return(process, policy)))
    least = None
    for k in (1, 2, 3):
        tables = jnp.asarray(
            np.stack(list(_greedy_policies(process, k_step_values(process, k, leaf))))
        )
        padded = jnp.concatenate(
            [tables, jnp.broadcast_to(tables[:1], (512 - len(tables), 3, 3, 2))]
        )
        worst = float(each(padded).min())
        assert greedy_return(process, k, leaf) == pytest.approx(worst, abs=1e-5)
        assert greedy_is_optimal(process, k, leaf) == (worst > best - 1e-4)
        if least is None and worst > best - 1e-4:
            least = k
    assert least_k(process, leaf) == least


def test_success_of_gorp_is_what_all_outcomes_of_its_samples_say():
    """One rollout for each action: its return is that of a continuation drawn uniformly."""
    process = _deterministic(5, horizon=3, states=3)
    best = max(_returns(process, 0, 0, a) for a in itertools.product(range(2), repeat=3))
    following = np.asarray(process.transition).argmax(-1)

    def chance(step, state, earned):
        if step == 3:
            return float(earned > best - 1e-4)
        ends = list(itertools.product(range(2), repeat=2 - step))
        total = 0.0
        for one, two in itertools.product(ends, ends):
            means = [_returns(process, step, state, (a, *end)) for a, end in enumerate((one, two))]
            winners = [a for a in (0, 1) if means[a] > max(means) - 1e-6]
            for action in winners:
                after = earned + float(process.reward[step, state, action])
                total += chance(step + 1, following[step, state, action], after) / len(winners)
        return total / len(ends) ** 2

    exact = chance(0, 0, 0.0)
    assert 0.1 < exact < 0.9
    assert gorp_success(process, 1, 1, runs=20_000) == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("seed", range(6))
def test_bound_is_above_the_effective_horizon(seed):
    process = _deterministic(seed, horizon=4, sparse=seed % 2 == 1)
    found = min(empirical_effective_horizon(process, k, runs=201) for k in (1, 2, 3, 4))
    assert found <= effective_horizon_bound(process) + 0.1


def test_rollouts_agree_with_exact_distributions(monkeypatch):
    process = _deterministic(5, horizon=3, states=3)
    exact = gorp_success(process, 1, 3, runs=4000)
    monkeypatch.setattr("headwater.analysis.effective_horizon._Gorp.most_atoms", 0)
    assert gorp_success(process, 1, 3, runs=4000, seed=1) == pytest.approx(exact, abs=0.04)


def test_known_quantities_of_locks():
    process = combination_lock(horizon=5, actions=3, key=jax.random.key(0))
    assert (least_k(process), least_k(process, "reward")) == (1, 5)
    assert effective_horizon_bound(process) == 5.0
    assert abs(empirical_effective_horizon(process, runs=201) - 5.0) <= 1.0
    # One step: gap 3^-4. Two: 3^-3, and so on: k + 2 (5 - k), least where all is planned.
    assert stochastic_effective_horizon(process) == pytest.approx(5.0)
    assert stochastic_effective_horizon(process, 2) == pytest.approx(2 + 2 * 3, abs=1e-3)
    # Likeliest to be in the lock at the first step; state 1 is met later, and surely almost.
    chance = 1.0 / 3.0
    stuck = (1.0 - chance**4) * chance
    assert covering_length(process) == pytest.approx(math.log(12) / stuck, rel=1e-5)


def test_stochastic_effective_horizon_is_its_definition():
    process = random_process(states=3, actions=2, horizon=3, key=jax.random.key(3))
    scale = float(np.asarray(process.initial) @ k_step_values(process, 3)[0].max(-1))
    expected = math.inf
    for k in (1, 2, 3):
        if greedy_is_optimal(process, k):
            value = np.sort(k_step_values(process, k), axis=-1)
            gap = (value[..., 1] - value[..., 0]).min() / scale
            expected = min(expected, k - 2.0 * math.log2(gap))
    assert stochastic_effective_horizon(process) == pytest.approx(expected, rel=1e-4)


def test_sticky_process_repeats_actions():
    process = _deterministic(2)
    found = sticky(process, 0.25)
    np.testing.assert_allclose(np.asarray(found.transition).sum(-1), 1.0, atol=1e-6)
    # Two steps by hand: the second action is replaced by the first with probability 0.25.
    first, second = 0, 1
    following = np.asarray(process.transition).argmax(-1)
    policy = np.zeros(found.reward.shape, np.float32)
    policy[0, :, first], policy[1, :, second], policy[2, :, first] = 1.0, 1.0, 1.0
    expected = 0.0
    for executed, chance in ((second, 0.75), (first, 0.25)):
        for last, also in ((first, 0.75), (executed, 0.25)):
            expected += chance * also * _returns(process, 0, 0, (first, executed, last))
    assert float(expected_return(found, jnp.asarray(policy))) == pytest.approx(expected, rel=1e-5)
    assert following.shape == (3, 4, 2)
    np.testing.assert_allclose(
        k_step_values(sticky(process, 0.0), 3)[0, 2], k_step_values(process, 3)[0, 0], atol=1e-6
    )


def test_bad_input_is_refused_in_words():
    random = random_process(states=3, actions=2, horizon=3, key=jax.random.key(3))
    with pytest.raises(SpecificationError, match="are for deterministic processes"):
        effective_horizon_bound(random)
    with pytest.raises(SpecificationError, match="are for deterministic processes"):
        gorp_success(random, 1, 1)
    with pytest.raises(SpecificationError, match="k = 0 must be at least one"):
        k_step_values(random, 0)
    with pytest.raises(SpecificationError, match="k = 4 looks further than an episode"):
        gorp_success(_deterministic(0), 4, 1)
    with pytest.raises(SpecificationError, match="probability = 2 must lie between 0 and 1"):
        sticky(random, 2.0)
