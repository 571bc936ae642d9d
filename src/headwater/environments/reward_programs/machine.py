"""What evaluates programs of rewards: one machine with a stack, compiled once for all of them."""

import enum

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

LENGTH = 96
"""Instructions of every program; shorter ones are filled up with some that do nothing."""
DEPTH = 16
"""Values that the stack holds, those of finished terms included."""
LARGEST = 1e6
"""Every value is held within plus and minus this."""
_SMALLEST, _STEEPEST = 1e-6, 13.8


class Operation(enum.IntEnum):
    """What one instruction does with the values on the stack."""

    NOTHING = 0
    NUMBER = 1
    FEATURE = 2
    NEGATE = 3
    ABS = 4
    SQUARE = 5
    SQRT = 6
    EXP = 7
    TANH = 8
    ADD = 9
    SUBTRACT = 10
    MULTIPLY = 11
    DIVIDE = 12
    MIN = 13
    MAX = 14
    CLIP = 15


def operands(operation: Operation) -> int:
    """How many values an operation takes from the stack; all but `NOTHING` leave one there."""
    if operation in (Operation.NUMBER, Operation.FEATURE):
        return 0
    if operation is Operation.CLIP:
        return 3
    return 1 if operation <= Operation.TANH else 2


class RewardProgram(eqx.Module):
    """A program in the order in which the machine works it off, as arrays that can be mapped over.

    **Arguments:** `operations`: a member of `Operation` each; `numbers`: what `NUMBER` puts onto
    the stack; `places`: which feature `FEATURE` does.
    """

    operations: Int[Array, "*batch instruction"]
    numbers: Float[Array, "*batch instruction"]
    places: Int[Array, "*batch instruction"]


def terms_of(
    program: RewardProgram, features: Float[Array, "*batch feature"]
) -> Float[Array, "term *batch"]:
    """The values of a program's terms, in order, with zeros for those that it does not have.

    They are finite where the features are: what is divided by is kept away from zero, roots are of
    numbers from zero on, and everything is held within `LARGEST`.

    **Arguments:** `program`: one, without an axis in front; `features`: of as many steps as liked,
    which are worked off side by side.
    """
    taken = jnp.asarray([operands(operation) for operation in Operation], jnp.int32)

    def one(carry, instruction):
        stack, height = carry
        operation, number, place = instruction
        # Of clip(x, low, high), high lies on top.
        last, middle, first = (stack[jnp.maximum(height - i, 0)] for i in (1, 2, 3))

        branches = {
            Operation.NOTHING: lambda: last,
            Operation.NUMBER: lambda: jnp.broadcast_to(number, last.shape),
            Operation.FEATURE: lambda: jnp.take(features, place, axis=-1),
            Operation.NEGATE: lambda: -last,
            Operation.ABS: lambda: jnp.abs(last),
            Operation.SQUARE: lambda: last**2,
            Operation.SQRT: lambda: jnp.sqrt(jnp.maximum(last, 0.0)),
            Operation.EXP: lambda: jnp.exp(jnp.minimum(last, _STEEPEST)),
            Operation.TANH: lambda: jnp.tanh(last),
            Operation.ADD: lambda: middle + last,
            Operation.SUBTRACT: lambda: middle - last,
            Operation.MULTIPLY: lambda: middle * last,
            Operation.DIVIDE: lambda: middle / _away_from_zero(last),
            Operation.MIN: lambda: jnp.minimum(middle, last),
            Operation.MAX: lambda: jnp.maximum(middle, last),
            Operation.CLIP: lambda: jnp.maximum(jnp.minimum(first, last), middle),
        }
        value = jax.lax.switch(operation, [branches[each] for each in Operation])
        at = jnp.maximum(height - taken[operation], 0)
        stack = stack.at[at].set(jnp.clip(value, -LARGEST, LARGEST))
        rises = jnp.where(operation == Operation.NOTHING, 0, 1 - taken[operation])
        return (stack, height + rises), None

    shape = features.shape[:-1]
    begun = (jnp.zeros((DEPTH, *shape), jnp.float32), jnp.zeros((), jnp.int32))
    instructions = (program.operations, program.numbers, program.places)
    (stack, height), _ = jax.lax.scan(one, begun, instructions)
    there = (jnp.arange(DEPTH) < height).reshape(DEPTH, *(1 for _ in shape))
    return jnp.where(jnp.broadcast_to(there, stack.shape), stack, 0.0)


def reward_of(
    program: RewardProgram,
    features: Float[Array, "*batch feature"],
    largest: float | Float[Array, ""] = 10.0,
) -> Float[Array, "*batch"]:
    """The reward of each step: the sum of the terms, held within plus and minus `largest`."""
    return jnp.clip(jnp.sum(terms_of(program, features), axis=0), -largest, largest)


def _away_from_zero(value: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    near = jnp.where(value < 0.0, -_SMALLEST, _SMALLEST)
    return jnp.where(jnp.abs(value) < _SMALLEST, near, value)
