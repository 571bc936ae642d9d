"""Students as masks in a teacher against networks that are small, and what is refused."""

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.core.method import Agent
from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.compression import Compression, Network
from headwater.methods.black_boxes.n2n import N2N
from headwater.sources.queries import RememberedQueries

SIZES = (3, 6, 5, 7, 4)
ONLY = jnp.asarray(0, jnp.int32)


def compression(**changes):
    draw = np.random.default_rng(0)
    weights = [draw.normal(size=pair) / pair[0] ** 0.5 for pair in pairwise(SIZES)]
    biases = [0.1 * draw.normal(size=size) for size in SIZES[1:]]
    given: dict[str, Any] = {
        "weights": tuple(jnp.asarray(weight, jnp.float32) for weight in weights),
        "biases": tuple(jnp.asarray(bias, jnp.float32) for bias in biases),
        "inputs": jnp.asarray(draw.normal(size=(20, 3)), jnp.float32),
        "validation_inputs": jnp.asarray(draw.normal(size=(40, 3)), jnp.float32),
        "validation_labels": jnp.asarray(draw.integers(4, size=40), jnp.int32),
        "distillation_steps": 12,
        "batch_size": 8,
    }
    return Compression(**{**given, **changes})


def distilled(box, student, chosen) -> Any:
    """Distillation of a small network, without any mask."""
    teacher = box.output(Network(box.weights, box.biases), box.inputs)
    optimiser = optax.adam(box.learning_rate)
    loss = lambda s, rows: jnp.mean((box.output(s, box.inputs[rows]) - teacher[rows]) ** 2)

    def step(carry, rows):
        student, moments = carry
        updates, moments = optimiser.update(jax.grad(loss)(student, rows), moments)
        return (optax.apply_updates(student, updates), moments), None

    return jax.lax.scan(step, (student, optimiser.init(student)), chosen)[0][0]


@pytest.mark.parametrize(
    ("widths", "activation", "inherit"),
    [
        ((4, 0, 3), "relu", True),
        ((1, 5, 0), "silu", True),
        ((6, 0, 0), "tanh", False),
        ((2, 3, 4), "gelu", False),
    ],
)
def test_a_student_under_a_mask_is_the_small_network(widths, activation, inherit):
    box = compression(inherit=inherit, activation=activation)
    where = jnp.asarray(widths, jnp.int32)
    begun = box.cut(box.beginning(where), list(widths))
    key = jax.random.fold_in(jax.random.key(0), len(SIZES) - 1)
    small = distilled(box, begun, jax.random.randint(key, (12, 8), 0, 20))
    found = box.network(widths)
    left = [w for w in widths if w]
    shapes = [(a, b) for a, b in zip([3, *left], [*left, 4])]
    assert [weight.shape for weight in found.weights] == shapes
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(small)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    outcome = box.outcome(box.reset(), jnp.asarray(widths, jnp.float32))
    assert float(outcome.accuracy) == float(box.accuracy(small))
    assert int(outcome.parameters) == sum(x.size for x in jax.tree.leaves(small))


def test_layers_inherit_what_they_still_read():
    box = compression()
    begun = box.beginning(jnp.asarray((4, 0, 3), jnp.int32))
    np.testing.assert_array_equal(begun.weights[0][:, :4], box.weights[0][:, :4])
    assert not np.any(begun.weights[0][:, 4:])
    # It stood behind the layer that is gone.
    assert not np.allclose(begun.weights[2][:4, :3], box.weights[2][:4, :3])
    np.testing.assert_array_equal(begun.weights[3][:3], box.weights[3][:3])
    anew = compression(inherit=False).beginning(jnp.asarray((4, 0, 3), jnp.int32))
    assert not np.allclose(anew.weights[0][:, :4], box.weights[0][:, :4])


def test_the_reward_is_that_of_the_paper():
    box = compression()
    instance = box.reset()
    assert int(instance.parameters) == 24 + 35 + 42 + 32
    outcome = box.outcome(instance, jnp.asarray([2.0, 0.0, 3.0]))
    share = 1.0 - (8 + 9 + 16) / 133
    expected = float(outcome.accuracy) / float(instance.accuracy) * share * (2.0 - share)
    assert float(outcome.reward) == pytest.approx(expected, rel=1e-5)
    assert float(outcome.compression) == pytest.approx(share, rel=1e-5)
    # No smaller than the teacher.
    assert float(box.mean_value(instance, jnp.asarray([6.0, 5.0, 7.0]), ONLY)) == -1.0


def test_no_architecture_is_evaluated_twice():
    box, method = compression(), N2N(recurrent_size=2)
    source = RememberedQueries(box, batch_size=4, room=12)
    agent = Agent(method, method.init(box.space, key=jax.random.key(0)))
    draw = eqx.filter_jit(lambda state, key: source.draw(state, agent, key=key))
    state = source.init(key=jax.random.key(1))
    seen: dict[tuple[int, ...], float] = {}
    costs = []
    for number in range(3):
        state, data = draw(state, jax.random.key(number))
        widths = np.asarray(box.space.from_unit(np.asarray(data.point))).astype(int)
        for row, value, cost in zip(widths.tolist(), data.value, data.cost):
            # Four architectures are left to removal: the first layer stays.
            assert float(cost) == (tuple(row) not in seen)
            assert seen.setdefault(tuple(row), float(value)) == float(value)
            costs.append(float(cost))
    assert int(state.count) == len(seen) == sum(costs) <= 4 < int(state.evaluations) == 12
    stored = np.asarray(box.space.from_unit(np.asarray(state.point)))[: len(seen)]
    for row, value in zip(stored.astype(int).tolist(), state.value):
        exact = box.mean_value(box.reset(), jnp.asarray(row, jnp.float32), ONLY)
        assert seen[tuple(row)] == float(value) == pytest.approx(float(exact), abs=1e-6)


def test_arrays_of_numpy_and_lists_are_taken():
    box = compression()
    others = {name: np.asarray(getattr(box, name)) for name in ("inputs", "validation_inputs")}
    given = compression(
        **others,
        weights=[np.asarray(weight) for weight in box.weights],
        validation_labels=np.asarray(box.validation_labels).tolist(),
    )
    assert jax.tree.structure(given) == jax.tree.structure(box)
    for ours, theirs in zip(jax.tree.leaves(given), jax.tree.leaves(box)):
        np.testing.assert_array_equal(ours, theirs)
    assert all(isinstance(leaf, jax.Array) for leaf in (*given.weights, given.inputs))


def test_what_is_no_teacher_is_refused():
    box = compression()
    with pytest.raises(DataError, match="inputs are no array of numbers"):
        compression(inputs="rows")
    with pytest.raises(SpecificationError, match="weights = None: an array for each layer"):
        compression(weights=None)
    with pytest.raises(SpecificationError, match="are no network"):
        compression(weights=(jnp.zeros(2), jnp.zeros(3)), biases=(jnp.zeros(()),) * 2)
    with pytest.raises(SpecificationError, match="each layer reads what the one before it writes"):
        eqx.tree_at(lambda b: b.weights, box, box.weights[1:]).__check_init__()
    with pytest.raises(SpecificationError, match="activation = 'sine': students know relu, tanh"):
        compression(activation="sine")
    with pytest.raises(SpecificationError, match="distillation_steps = 0: it must be at least 1"):
        compression(distillation_steps=0)
    others = {name: getattr(box, name) for name in ("weights", "biases", "validation_inputs")}
    labels = box.validation_labels
    with pytest.raises(DataError, match=r"inputs have shape \(20, 2\): rows of 3 numbers"):
        Compression(inputs=box.inputs[:, :2], validation_labels=labels, **others)
    with pytest.raises(DataError, match="inputs hold numbers that are not finite"):
        Compression(inputs=box.inputs.at[0].set(jnp.nan), validation_labels=labels, **others)
    with pytest.raises(DataError, match="labels lie between 0 and 4, and the teacher tells 4"):
        Compression(inputs=box.inputs, validation_labels=labels.at[0].set(4), **others)
    with pytest.raises(DataError, match="a whole number for each row of validation_inputs"):
        Compression(inputs=box.inputs, validation_labels=labels[:3], **others)
    with pytest.raises(SpecificationError, match=r"at least \[1, 0, 0\] and at most \[6, 5, 7\]"):
        box.network((0, 5, 7))
    assert isinstance(box.space, SearchSpace) and box.space.low == (1.0, 0.0, 0.0)
