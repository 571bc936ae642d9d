"""The compression of a network as a black box: what a student is worth, by its layers' widths."""

import functools
import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from headwater.core.errors import DataError, SpecificationError
from headwater.core.problems.search_space import SearchSpace
from headwater.environments.black_boxes.black_box import AbstractExactBox

_ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "gelu": jax.nn.gelu, "silu": jax.nn.silu}


def _array(name: str, given: Any) -> Array:
    """What was given as an array of JAX, whichever kind of numbers it is."""
    try:
        return jnp.asarray(given)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{name} are no array of numbers: rows of one length are needed") from None


def _arrays(name: str, given: Any) -> tuple[Array, ...]:
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise SpecificationError(f"{name} = {given!r}: an array for each layer is needed")
    return tuple(_array(name, each) for each in given)


def _part(name: str, convert: Any = _array) -> Any:
    return eqx.field(converter=functools.partial(convert, name))


class Network(NamedTuple):
    """Fully connected layers, or arrays of the shape of a teacher in which a student lies.

    **Arguments:** `weights`: of each layer `[fan_in, fan_out]`, the output's last; `biases`.
    """

    weights: tuple[Float[Array, "_fan_in _fan_out"], ...]
    biases: tuple[Float[Array, " _fan_out"], ...]


class Teaching(NamedTuple):
    """What all students of a teacher share: its logits, its accuracy and its size."""

    logits: Float[Array, "row class"]
    accuracy: Float[Array, ""]
    parameters: Int[Array, ""]


class Outcome(NamedTuple):
    """What came of a student; `compression`: the share of parameters that it is without."""

    reward: Float[Array, ""]
    accuracy: Float[Array, ""]
    parameters: Int[Array, ""]
    compression: Float[Array, ""]


class Compression(AbstractExactBox):
    r"""What students of a fully connected teacher are worth, by the widths of their hidden layers.

    A point holds the number of units of each hidden layer of the teacher, from 0, where the layer
    is removed, to what the teacher has; the first layer is never removed. The value is
    $C(2-C)\,a/a_{teacher}$, $C$ being the share of the teacher's parameters that the student is
    without, $a$ the accuracy on `validation_inputs`; it is -1 where the student is no smaller.

    A student regresses the teacher's logits on `inputs`, with squared errors. It lies as a mask
    in arrays of the teacher's shape, so that students of all widths are one program; of `network`
    one gets the small network itself. The same point always brings the same student.

    **Arguments:**

    - `weights`, `biases`: the teacher's `[fan_in, fan_out]` and `[fan_out]`, the output last.
    - `inputs`: `[row, input]`, to learn from; no labels are needed.
    - `validation_inputs`, `validation_labels`: `[row, input]` and `[row]`: classes from 0.
    - `activation`: of the hidden layers.
    - `distillation_steps`, `batch_size`, `learning_rate`: of Adam, for each student.
    - `inherit`: a layer behind the same layer as in the teacher begins with the teacher's leading
      rows and columns; all others, and without `inherit` all, begin at random.
    - `seed`: of where students begin and of the rows of their batches.

    Raises `SpecificationError` or `DataError` for what is no such network, or no such data.

    **Reference:** Ashok, Rhinehart, Beainy and Kitani (2018), arXiv:1709.06030.

    **Differences from the paper:** fully connected layers and no convolutions; a student trains
    for a number of steps and not for five epochs. In the authors' code students begin at random.
    """

    reference_returns: ClassVar[None] = None
    noise: ClassVar[float] = 0.0

    weights: tuple[Float[Array, "_fan_in _fan_out"], ...] = _part("weights", _arrays)
    biases: tuple[Float[Array, " _fan_out"], ...] = _part("biases", _arrays)
    inputs: Float[Array, "_row _input"] = _part("inputs")
    validation_inputs: Float[Array, "_held_out _input"] = _part("validation_inputs")
    validation_labels: Int[Array, " _held_out"] = _part("validation_labels")
    learning_rate: float | Float[Array, ""] = 3e-3
    activation: str = eqx.field(static=True, default="relu")
    distillation_steps: int = eqx.field(static=True, default=200)
    batch_size: int = eqx.field(static=True, default=64)
    inherit: bool = eqx.field(static=True, default=True)
    seed: int | Int[Array, ""] = 0
    name: str = eqx.field(static=True, default="compression")

    def __check_init__(self):
        if self.activation not in _ACTIVATIONS:
            raise SpecificationError(
                f"activation = {self.activation!r}: students know {', '.join(_ACTIVATIONS)}"
            )
        for name in ("distillation_steps", "batch_size"):
            value: Any = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < 1:
                raise SpecificationError(f"{name} = {value!r}: it must be at least 1, and whole")
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(self)):
            return  # While a program is traced or mapped.
        rate: Any = self.learning_rate
        if isinstance(rate, int | np.number | np.ndarray | jax.Array) and np.ndim(rate) == 0:
            rate = float(rate)
        if not isinstance(rate, float) or not 0.0 <= rate < math.inf:
            raise SpecificationError(
                f"learning_rate = {rate!r}: it must be a finite number, and at least 0"
            )
        shapes = [w.shape for w in self.weights]
        fits = len(shapes) >= 2 and len(shapes) == len(self.biases)
        fits = fits and all(len(shape) == 2 for shape in shapes)
        fits = fits and all(a[1] == b[0] for a, b in pairwise(shapes))
        if not fits or any(w[1:] != b.shape for w, b in zip(shapes, self.biases)):
            raise SpecificationError(
                f"weights of the shapes {shapes} and {len(self.biases)} biases are no network: "
                "each layer reads what the one before it writes, and one hidden layer is needed"
            )
        if not all(np.isfinite(x).all() for x in (*self.weights, *self.biases)):
            raise DataError("weights or biases of the teacher are not finite: train it anew")
        for name in ("inputs", "validation_inputs"):
            given = getattr(self, name)
            if given.ndim != 2 or given.shape[1] != shapes[0][0] or not len(given):
                raise DataError(
                    f"{name} have shape {given.shape}: rows of {shapes[0][0]} numbers, which the "
                    "teacher reads, are needed"
                )
            if not np.isfinite(given).all():
                raise DataError(f"{name} hold numbers that are not finite: leave out such rows")
        labels, classes = np.asarray(self.validation_labels), shapes[-1][1]
        whole = labels.shape == (len(self.validation_inputs),)
        if not whole or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"validation_labels have shape {labels.shape} and type {labels.dtype}: a whole "
                "number for each row of validation_inputs is needed"
            )
        if labels.min() < 0 or labels.max() >= classes:
            raise DataError(
                f"labels lie between {labels.min()} and {labels.max()}, and the teacher tells "
                f"{classes} classes apart, counted from 0"
            )

    @property
    def space(self) -> SearchSpace:
        """The widths of the hidden layers; 0 for a layer that is removed."""
        widths = tuple(float(weight.shape[1]) for weight in self.weights[:-1])
        low = (1.0, *(0.0,) * (len(widths) - 1))
        # A layer of one unit can be removed only.
        return SearchSpace(
            tuple(min(a, b - 1.0) for a, b in zip(low, widths)), widths, whole=(True,) * len(widths)
        )

    def reset(self) -> Teaching:
        """What the teacher says of the rows to learn from, and how good and large it is."""
        teacher = Network(self.weights, self.biases)
        return Teaching(
            self.output(teacher, self.inputs),
            self.accuracy(teacher),
            jnp.asarray(sum(x.size for x in jax.tree.leaves(teacher)), jnp.int32),
        )

    def mean_value(self, instance: Teaching, point, fidelity) -> Float[Array, ""]:
        return self.outcome(instance, point).reward

    def outcome(self, instance: Teaching, point: Float[Array, " layer"]) -> Outcome:
        """What a student of these widths, trained anew, is worth."""
        widths = _whole(point)
        student = self.trained(instance, widths)
        accuracy = self._masked_accuracy(student, widths)
        parameters = self.parameters(widths)
        left = parameters / instance.parameters
        relative = accuracy / jnp.maximum(instance.accuracy, 1e-6)
        # C (2 - C) with C = 1 - left.
        reward = jnp.where(parameters < instance.parameters, relative * (1.0 - left**2), -1.0)
        return Outcome(reward, accuracy, parameters, 1.0 - left)

    def parameters(self, widths: Int[Array, " layer"]) -> Int[Array, ""]:
        """Weights and biases of the student, counted exactly."""
        fan_in, total = self.inputs.shape[1], jnp.zeros((), jnp.int32)
        for layer in range(len(self.weights) - 1):
            total = total + widths[layer] * (fan_in + 1)
            fan_in = jnp.where(widths[layer] > 0, widths[layer], fan_in)
        return total + self.weights[-1].shape[1] * (fan_in + 1)

    def beginning(self, widths: Int[Array, " layer"]) -> Network:
        """The student before training: zeros wherever it has no weight."""
        key, fan_in = jax.random.key(self.seed), jnp.asarray(self.inputs.shape[1], jnp.int32)
        behind, weights, biases = jnp.asarray(True), [], []
        for layer, (weight, bias) in enumerate(zip(self._padded(), self.biases)):
            last = layer == len(self.weights) - 1
            width = jnp.asarray(weight.shape[1], jnp.int32) if last else widths[layer]
            draw = jax.random.normal(jax.random.fold_in(key, layer), weight.shape)
            taken = behind & self.inherit
            weight = jnp.where(taken, weight, draw * jax.lax.rsqrt(fan_in.astype(jnp.float32)))
            rows, columns = (jnp.arange(size, dtype=jnp.int32) for size in weight.shape)
            inside = (rows < fan_in)[:, None] & (columns < width)[None, :]
            weights.append(jnp.where(inside, weight, 0.0))
            bias = jnp.zeros(weight.shape[1]).at[: bias.size].set(bias)
            biases.append(jnp.where((columns < width) & taken, bias, 0.0))
            if not last:
                behind = widths[layer] > 0
                fan_in = jnp.where(behind, widths[layer], fan_in)
        return Network(tuple(weights), tuple(biases))

    def trained(self, instance: Teaching, widths: Int[Array, " layer"]) -> Network:
        """The student after distillation, in arrays in which students of all widths have room."""
        optimiser: Any = optax.adam(self.learning_rate)
        shape = (self.distillation_steps, self.batch_size)
        key = jax.random.fold_in(jax.random.key(self.seed), len(self.weights))
        rows = jax.random.randint(key, shape, 0, len(self.inputs))

        def loss(student, chosen):
            apart = self._masked(student, widths, self.inputs[chosen]) - instance.logits[chosen]
            return jnp.mean(apart**2)

        def step(carry, chosen):
            student, moments = carry
            gradients = jax.grad(loss)(student, chosen)
            updates, moments = optimiser.update(gradients, moments)
            return (jax.tree.map(jnp.add, student, updates), moments), None

        student = self.beginning(widths)
        return jax.lax.scan(step, (student, optimiser.init(student)), rows)[0][0]

    def network(self, widths: Any) -> Network:
        """The trained student of these widths `[layer]` by itself, without a mask.

        Raises `SpecificationError` for widths that no student has.
        """
        space, given = self.space, np.asarray(widths)
        low, high = np.asarray(space.low), np.asarray(space.high)
        fits = given.shape == low.shape and np.issubdtype(given.dtype, np.number)
        if not fits or np.any((given < low) | (given > high) | (given != np.round(given))):
            raise SpecificationError(
                f"widths = {given.tolist()}: {len(low)} whole numbers are needed, at least "
                f"{low.astype(int).tolist()} and at most {high.astype(int).tolist()}"
            )
        return self.cut(_train(self, jnp.asarray(given, jnp.int32)), given.astype(int).tolist())

    def cut(self, student: Network, widths: list[int]) -> Network:
        """The layers of a student out of the arrays in which it lies."""
        fan_in, weights, biases = self.inputs.shape[1], [], []
        classes = self.weights[-1].shape[1]
        for weight, bias, width in zip(student.weights, student.biases, [*widths, classes]):
            if width:
                weights.append(weight[:fan_in, :width])
                biases.append(bias[:width])
                fan_in = width
        return Network(tuple(weights), tuple(biases))

    def output(
        self, network: Network, inputs: Float[Array, "any input"]
    ) -> Float[Array, "any class"]:
        """The logits of a network without a mask."""
        hidden = inputs
        for weight, bias in zip(network.weights[:-1], network.biases[:-1]):
            hidden = _ACTIVATIONS[self.activation](hidden @ weight + bias[None, :])
        return hidden @ network.weights[-1] + network.biases[-1][None, :]

    def accuracy(self, network: Network) -> Float[Array, ""]:
        """The share of the validation rows that a network without a mask names."""
        return self._named(self.output(network, self.validation_inputs))

    def _masked_accuracy(self, student: Network, widths: Int[Array, " layer"]) -> Float[Array, ""]:
        return self._named(self._masked(student, widths, self.validation_inputs))

    def _named(self, logits: Float[Array, "held_out class"]) -> Float[Array, ""]:
        return jnp.mean(jnp.argmax(logits, axis=1) == self.validation_labels)

    def _padded(self) -> list[Float[Array, "_fan_in _fan_out"]]:
        """The teacher's weights, with room for whatever layer may be before and behind each."""
        widest = max(weight.shape[1] for weight in self.weights[:-1])
        found = []
        for layer, weight in enumerate(self.weights):
            rows = weight.shape[0] if layer == 0 else widest
            columns = weight.shape[1] if layer == len(self.weights) - 1 else widest
            room = jnp.zeros((rows, columns))
            found.append(room.at[: weight.shape[0], : weight.shape[1]].set(weight))
        return found

    def _masked(
        self, student: Network, widths: Int[Array, " layer"], inputs: Float[Array, "any input"]
    ) -> Float[Array, "any class"]:
        """The logits of a student in its arrays; layers that are removed pass on what they read."""
        hidden = inputs
        for layer, (weight, bias) in enumerate(zip(student.weights[:-1], student.biases[:-1])):
            units = jnp.arange(bias.size, dtype=jnp.int32) < widths[layer]
            found = _ACTIVATIONS[self.activation](hidden @ weight + bias[None, :])
            found = jnp.where(units[None, :], found, 0.0)
            hidden = found if layer == 0 else jnp.where(widths[layer] > 0, found, hidden)
        return hidden @ student.weights[-1] + student.biases[-1][None, :]


@eqx.filter_jit
def _train(compression: Compression, widths: Int[Array, " layer"]) -> Network:
    return compression.trained(compression.reset(), widths)


def _whole(point: Float[Array, " layer"]) -> Int[Array, " layer"]:
    return jnp.round(point).astype(jnp.int32)
