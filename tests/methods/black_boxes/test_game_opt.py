"""GameOpt against a posterior in NumPy, and all words of a small landscape."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.environments.black_boxes.pairwise import PairwiseLandscape
from headwater.methods.black_boxes.game_opt import GameOpt, gain, single_changes

from .beliefs import proposed, recommended

LENGTH, NOISE = 1.5, 0.25
GIVEN = {
    "hyperparameters": "given",
    "length_scale": LENGTH,
    "noise_scale": NOISE,
    "initial_points": 1,
}
SPACE = SearchSpace((0.0,) * 3, (3.0,) * 3, whole=(True,) * 3, capacity=12)
WORDS = np.array(list(itertools.product(range(4), repeat=3)))


def seen(rows=8, seed=0):
    draw = np.random.default_rng(seed)
    return WORDS[draw.choice(len(WORDS), rows, replace=False)], draw.normal(size=rows)


def taught(method, words, values, space=SPACE):
    none = jnp.zeros(len(values))
    point = jnp.asarray(space.to_unit(words.astype(np.float32)))
    data = Queries(point, jnp.asarray(values, jnp.float32), none.astype(jnp.int32), none + 1.0)
    state = method.init(space, key=jax.random.key(0))
    return jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])(state, data)


def bounds(words, values, bonus):
    """The bound of every word, where words that differ in d letters have covariance e^(-d/2l²)."""

    def kernel(one, other):
        return np.exp(-0.5 * (one[:, None] != other[None]).sum(axis=2) / LENGTH**2)

    inverse = np.linalg.inv(kernel(words, words) + NOISE**2 * np.eye(len(words)))
    cross = kernel(WORDS, words)
    mean = cross @ inverse @ values.astype(np.float32)
    return mean + bonus * np.sqrt(1.0 - np.einsum("ij,jk,ik->i", cross, inverse, cross))


def word_of(point):
    return tuple(np.round(3.0 * np.asarray(point)).astype(int).tolist())


def is_equilibrium(word, bound):
    index = {tuple(w): i for i, w in enumerate(WORDS.tolist())}
    near = [w for w in WORDS.tolist() if sum(a != b for a, b in zip(w, word)) <= 1]
    return all(bound[index[tuple(w)]] <= bound[index[word]] + 1e-6 for w in near)


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_it_proposes_the_best_new_equilibrium(seed):
    words, values = seen(seed=seed)
    method = GameOpt(bonus_scale=1.5, num_restarts=64, **GIVEN)
    state, bound = taught(method, words, values), bounds(words, values, 1.5)
    found = word_of(proposed(method, state))
    known = {tuple(w) for w in words.tolist()}
    stable = [
        (bound[i], tuple(w))
        for i, w in enumerate(WORDS.tolist())
        if is_equilibrium(tuple(w), bound) and tuple(w) not in known
    ]
    assert len(stable) > 0 and found == max(stable)[1]
    assert float(gain(method, state, jnp.asarray(found) / 3.0)) == pytest.approx(0.0, abs=1e-9)
    # What is recommended may have been evaluated, and counts by its mean alone.
    mean = bounds(words, values, 0.0)
    assert word_of(recommended(method, state)) == tuple(WORDS[np.argmax(mean)].tolist())


def test_comparisons_look_where_they_say():
    words, values = seen(seed=1)
    bound = bounds(words, values, 2.0)
    known = {tuple(w) for w in words.tolist()}
    method = GameOpt(maximiser="neighbours", **GIVEN)
    best = words[np.argmax(values)]
    near = [i for i, w in enumerate(WORDS) if (w != best).sum() == 1 and tuple(w) not in known]
    expected = WORDS[max(near, key=lambda i: bound[i])]
    found = word_of(proposed(method, taught(method, words, values)))
    assert found == tuple(expected.tolist())
    new = [i for i, w in enumerate(WORDS.tolist()) if tuple(w) not in known]
    method = GameOpt(maximiser="pool", pool_size=2_000, **GIVEN)
    found = word_of(proposed(method, taught(method, words, values)))
    assert found == tuple(WORDS[max(new, key=lambda i: bound[i])].tolist())


def test_single_changes_are_all_points_with_one_other_component():
    space = SearchSpace((0.0, -1.0), (2.0, 0.0), whole=(True, True))
    found = np.asarray(single_changes(space, jnp.asarray([0.5, 1.0])))
    expected = {(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (0.5, 0.0)}
    assert {tuple(row) for row in found.tolist()} == expected


def test_where_all_equilibria_were_evaluated_a_change_of_the_best_comes_next():
    space = SearchSpace((0.0, 0.0), (1.0, 1.0), whole=(True, True), capacity=6)
    words, values = np.array([[0, 0], [1, 1]]), np.array([2.0, 1.0])
    method = GameOpt(bonus_scale=0.0, **GIVEN)
    point = np.asarray(proposed(method, taught(method, words, values, space)))
    assert point.sum() == 1.0


def test_the_highest_word_is_that_of_all_words():
    box = PairwiseLandscape(sites=3, letters=4, pair_share=0.8, seed=5)
    instance = box.reset()
    value = jax.vmap(lambda word: box.mean_value(instance, word, jnp.asarray(0)))
    found = np.asarray(value(jnp.asarray(WORDS, jnp.float32)), np.float64)
    assert float(box.highest(instance)) == pytest.approx(found.max(), abs=1e-5)
    single, pairs = np.asarray(instance.single), np.asarray(instance.pairs)
    a, b, c = WORDS[17]
    by_hand = single[0, a] + single[1, b] + single[2, c]
    by_hand += pairs[0, a, 1, b] + pairs[0, a, 2, c] + pairs[1, b, 2, c]
    assert found[17] == pytest.approx(by_hand, abs=1e-5)
    with pytest.raises(SpecificationError, match="sites = 12, letters = 20: the best of so many"):
        PairwiseLandscape(sites=12, letters=20)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (SearchSpace((0.0,), (3.0,)), "make all components whole numbers, and give no candidates"),
        (SearchSpace.of_candidates([[0.0], [1.0]]), "give no candidates"),
        (SearchSpace((0.0,), (2e4,), whole=(True,)), "20,001 are more than 10,000"),
    ],
)
def test_what_is_no_game_is_refused(space, message):
    with pytest.raises(SpecificationError, match=message):
        GameOpt().init(space, key=jax.random.key(0))
