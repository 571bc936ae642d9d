"""Partially observed processes through windows: against enumeration, simulation and one another."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.environments.tabular.decodable import (
    PartiallyObservedProcess,
    decodable,
    decoder,
    random_decodable,
    ring,
    window_process,
    window_return,
    windows,
)
from headwater.ops.tabular.planning import expected_return, optimal_values
from headwater.sources.episodes import log_episodes


def _policy(seen, seed=0):
    shape = (seen.horizon, seen.states, seen.actions)
    return jnp.asarray(np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:2]))


def _by_enumeration(process, memory, policy, names):
    """The return of a policy over windows, and its windows' hidden states, by all histories."""
    model = process.hidden
    moves, earns = np.asarray(model.transition), np.asarray(model.reward)
    emission, first = np.asarray(process.emission), np.asarray(model.initial)
    number = [{name: i for i, name in enumerate(step)} for step in names]
    total, met = 0.0, {}

    def go(step, hidden, window, chance):
        nonlocal total
        met.setdefault((step, window), set()).add(hidden)
        here = np.asarray(policy)[step, number[step][window]]
        for action in range(model.actions):
            taken = chance * here[action]
            total += taken * earns[step, hidden, action]
            if step + 1 == model.horizon:
                continue
            for after, seen in itertools.product(range(model.states), range(emission.shape[-1])):
                p = moves[step, hidden, action, after] * emission[step + 1, after, seen]
                if p > 0.0:
                    longer = (*window, action, seen)[-(2 * memory - 1) :]
                    go(step + 1, after, longer, taken * p)

    for hidden, seen in itertools.product(range(model.states), range(emission.shape[-1])):
        if first[hidden] * emission[0, hidden, seen] > 0.0:
            go(0, hidden, (seen,), first[hidden] * emission[0, hidden, seen])
    return total, met


@pytest.mark.parametrize("memory", [1, 2, 3])
def test_windows_are_those_of_all_histories(memory):
    process = ring(positions=4, horizon=4, reversal=0.2, goal=2)
    seen = windows(process, memory)
    policy = _policy(seen)
    worth, met = _by_enumeration(process, memory, policy, seen.names)
    assert float(window_return(seen, policy)) == pytest.approx(worth, rel=1e-5)
    assert set(met) == {(step, w) for step, names in enumerate(seen.names) for w in names}
    for (step, window), hidden in met.items():
        left = np.asarray(seen.possible)[step, seen.names[step].index(window)]
        assert set(np.flatnonzero(left)) == hidden
    assert decodable(seen) == all(len(hidden) == 1 for hidden in met.values()) == (memory > 1)


def test_simulation_agrees_with_the_exact_return_where_windows_are_too_short():
    process = ring(horizon=4, goal=2)
    seen = windows(process, 1)
    policy = _policy(seen, 1)
    data = log_episodes(seen, policy, episodes=20_000, key=jax.random.key(0))
    returns = np.asarray(data.reward).sum(axis=1)
    error = 4.0 * returns.std() / np.sqrt(len(returns))
    assert returns.mean() == pytest.approx(float(window_return(seen, policy)), abs=error)
    # What is shown are windows: their frequencies at the third step are those of the exact process.
    longer = windows(process, 2)
    exact = window_process(longer)
    uniform = jnp.full((4, longer.states, 2), 0.5)
    data = log_episodes(longer, uniform, episodes=20_000, key=jax.random.key(1))
    here = np.asarray(exact.initial, np.float64)
    for step in range(2):
        here = here @ np.asarray(exact.transition)[step].mean(axis=1)
    found = np.bincount(np.asarray(data.state)[:, 2], minlength=longer.states) / 20_000
    np.testing.assert_allclose(found, here, atol=0.02)


def test_exact_process_over_windows_is_the_process():
    process = ring(horizon=5, reversal=0.1)
    seen = windows(process, 2)
    exact = window_process(seen)
    policy = _policy(seen, 2)
    np.testing.assert_allclose(np.asarray(exact.transition).sum(-1), 1.0, atol=1e-6)
    assert float(expected_return(exact, policy)) == pytest.approx(
        float(window_return(seen, policy)), rel=1e-5
    )
    plan = optimal_values(exact)
    # Knowing the hidden state is worth no more than a window that reveals it.
    best = jnp.dot(process.hidden.initial, optimal_values(process.hidden).value[0])
    assert float(window_return(seen, plan.policy)) == pytest.approx(float(best), rel=1e-5)


def test_ring_at_the_size_of_the_paper_trail():
    process = ring(positions=6, horizon=8, reversal=0.1, goal=3)
    assert float(optimal_values(process.hidden).value[0, 0]) == pytest.approx(2.58236, abs=1e-4)


def test_random_processes_need_their_memory():
    process = random_decodable(
        symbols=2, actions=2, horizon=4, memory=2, copies=2, key=jax.random.key(0)
    )
    assert process.observations == 4 and process.hidden.states == 4
    assert not decodable(windows(process, 1))
    found = [windows(process, memory) for memory in (2, 3)]
    assert all(map(decodable, found))
    best = float(jnp.dot(process.hidden.initial, optimal_values(process.hidden).value[0]))
    for seen in found:
        exact = window_process(seen)
        got = float(jnp.dot(exact.initial, optimal_values(exact).value[0]))
        assert got == pytest.approx(best, rel=1e-5)


def test_one_step_episodes():
    process = ring(horizon=1, goal=1)
    seen = windows(process, 1)
    policy = jnp.full((1, 1, 2), 0.5)
    assert float(window_return(seen, policy)) == pytest.approx(0.5)
    data = log_episodes(seen, policy, episodes=3, key=jax.random.key(0))
    assert data.state.shape == (3, 2)


def test_bad_input_is_refused_in_words():
    process = ring(horizon=4)
    with pytest.raises(SpecificationError, match="memory = 5 is longer than an episode: it has 4"):
        windows(process, 5)
    with pytest.raises(SpecificationError, match="memory = 0 must be a whole number"):
        windows(process, 0)
    with pytest.raises(
        SpecificationError, match="do not reveal the hidden state: at step 2, obser"
    ):
        decoder(windows(process, 1))
    with pytest.raises(SpecificationError, match="the policy has shape"):
        window_return(windows(process, 1), jnp.ones((4, 1, 2)))
    with pytest.raises(SpecificationError, match="with fewer than three, both directions lead"):
        ring(positions=2)
    with pytest.raises(SpecificationError, match="copies = 0 must be at least one"):
        random_decodable(symbols=2, actions=2, horizon=2, memory=1, copies=0, key=jax.random.key(0))
    rows = np.full((2, 1, 2), 0.5)
    with pytest.raises(DataError, match=r"emission: the row of state 1 is no distribution .* 0\.9"):
        PartiallyObservedProcess.from_arrays(
            rows, [[0.5, 0.5], [0.5, 0.4]], np.zeros((2, 1)), horizon=2
        )
    with pytest.raises(SpecificationError, match=r"emission has shape \(3, 2\)"):
        PartiallyObservedProcess.from_arrays(rows, np.ones((3, 2)), np.zeros((2, 1)), horizon=2)
