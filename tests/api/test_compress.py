"""A network of one's own is compressed to a module that is smaller, and what is refused."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.api.compress import compress
from headwater.api.train import train
from headwater.core.errors import DataError, SpecificationError
from headwater.environments.black_boxes.compression import Compression
from headwater.methods.black_boxes.n2n import N2N
from headwater.networks.mlp import MLP

TEACHER = eqx.nn.MLP(2, 3, 8, 2, key=jax.random.key(0))
INPUTS = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
LABELS = np.asarray(jnp.argmax(jax.vmap(TEACHER)(jnp.asarray(INPUTS)), axis=1))
FEW = {"evaluations": 12, "batch_size": 3, "distillation_steps": 4}


@pytest.fixture(scope="module")
def found():
    method = N2N(recurrent_size=3, removal_updates=2)
    return compress(TEACHER, INPUTS, LABELS, method=method, seed=3, **FEW)


def test_the_student_is_what_the_table_says(found):
    rows = found.table.to_pylist()
    assert 1 <= len(rows) <= 12 and len({tuple(row["widths"]) for row in rows}) == len(rows)
    assert found.teacher_accuracy == 1.0
    parameters = sum(x.size for x in jax.tree.leaves(eqx.filter(found.student, eqx.is_array)))
    row = next(row for row in rows if tuple(row["widths"]) == found.widths)
    assert row["parameters"] == parameters < 2 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3
    assert row["reward"] == max(r["reward"] for r in rows if r["accuracy"] is not None)
    left = [width for width in found.widths if width]
    assert [w.shape for w in found.student.weights] == list(zip([2, *left], [*left, 3]))
    # The rows held out are those that the seed says.
    judged = np.random.default_rng(3).permutation(80)[:20]
    named = np.argmax(np.asarray(found.student(jnp.asarray(INPUTS[judged]))), axis=1)
    assert np.mean(named == LABELS[judged]) == pytest.approx(row["accuracy"]) == found.accuracy
    for row in rows:
        share = row["parameters"] / 123
        expected = -1.0 if row["accuracy"] is None else row["accuracy"] * (1.0 - share**2)
        assert row["reward"] == pytest.approx(expected, abs=1e-5)


def test_policies_and_other_methods_go_on(found):
    teacher = MLP(2, 3, (8, 8), key=jax.random.key(1), activation="tanh")
    labels = np.asarray(jnp.argmax(teacher(jnp.asarray(INPUTS)), axis=1))
    method = N2N(recurrent_size=3, removal_updates=1)
    again = compress(teacher, INPUTS, labels, method=method, begin=found, seed=1, **FEW)
    assert again.student.activation == "tanh" and again.teacher_accuracy == 1.0
    random = compress(
        teacher, INPUTS, labels, method="RandomSearch", accuracy_loss=1.0, seed=1, **FEW
    )
    sizes = [row["parameters"] for row in random.table.to_pylist() if row["accuracy"] is not None]
    assert random.times_smaller == 123 / min(sizes)
    with pytest.raises(SpecificationError, match="RandomSearch cannot go on from what N2N learned"):
        compress(TEACHER, INPUTS, LABELS, method="RandomSearch", begin=found, **FEW)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": "IQL"}, SpecificationError, "IQL proposes no architectures"),
        ({"teacher": lambda x: x}, SpecificationError, "the teacher is a function: a headwater"),
        (
            {"teacher": MLP(2, 3, (4,), key=jax.random.key(0), layer_norm="before")},
            SpecificationError,
            "the teacher has layer norms",
        ),
        (
            {"teacher": eqx.nn.MLP(2, 3, 4, 2, jax.nn.elu, key=jax.random.key(0))},
            SpecificationError,
            "activations are others than relu, tanh, gelu, silu",
        ),
        ({"labels": LABELS[:5]}, DataError, r"shape \(80, 2\) and labels \(5,\)"),
        ({"labels": LABELS.astype(float)}, DataError, "labels are of type float64"),
        ({"inputs": "rows"}, DataError, "inputs are not rows of numbers"),
        ({"held_out": 0.0}, SpecificationError, "held_out = 0.0 of 80 rows"),
        ({"labels": LABELS - 3}, DataError, "labels lie between -"),
        ({"labels": LABELS.astype(np.int64) + 2**40}, DataError, "the teacher tells 3 classes"),
        ({"teacher": jax.tree.map(lambda x: x * jnp.nan if eqx.is_array(x) else x, TEACHER)},
         DataError, "weights or biases of the teacher are not finite"),
        ({"teacher": eqx.nn.MLP(2, 3, 4, 2, final_activation=jax.nn.softmax,
                                key=jax.random.key(0))},
         SpecificationError, "one behind its outputs, which have to be logits"),
        ({"distillation_batch_size": 0}, SpecificationError, "distillation_batch_size = 0: it"),
        ({"distillation_steps": 2.5}, SpecificationError, "distillation_steps = 2.5: it must"),
        ({"learning_rate": float("nan")}, SpecificationError, "learning_rate = nan: it must be a"),
        ({"learning_rate": -1.0}, SpecificationError, "learning_rate = -1.0: it must be a finite"),
        ({"seed": -1}, SpecificationError, "seed = -1: it must be a whole number from 0 on"),
        ({"batch_size": 30}, SpecificationError, "batch_size = 30, evaluations = 12"),
        ({"epochs": 3}, SpecificationError, "no option 'epochs': there is distillation_steps"),
        ({"learning_rate": 0.0, "inherit": False, "accuracy_loss": -0.5}, SpecificationError,
         "no student comes within -0.5 of the teacher's accuracy"),
    ],
)  # fmt: skip
def test_what_cannot_be_compressed_is_refused(changes, error, message):
    given = {"teacher": TEACHER, "inputs": INPUTS, "labels": LABELS, **FEW, **changes}
    with pytest.raises(error, match=message):
        compress(given.pop("teacher"), given.pop("inputs"), given.pop("labels"), **given)


def test_the_front_door_trains_it():
    given: dict[str, Any] = {
        "weights": tuple(layer.weight.T for layer in TEACHER.layers),
        "biases": tuple(layer.bias for layer in TEACHER.layers),
        "inputs": jnp.asarray(INPUTS),
        "validation_inputs": jnp.asarray(INPUTS),
        "validation_labels": jnp.asarray(LABELS),
        "distillation_steps": 2,
    }
    box = Compression(**given)
    method = N2N(recurrent_size=3)
    run = train(method, env=box, steps=6, batch_size=3, seeds=2, evaluations=1, progress=False)
    assert run.finished and run.state.best.shape == (2, 2)
    # What is recommended is worth what the best was: evaluations are exact.
    values = np.asarray(run.evaluations[-1]["returns"]).ravel()
    assert values.max() == pytest.approx(float(np.max(run.state.best_value)), abs=1e-6)
