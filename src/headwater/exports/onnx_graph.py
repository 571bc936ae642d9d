"""From a traced JAX function to an ONNX graph, for what policies made of layers consist of."""

import string
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jax.extend.core import ClosedJaxpr, Literal

from headwater.core.errors import SpecificationError

_OPSET, _FORMAT_VERSION = 18, 8
"""Of 2022: old enough for every runtime in use, new enough for all that is written here."""

_BATCH = "batch"

_SAME = {
    "abs": "Abs",
    "add": "Add",
    "and": "And",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}
"""Primitives that one ONNX operator of the same arguments computes element by element."""

_REDUCE = {
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
}
_INDEX = {"argmax": "ArgMax", "argmin": "ArgMin"}
_CALLS = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that only run another traced function, and the parameter that holds it."""


class _Tensor(NamedTuple):
    """A value that depends on the input, by its name in the graph."""

    name: str


_Value = _Tensor | Any
"""A tensor of the graph, or an array that is already known."""


def onnx_model(
    function: Callable, input_size: int, names: tuple[str, str], metadata: Mapping[str, str]
) -> bytes:
    """`function` as an ONNX model whose batch may have any size.

    Whatever does not depend on the input, random keys included, is computed now and stored.

    **Arguments:** `function`: from float32 `[batch, input_size]` to one array with the same leading
    axis; `names`: of the input and the output; `metadata`: text to store in the model.

    **Returns:** the file's content. Raises `SpecificationError` if the package `onnx` is missing or
    `function` computes something that is not translated, naming the primitive.
    """
    try:
        import onnx
    except ImportError:
        raise SpecificationError(
            "writing ONNX needs the package onnx: pip install 'headwater[onnx]'"
        ) from None
    (batch,) = jax_export.symbolic_shape(_BATCH)
    traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, input_size), jnp.float32))
    graph = _Graph(onnx, batch, names[0])
    (result,) = graph.inline(traced.jaxpr, traced.consts, [_Tensor(names[0])])
    of = traced.out_avals[0]
    graph.emit("Identity", result, outputs=[names[1]])
    kind = onnx.helper.np_dtype_to_tensor_dtype
    info = onnx.helper.make_tensor_value_info
    sizes = [_BATCH if d == batch else d for d in of.shape]
    needed, stored = graph.reachable(names[1])
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            needed,
            "policy",
            [info(names[0], kind(np.dtype(np.float32)), [_BATCH, input_size])],
            [info(names[1], kind(np.dtype(of.dtype)), sizes)],
            stored,
        ),
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_FORMAT_VERSION,
        producer_name="headwater",
        producer_version=version("headwater"),
    )
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Graph:
    """Nodes and stored arrays, in the order in which they are needed."""

    def __init__(self, onnx: Any, batch: Any, observed: str):
        self.onnx, self.batch, self.observed = onnx, batch, observed
        self.nodes: list[Any] = []
        self.stored: dict[str, Any] = {}
        self._by_content: dict[tuple, str] = {}
        self._batch_size: _Tensor | None = None

    def inline(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[_Value]) -> list[_Value]:
        """Translates a traced function, and those it calls, in place; returns its outputs."""
        known = dict(zip(jaxpr.constvars, consts)) | dict(zip(jaxpr.invars, inputs))

        def read(atom: Any) -> _Value:
            if isinstance(atom, Literal):
                kind: Any = atom.aval
                return np.asarray(atom.val, kind.dtype)
            return known[atom]

        for equation in _needed(jaxpr):
            values = [read(atom) for atom in equation.invars]
            if equation.primitive.name in _CALLS:
                body = equation.params[_CALLS[equation.primitive.name]]
                # A closed body brings constants along, an open one has none.
                closed = isinstance(body, ClosedJaxpr)
                inner, inner_consts = (body.jaxpr, body.consts) if closed else (body, [])
                results = self.inline(inner, inner_consts, values)
            elif equation.primitive.name == "scan" and not self._foldable(equation, values):
                results = self._unroll(equation, values)
            elif self._foldable(equation, values):
                results = equation.primitive.bind(*values, **equation.params)
                results = results if equation.primitive.multiple_results else [results]
            else:
                results = self._translate(equation, values)
            known.update(zip(equation.outvars, results))
        return [read(atom) for atom in jaxpr.outvars]

    def emit(
        self, operator: str, *inputs: _Value, outputs: list[str] | None = None, **attributes: Any
    ) -> _Tensor:
        """Adds a node and returns its (first) output."""
        outputs = outputs or [self.fresh()]
        names = [self.name(value) for value in inputs]
        self.nodes.append(self.onnx.helper.make_node(operator, names, outputs, **attributes))
        return _Tensor(outputs[0])

    def fresh(self) -> str:
        """A name for the output of the next node."""
        return f"value_{sum(len(node.output) for node in self.nodes)}"

    def name(self, value: _Value) -> str:
        """The name of a tensor; an array is stored first."""
        if isinstance(value, _Tensor):
            return value.name
        array = np.asarray(value)
        content = (array.shape, array.dtype.str, array.tobytes())
        if content not in self._by_content:
            name = f"constant_{len(self.stored)}"
            self._by_content[content] = name
            self.stored[name] = self.onnx.numpy_helper.from_array(array, name)
        return self._by_content[content]

    def shape(self, sizes: Sequence[Any], primitive: str) -> _Value:
        """Sizes as a vector of integers; the batch's size is only known when the graph runs."""
        if all(isinstance(size, int) for size in sizes):
            return np.asarray(sizes, np.int64)
        if self._batch_size is None:
            self._batch_size = self.emit("Shape", _Tensor(self.observed), start=0, end=1)
        parts: list[_Value] = []
        for size in sizes:
            if not isinstance(size, int) and size != self.batch:
                raise _untranslated(primitive, f"to a size of {size}")
            parts.append(np.asarray([size]) if isinstance(size, int) else self._batch_size)
        return parts[0] if len(parts) == 1 else self.emit("Concat", *parts, axis=0)

    def reachable(self, output: str) -> tuple[list[Any], list[Any]]:
        """The nodes and stored arrays that `output` depends on."""
        needed, kept = {output}, []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed |= set(node.input)
        return kept[::-1], [array for name, array in self.stored.items() if name in needed]

    @staticmethod
    def _foldable(equation: Any, values: Sequence[_Value]) -> bool:
        sizes = [size for out in equation.outvars for size in out.aval.shape]
        known = not any(isinstance(value, _Tensor) for value in values)
        return known and all(isinstance(size, int) for size in sizes)

    def _translate(self, equation: Any, values: Sequence[_Value]) -> list[_Value]:
        kind, params = equation.primitive.name, equation.params
        source, result = equation.invars[0].aval, equation.outvars[0].aval
        if kind in _SAME:
            return [self.emit(_SAME[kind], *values)]
        x = values[0]
        if kind == "ne":
            return [self.emit("Not", self.emit("Equal", *values))]
        if kind == "square":
            return [self.emit("Mul", x, x)]
        if kind == "integer_pow":
            if params["y"] == 2:
                return [self.emit("Mul", x, x)]
            return [self.emit("Pow", x, np.asarray(params["y"], source.dtype))]
        if kind == "log1p":
            return [self.emit("Log", self.emit("Add", x, np.asarray(1.0, source.dtype)))]
        if kind == "rsqrt":
            return [self.emit("Reciprocal", self.emit("Sqrt", x))]
        if kind == "clamp":
            return [self.emit("Min", self.emit("Max", values[1], values[0]), values[2])]
        if kind == "select_n" and source.dtype == np.bool_:
            return [self._select(values)]
        if kind in ("copy", "copy_p", "stop_gradient"):
            return [x]
        if kind == "convert_element_type":
            return [x if source.dtype == result.dtype else self._cast(x, result.dtype)]
        if kind in _REDUCE:
            axes = np.asarray(params["axes"], np.int64)
            return [self.emit(_REDUCE[kind], x, axes, keepdims=0)]
        if kind in _INDEX:
            index = self.emit(_INDEX[kind], x, axis=int(params["axes"][0]), keepdims=0)
            return [self._cast(index, result.dtype)]
        if kind == "dot_general":
            return [self._product(equation, values)]
        if kind == "broadcast_in_dim":
            return [self._broadcast(equation, x)]
        if kind == "reshape":
            return [self.emit("Reshape", x, self.shape(result.shape, kind))]
        if kind == "squeeze":
            return [self.emit("Squeeze", x, np.asarray(params["dimensions"], np.int64))]
        if kind == "transpose":
            return [self.emit("Transpose", x, perm=[int(i) for i in params["permutation"]])]
        if kind == "concatenate":
            return [self.emit("Concat", *values, axis=int(params["dimension"]))]
        if kind == "slice":
            return [self._slice(equation, x)]
        if kind == "split":
            first = self.fresh()
            names = [f"{first}_{i}" for i in range(len(params["sizes"]))]
            sizes = np.asarray(params["sizes"], np.int64)
            self.emit("Split", x, sizes, outputs=names, axis=int(params["axis"]))
            return [_Tensor(name) for name in names]
        raise _untranslated(kind)

    def _cast(self, x: _Value, dtype: Any) -> _Tensor:
        to = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.emit("Cast", x, to=to)

    def _select(self, values: Sequence[_Value]) -> _Value:
        which, *cases = values
        if not isinstance(which, _Tensor):
            chosen = np.unique(np.asarray(which)).astype(int)
            if chosen.size == 1:
                return cases[chosen[0]]
        return self.emit("Where", which, cases[1], cases[0])

    def _unroll(self, equation: Any, values: Sequence[_Value]) -> list[_Value]:
        """The steps of a scan one after the other: of recurrent networks, which read few frames."""
        params, body = equation.params, equation.params["jaxpr"]
        fixed, carried = params["num_consts"], params["num_carry"]
        if len(equation.outvars) > carried:
            raise _untranslated("scan", "with a result for each step")
        consts, rows = list(values[:fixed]), values[fixed + carried :]
        carry = list(values[fixed : fixed + carried])
        steps = range(params["length"])
        for step in reversed(steps) if params["reverse"] else steps:
            row = [
                self.emit("Gather", x, np.asarray(step), axis=0)
                if isinstance(x, _Tensor)
                else x[step]
                for x in rows
            ]
            carry = self.inline(body.jaxpr, body.consts, [*consts, *carry, *row])
        return carry

    def _product(self, equation: Any, values: Sequence[_Value]) -> _Value:
        (left, right), batched = equation.params["dimension_numbers"]
        ranks = [len(atom.aval.shape) for atom in equation.invars]
        swapped = ranks[0] in (1, 2) and ranks[1] > 2
        if any(batched) or len(left) != 1 or 0 in ranks or not (swapped or ranks[1] <= 2):
            # As attention has it, of which there is a product for each head.
            summation = _as_einsum(equation.params["dimension_numbers"], ranks)
            return self.emit("Einsum", *values, equation=summation)
        if swapped:
            # A matrix stands on the right of what there is one of for each row.
            b = self._move(values[1], ranks[1], int(right[0]), ranks[1] - 1)
            a = self._move(values[0], ranks[0], int(left[0]), 0)
            product, rank = self.emit("MatMul", b, a), sum(ranks) - 2
            return self._move(product, rank, rank - 1, 0) if ranks[0] == 2 else product
        a = self._move(values[0], ranks[0], int(left[0]), ranks[0] - 1)
        b = self._move(values[1], ranks[1], int(right[0]), 0)
        return self.emit("MatMul", a, b)

    def _move(self, x: _Value, rank: int, source: int, target: int) -> _Value:
        if source == target:
            return x
        order = [i for i in range(rank) if i != source]
        order.insert(target, source)
        return self.emit("Transpose", x, perm=order)

    def _broadcast(self, equation: Any, x: _Value) -> _Value:
        before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        kept = [int(i) for i in equation.params["broadcast_dimensions"]]
        new = [i for i in range(len(after)) if i not in kept]
        if new:
            x = self.emit("Unsqueeze", x, np.asarray(new, np.int64))
        sizes = dict(zip(kept, before))
        if all(sizes.get(i, 1) == size for i, size in enumerate(after)):
            return x
        return self.emit("Expand", x, self.shape(after, "broadcast_in_dim"))

    def _slice(self, equation: Any, x: _Value) -> _Value:
        before, params = equation.invars[0].aval.shape, equation.params
        strides = params["strides"] or (1,) * len(before)
        rows = zip(params["start_indices"], params["limit_indices"], strides, before)
        parts = [(s, e, i, by) for i, (s, e, by, n) in enumerate(rows) if (s, e, by) != (0, n, 1)]
        if not all(isinstance(number, int) for part in parts for number in part):
            raise _untranslated("slice", "along the batch")
        if not parts:
            return x
        return self.emit("Slice", x, *(np.asarray(column, np.int64) for column in zip(*parts)))


def _as_einsum(dimension_numbers: Any, ranks: Sequence[int]) -> str:
    """The product as Einstein's summation, such as `abc,abd->acd`: batches come first, then the
    axes that only the left one has, then those of the right one."""
    letters = iter(string.ascii_letters)
    (left, right), (left_batch, right_batch) = dimension_numbers
    names: list[dict[int, str]] = [{}, {}]
    for a, b in zip((*left_batch, *left), (*right_batch, *right)):
        names[0][int(a)] = names[1][int(b)] = next(letters)
    batch = [names[0][int(a)] for a in left_batch]
    free = []
    for known, rank in zip(names, ranks):
        for axis in range(rank):
            if axis not in known:
                known[axis] = next(letters)
                free.append(known[axis])
    each = ["".join(known[axis] for axis in range(rank)) for known, rank in zip(names, ranks)]
    return f"{','.join(each)}->{''.join([*batch, *free])}"


def _needed(jaxpr: Any) -> list[Any]:
    """Its equations without those of which no output is used."""
    used = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if used.isdisjoint(equation.outvars):
            continue
        kept.append(equation)
        used.update(atom for atom in equation.invars if not isinstance(atom, Literal))
    return kept[::-1]


def _untranslated(primitive: str, how: str = "") -> SpecificationError:
    what = f"the operation '{primitive}'" + (f" {how}" if how else "")
    return SpecificationError(
        f"this policy cannot be written as ONNX: {what} is not translated; use the format "
        "'stablehlo', which holds every policy of observations, or for a bandit run.policy.save"
    )
