"""The matrix products in one compiled update, read from the compiler's own text."""

import re
from collections import Counter
from typing import NamedTuple

import jax

_OPERATION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"^(\w+)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TWO_BRANCHES = re.compile(r"(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')


class Product(NamedTuple):
    """One kind of matrix product: `batch` times `[rows, inner] · [inner, columns]`."""

    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.rows * self.inner * self.columns


def products(text: str) -> dict[Product, float]:
    """How often each kind of product is computed in the module that `text` is.

    A loop counts as often as the compiler knows it to run (once if it does not), and the branches
    of a condition count as if each were taken equally often.
    """
    computations, entry = _computations(text)
    found: Counter[Product] = Counter()

    def visit(name: str, times: float) -> None:
        shapes: dict[str, tuple[int, ...]] = {}
        for line in computations.get(name, ()):
            match = _OPERATION.match(line)
            if match is None:
                continue
            result, shape, kind, rest = match.groups()
            if form := _SHAPE.match(shape):
                shapes[result] = tuple(int(n) for n in form[2].split(",") if n)
            if kind == "dot":
                operands = re.findall(r"%([\w.\-]+)", rest.split(")")[0])
                found[_product(rest, *(shapes[each] for each in operands))] += times
            branches = list(_TWO_BRANCHES.findall(rest))
            if listed := _BRANCHES.search(rest):
                branches += [b.strip().lstrip("%") for b in listed[1].split(",")]
            for branch in branches:
                visit(branch, times / len(branches))
            trips = _TRIPS.search(rest)
            for called in _CALLED.findall(rest):
                visit(called, times * (int(trips[1]) if kind == "while" and trips else 1))

    visit(entry, 1.0)
    return dict(found)


def compiled(function, *arguments):
    """The program that one call of `function` is on a processor, from shapes alone."""
    with jax.default_device(jax.devices("cpu")[0]):
        return jax.jit(function).lower(*arguments).compile()


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    found: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line and not line[0].isspace() and line.rstrip().endswith("{"):
            name = line.removeprefix("ENTRY ").split(" ")[0].split("(")[0].lstrip("%")
            current = found.setdefault(name, [])
            if line.startswith("ENTRY"):
                entry = name
        elif current is not None:
            current.append(line)
    return found, entry


def _product(rest: str, left: tuple[int, ...], right: tuple[int, ...]) -> Product:
    def dimensions(name: str) -> list[int]:
        match = re.search(rf"{name}=\{{([\d,]*)\}}", rest)
        return [int(n) for n in match[1].split(",") if n] if match else []

    batch, inner = dimensions("lhs_batch_dims"), dimensions("lhs_contracting_dims")
    right_batch, right_inner = dimensions("rhs_batch_dims"), dimensions("rhs_contracting_dims")

    def size(shape: tuple[int, ...], axes) -> int:
        total = 1
        for axis in axes:
            total *= shape[axis]
        return total

    rows = size(left, [a for a in range(len(left)) if a not in (*batch, *inner)])
    columns = size(right, [a for a in range(len(right)) if a not in (*right_batch, *right_inner)])
    return Product(size(left, batch), rows, size(left, inner), columns)
