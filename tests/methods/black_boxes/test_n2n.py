"""N2N against its gradient computed another way, and against the best of few architectures."""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.environments.black_boxes.black_box import BlackBox
from headwater.evaluation.black_boxes.recommended import worth_of_queries
from headwater.methods.black_boxes.n2n import N2N
from headwater.methods.black_boxes.random_search import RandomSearch
from headwater.runs.learn import learn
from headwater.sources.queries import LiveQueries

SPACE = SearchSpace((1.0, 0.0, 0.0), (8.0, 20.0, 8.0), whole=(True,) * 3, capacity=40)
FACTORS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def drawn(method, state, count, key=3):
    propose = eqx.filter_jit(
        jax.vmap(lambda key: SPACE.from_unit(method.propose(state, key=key)[0]))
    )
    return np.asarray(propose(jax.random.split(jax.random.key(key), count)))


def queries(widths, values):
    widths, none = np.asarray(widths, np.float32), jnp.zeros(len(values))
    value = jnp.asarray(values, jnp.float32)
    return Queries(jnp.asarray(SPACE.to_unit(widths)), value, none.astype(jnp.int32), none + 1.0)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm(cell, rows):
    """Long short-term memory in NumPy: what it says of each row."""
    hidden = memory = np.zeros(cell.hidden_size)
    found = []
    for row in rows:
        gates = np.asarray(cell.weight_ih) @ row + np.asarray(cell.weight_hh) @ hidden
        i, f, g, o = np.split(gates + np.asarray(cell.bias), 4)
        memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(memory)
        found.append(hidden)
    return np.stack(found)


def read(layers):
    low, high = np.asarray(SPACE.low)[layers], np.asarray(SPACE.high)[layers]
    return np.stack([low > 0, np.log2(1 + high) / 10, high / max(SPACE.high)], axis=1)


def test_removal_is_read_in_both_directions():
    method = N2N(recurrent_size=4)
    state = method.init(SPACE, key=jax.random.key(0))
    rows = read([0, 1, 2])
    for cells in (state.remover[0].first, state.remover[0].second):
        rows = np.hstack([lstm(cells[0], rows), lstm(cells[1], rows[::-1])[::-1]])
    head = state.remover[0].head
    keep = sigmoid(rows @ np.asarray(head.weight)[0] + np.asarray(head.bias)[0])
    widths = drawn(method, state, 4_000)
    assert set(map(tuple, widths)) == {(8.0, a, b) for a in (0.0, 20.0) for b in (0.0, 8.0)}
    np.testing.assert_allclose((widths > 0).mean(0)[1:], keep[1:], atol=0.03)


def shrinking(method, kept):
    """The state at the beginning of shrinkage, these layers having been the best."""
    state = method.init(SPACE, key=jax.random.key(0))
    full = np.where(kept, SPACE.high, 0.0)
    return method.update(state, queries([full], [1.0]), key=jax.random.key(0))[0]


def chances(state, kept, widths):
    """How probable the factors of each layer that is kept are, in NumPy."""
    earlier, rows, found = 1.0, [], []
    for layer in np.flatnonzero(kept):
        rows.append([*read([layer])[0], earlier])
        cells = state.shrinker[0].cells
        hidden = lstm(cells[1], lstm(cells[0], np.asarray(rows)))[-1]
        head = state.shrinker[0].head
        logits = np.asarray(head.weight) @ hidden + np.asarray(head.bias)
        found.append(np.exp(logits) / np.exp(logits).sum())
        earlier = widths[layer] / SPACE.high[layer]
    return found


@pytest.mark.parity
@pytest.mark.parametrize("kept", [(True, False, True), (True, True, True)])
def test_shrinkage_goes_through_the_layers_that_are_left(kept):
    method = N2N(recurrent_size=4, removal_updates=1)
    state = shrinking(method, kept)
    widths = drawn(method, state, 4_000)
    assert np.all((widths > 0) == np.asarray(kept))
    by_hand = {round(max(20.0 * f, 1.0)) for f in FACTORS}
    assert not kept[1] or set(widths[:, 1]) == by_hand
    # The first layer alone, and the last one after the most frequent of the others.
    first = {}
    for factor, chance in zip(FACTORS, chances(state, kept, widths[0])[0]):
        width = max(round(8.0 * factor), 1)
        first[width] = first.get(width, 0.0) + chance
    for width, chance in first.items():
        assert (widths[:, 0] == width).mean() == pytest.approx(chance, abs=0.03)
    before = [tuple(row) for row in widths[:, :2]]
    usual = max(set(before), key=before.count)
    chosen = np.asarray([row for row, b in zip(widths, before) if b == usual])
    last = {}
    for factor, chance in zip(FACTORS, chances(state, kept, (*usual, 0.0))[-1]):
        width = max(round(8.0 * factor), 1)
        last[width] = last.get(width, 0.0) + chance
    for width, chance in last.items():
        error = 4.0 * (chance * (1.0 - chance) / len(chosen)) ** 0.5
        assert (chosen[:, 2] == width).mean() == pytest.approx(chance, abs=error)


@pytest.mark.parity
def test_a_step_climbs_the_rewards_above_their_moving_mean():
    method = N2N(recurrent_size=4, removal_learning_rate=0.02, baseline_decay=0.5)
    start = method.init(SPACE, key=jax.random.key(0))
    first, second = drawn(method, start, 5, key=1), drawn(method, start, 5, key=2)
    values = np.asarray([0.1, 0.9, 0.4, 0.2, 0.7]), np.asarray([0.3, 0.8, 0.1, 0.6, 0.2])
    update = eqx.filter_jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])
    once = update(start, queries(first, values[0]))
    assert float(once.baseline) == pytest.approx(values[0].mean(), rel=1e-5)
    # Both batches at once are two steps, and rows without a value none.
    blank = queries(np.zeros((5, 3)), [np.nan] * 5)
    data = jax.tree.map(lambda *x: jnp.concatenate(x), queries(first, values[0]), blank)
    for ours, theirs in zip(jax.tree.leaves(update(start, data)), jax.tree.leaves(once)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    def surrogate(weight):
        """The objective of the second step, by differences: of one weight of the head."""
        remover = eqx.tree_at(lambda r: r.head.weight, once.remover[0], weight)
        rows = read([0, 1, 2])
        for cells in (remover.first, remover.second):
            rows = np.hstack([lstm(cells[0], rows), lstm(cells[1], rows[::-1])[::-1]])
        keep = sigmoid(rows @ np.asarray(weight)[0] + np.asarray(remover.head.bias)[0])[1:]
        chance = np.where(second[:, 1:] > 0, keep, 1.0 - keep)
        return np.mean((values[1] - values[0].mean()) * np.log(chance).sum(axis=1))

    twice = update(once, queries(second, values[1]))
    weight = np.asarray(once.remover[0].head.weight, np.float64)
    gradient = np.zeros_like(weight)
    for place in np.ndindex(weight.shape):
        moved = np.zeros_like(weight)
        moved[place] = 1e-5
        gradient[place] = (surrogate(weight + moved) - surrogate(weight - moved)) / 2e-5
    # Adam's second step, whose moments hold a tenth and a thousandth of what each gradient adds.
    held: Any = once.remover[1]
    moments = held[0]
    mean = 0.9 * np.asarray(moments.mu.head.weight) - 0.1 * gradient
    square = 0.999 * np.asarray(moments.nu.head.weight) + 0.001 * gradient**2
    step = mean / (1 - 0.9**2) / (np.sqrt(square / (1 - 0.999**2)) + 1e-8)
    np.testing.assert_allclose(
        twice.remover[0].head.weight, weight - 0.02 * step, rtol=1e-3, atol=1e-5
    )
    expected = 0.5 * values[0].mean() + 0.5 * values[1].mean()
    assert float(twice.baseline) == pytest.approx(expected, rel=1e-5)


@pytest.mark.oracle
def test_it_finds_the_best_of_all_architectures():
    """Worth more without the second layer, and with the others at half of their widths."""

    def worth(point):
        wanted = jnp.asarray([0.5, 0.0, 0.5])
        return -jnp.sum(jnp.abs(point / jnp.asarray(SPACE.high) - wanted))

    shares = [[0.0, *FACTORS] if low == 0.0 else FACTORS for low in SPACE.low]
    every = [np.round(np.multiply(s, SPACE.high)) for s in itertools.product(*shares)]
    top = max(float(worth(jnp.asarray(point))) for point in every)
    method = N2N(removal_learning_rate=0.03, shrinkage_learning_rate=0.03, removal_updates=30)

    @eqx.filter_jit
    def searched(key):
        source = LiveQueries(BlackBox(function=worth, space=SPACE), 5)
        return learn(method, SPACE, source, 120, measure=worth_of_queries, every=10, key=key)

    learned = searched(jax.random.key(0))
    best = SPACE.from_unit(method.recommend(learned.state, key=jax.random.key(1)))
    assert float(worth(best)) == pytest.approx(top, abs=1e-6)
    reward = np.asarray(learned.means["value"])
    assert reward[-1] > reward[0] + 0.4 and reward[-1] > top - 0.1


def test_policies_go_on_with_another_network():
    method = N2N(recurrent_size=4)
    learned = method.init(SPACE, key=jax.random.key(5))
    deeper = SearchSpace((1.0, *(0.0,) * 4), (64.0,) * 5, whole=(True,) * 5)
    state = method.warm_start(Agent(method, learned), deeper, key=jax.random.key(0))
    assert state is not None and state.best.shape == (5,) and int(state.step) == 0
    for ours, theirs in zip(
        jax.tree.leaves(state.shrinker[0]), jax.tree.leaves(learned.shrinker[0])
    ):
        np.testing.assert_array_equal(ours, theirs)
    for other in (N2N(recurrent_size=5), RandomSearch()):
        assert method.warm_start(Agent(other, learned), deeper, key=jax.random.key(0)) is None


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (SearchSpace((0.0,), (4.0,)), "make all components whole numbers"),
        (SearchSpace((-1.0,), (4.0,), whole=(True,)), "one may be -1: it must be at least 0"),
        (SearchSpace((0.0,), (4.0,), whole=(True,), costs=(1.0, 2.0)), "evaluates at one fidelity"),
    ],
)
def test_what_has_no_widths_is_refused(space, message):
    with pytest.raises(SpecificationError, match=message):
        N2N().init(space, key=jax.random.key(0))
