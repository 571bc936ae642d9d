"""Compress a network of one's own: the smallest student that is about as good."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from headwater.api.inputs import as_method
from headwater.core.catalogue import learns_from
from headwater.core.errors import DataError, SpecificationError
from headwater.core.method import AbstractMethod, AbstractProposer, AbstractWarmStart, Agent
from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.compression import Compression
from headwater.networks.mlp import MLP
from headwater.runs.learn import learn
from headwater.sources.queries import RememberedQueries

if TYPE_CHECKING:
    import pyarrow as pa

_COUNTS = ("distillation_steps", "distillation_batch_size")
_ACTIVATIONS = {jax.nn.relu: "relu", jnp.tanh: "tanh", jax.nn.gelu: "gelu", jax.nn.silu: "silu"}


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
    """What came of compressing a network.

    **Arguments:** `student`: the network that was chosen, trained; `widths`: of the teacher's
    hidden layers in it, 0 for those that are gone; `accuracy`, `teacher_accuracy`: on the rows that
    students were judged by; `times_smaller`: the teacher's parameters over the student's;
    `table`: every architecture that was evaluated, in this order: `widths`, `parameters`,
    `times_smaller`, `accuracy` (null where it was no smaller than the teacher) and `reward`;
    `agent`: the method with what it learned, for `begin` of another teacher.
    """

    student: MLP
    widths: tuple[int, ...]
    accuracy: float
    teacher_accuracy: float
    times_smaller: float
    table: "pa.Table"
    agent: Agent


def compress(
    teacher: Any,
    inputs: Any,
    labels: Any,
    *,
    held_out: float = 0.25,
    method: AbstractMethod | str | type = "N2N",
    evaluations: int = 200,
    batch_size: int = 5,
    accuracy_loss: float | None = None,
    begin: Compressed | None = None,
    seed: int = 0,
    **distillation: Any,
) -> Compressed:
    """Looks for a smaller network that names nearly as many rows as `teacher`.

    **Arguments:**

    - `teacher`: fully connected layers, a `headwater.networks.mlp.MLP` or an `equinox.nn.MLP`.
    - `inputs`, `labels`: `[row, input]` and classes from 0, `[row]`. Students learn from the
      teacher's logits on a part of the rows, and are judged by the labels of the others.
    - `held_out`: the share of rows to judge by. Choosing among students makes the accuracy on them
      a little too high: judge what was chosen on rows that are not given here.
    - `method`: any that proposes points, by name or as an object: `N2N`, or `RandomSearch`.
    - `evaluations`: architectures that are proposed; those that were seen before cost nothing.
    - `batch_size`: students that are trained side by side; of `evaluations` what is left over
      after whole batches is left out.
    - `accuracy_loss`: the student that is returned is the smallest of those whose accuracy is at
      most so much below the teacher's; by default that of the highest reward.
    - `begin`: what came of another teacher, whose policies are gone on with.
    - `seed`: of all randomness.
    - `distillation`: `distillation_steps`, `learning_rate`, `inherit` and the rows of a step,
      `distillation_batch_size`: see `Compression`.

    Raises `SpecificationError` or `DataError` for what does not fit together, and
    `SpecificationError` if no student loses as little as `accuracy_loss`.
    """
    method = as_method(method)
    of_spaces = learns_from(type(method))[0] is SearchSpace
    if not of_spaces or not isinstance(method, AbstractProposer):
        raise SpecificationError(
            f"{type(method).__name__} proposes no architectures: take N2N or RandomSearch"
        )
    _require_whole(evaluations=evaluations, batch_size=batch_size)
    if not 1 <= batch_size <= evaluations:
        raise SpecificationError(
            f"batch_size = {batch_size}, evaluations = {evaluations}: at least one architecture "
            "at once is needed, and no more than all"
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise SpecificationError(f"seed = {seed!r}: it must be a whole number from 0 on")
    box = _box(teacher, inputs, labels, held_out, seed, distillation)
    room = evaluations // batch_size * batch_size
    space = dataclasses.replace(box.space, capacity=room)
    state_key, learn_key = jax.random.split(jax.random.key(seed))
    state = None
    if begin is not None:
        if isinstance(method, AbstractWarmStart):
            state = method.warm_start(begin.agent, space, key=state_key)
        if state is None:
            raise SpecificationError(
                f"{type(method).__name__} cannot go on from what "
                f"{type(begin.agent.method).__name__} learned: leave out begin, or take N2N with "
                "the same recurrent_size"
            )
    # What the method cannot take is said before the first student is trained.
    jax.eval_shape(lambda key: method.init(space, key=key), learn_key)
    source = RememberedQueries(box, batch_size, room)
    updates = room // batch_size
    learned = eqx.filter_jit(learn)(method, space, source, updates, state=state, key=learn_key)
    source.check(learned.source_state)
    rows, teacher_accuracy = _rows(box, learned.source_state)
    chosen = _chosen(rows, teacher_accuracy, accuracy_loss)
    network = box.network(chosen["widths"])
    # Arrow is loaded where it is needed: nobody else has to wait for it.
    import pyarrow as pa

    return Compressed(
        _module(network.weights, network.biases, box.activation),
        tuple(chosen["widths"]),
        chosen["accuracy"],
        teacher_accuracy,
        chosen["times_smaller"],
        pa.Table.from_pylist(rows),
        Agent(method, learned.state),
    )


def _require_whole(**given: Any) -> None:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise SpecificationError(f"{name} = {value!r}: it must be at least 1, and whole")


def _box(teacher, inputs, labels, held_out: float, seed: int, distillation: dict) -> Compression:
    weights, biases, activation = _layers(teacher)
    try:
        rows, names = np.asarray(inputs, np.float32), np.asarray(labels)
    except (TypeError, ValueError):
        raise DataError("inputs are not rows of numbers of one length") from None
    if rows.ndim != 2 or names.shape != rows.shape[:1]:
        raise DataError(
            f"inputs have shape {rows.shape} and labels {names.shape}: a row of numbers and a "
            "class for each is needed"
        )
    count = round(held_out * len(rows)) if 0.0 < held_out < 1.0 else 0
    if not 1 <= count < len(rows):
        raise SpecificationError(
            f"held_out = {held_out} of {len(rows)} rows: students need some to learn from and some "
            "to be judged by"
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    judged, taught = order[:count], order[count:]
    if not np.issubdtype(names.dtype, np.integer):
        raise DataError(f"labels are of type {names.dtype}: classes are whole numbers from 0")
    classes = weights[-1].shape[1]
    if names.min() < 0 or names.max() >= classes:
        raise DataError(
            f"labels lie between {names.min()} and {names.max()}, and the teacher tells {classes} "
            "classes apart, counted from 0"
        )
    known = {
        "distillation_steps": "distillation_steps",
        "distillation_batch_size": "batch_size",
        "learning_rate": "learning_rate",
        "inherit": "inherit",
    }
    for name in distillation:
        if name not in known:
            raise SpecificationError(f"there is no option '{name}': there is {', '.join(known)}")
    _require_whole(**{name: n for name, n in distillation.items() if name in _COUNTS})
    given: dict[str, Any] = {
        "weights": weights,
        "biases": biases,
        "inputs": jnp.asarray(rows[taught]),
        "validation_inputs": jnp.asarray(rows[judged]),
        "validation_labels": jnp.asarray(names[judged], jnp.int32),
        "activation": activation,
        "seed": seed,
    }
    return Compression(**given, **{known[name]: value for name, value in distillation.items()})


def _layers(teacher: Any) -> tuple[tuple[Array, ...], tuple[Array, ...], str]:
    """Weights `[fan_in, fan_out]`, biases and the activation of a teacher."""
    if isinstance(teacher, MLP):
        if teacher.layer_norm is not None:
            raise SpecificationError("the teacher has layer norms, which students have not")
        return teacher.weights, teacher.biases, teacher.activation
    if not isinstance(teacher, eqx.nn.MLP):
        raise SpecificationError(
            f"the teacher is a {type(teacher).__name__}: a headwater.networks.mlp.MLP or an "
            "equinox.nn.MLP is needed"
        )
    activation = _ACTIVATIONS.get(teacher.activation)
    if activation is None or not _changes_nothing(teacher.final_activation):
        raise SpecificationError(
            f"the teacher's activations are others than {', '.join(_ACTIVATIONS.values())}, or it "
            "has one behind its outputs, which have to be logits"
        )
    weights = tuple(layer.weight.T for layer in teacher.layers)
    biases = tuple(
        jnp.zeros(w.shape[1]) if layer.bias is None else layer.bias
        for w, layer in zip(weights, teacher.layers)
    )
    return weights, biases, activation


def _changes_nothing(function: Any) -> bool:
    probe = jnp.linspace(-2.0, 2.0, 5)
    try:
        return bool(jnp.all(jax.vmap(function)(probe) == probe))
    except (TypeError, ValueError):  # One of several numbers, such as softmax.
        return False


def _rows(box: Compression, source_state: Any) -> tuple[list[dict[str, Any]], float]:
    """What was evaluated, a row for each architecture, and the teacher's accuracy."""
    teaching, held_out = box.reset(), len(box.validation_labels)
    whole, teacher_accuracy = int(teaching.parameters), float(teaching.accuracy)
    count, rows = int(source_state.count), []
    points = np.asarray(box.space.from_unit(np.asarray(source_state.point)))[:count]
    for point, value in zip(points.round().astype(int).tolist(), source_state.value):
        parameters, reward = int(box.parameters(jnp.asarray(point))), float(value)
        accuracy = None
        if parameters < whole:
            # The reward follows from it; a share of so many rows is exact.
            relative = reward / (1.0 - (parameters / whole) ** 2)
            accuracy = round(relative * teacher_accuracy * held_out) / held_out
        found = {"widths": point, "parameters": parameters, "times_smaller": whole / parameters}
        rows.append({**found, "accuracy": accuracy, "reward": reward})
    return rows, teacher_accuracy


def _chosen(rows: list[dict], teacher_accuracy: float, accuracy_loss: float | None) -> dict:
    smaller = [row for row in rows if row["accuracy"] is not None]
    if not smaller:
        raise SpecificationError(
            "no architecture that was proposed is smaller than the teacher: allow more evaluations"
        )
    if accuracy_loss is None:
        return max(smaller, key=lambda row: row["reward"])
    least = teacher_accuracy - accuracy_loss
    good = [row for row in smaller if row["accuracy"] >= least - 1e-6]
    if not math.isfinite(accuracy_loss) or not good:
        top = max(row["accuracy"] for row in smaller)
        raise SpecificationError(
            f"no student comes within {accuracy_loss:g} of the teacher's accuracy of "
            f"{teacher_accuracy:.3f}; the best has {top:.3f}: allow more, or more "
            "distillation_steps or evaluations"
        )
    return min(good, key=lambda row: row["parameters"])


def _module(weights, biases, activation) -> MLP:
    sizes = [weight.shape[0] for weight in weights]
    outputs = weights[-1].shape[1]
    made = MLP(sizes[0], outputs, tuple(sizes[1:]), key=jax.random.key(0), activation=activation)
    return eqx.tree_at(lambda m: (m.weights, m.biases), made, (weights, biases))
