"""Hyper-parameters out of their ranges are refused, in every method."""

import dataclasses
import typing

import equinox as eqx
import jax.numpy as jnp
import pytest

from headwater.core.catalogue import all_methods
from headwater.core.errors import SpecificationError
from headwater.core.ranges import MAY_BE_INFINITE, RANGES, Range, check_ranges

METHODS = all_methods()
SIGNED = {name for name, allowed in RANGES.items() if allowed.low < 0}


def numbers():
    """Every field of every method that holds a number."""
    for method, cls in METHODS.items():
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if hints[field.name] in (int, float, float | None, int | None):
                yield pytest.param(cls, field.name, hints[field.name], id=f"{method}.{field.name}")


@pytest.mark.parametrize(("cls", "name", "hint"), list(numbers()))
def test_every_number_has_a_range(cls, name, hint):
    start = f"{cls.__name__}.{name} = "
    whole = hint in (int, int | None)
    if name not in SIGNED:
        # Some methods have more to say of a number, and say it first.
        with pytest.raises(SpecificationError, match=rf"{name} ?= ?-7|{name}=-7"):
            cls(**{name: -7 if whole else -7.0})
    if whole:
        return
    with pytest.raises(SpecificationError, match=f"{start}nan: it must be a number"):
        cls(**{name: float("nan")})
    with pytest.raises(SpecificationError, match=f"{start}-inf: it must be finite"):
        cls(**{name: float("-inf")})
    if name not in MAY_BE_INFINITE:
        with pytest.raises(SpecificationError, match=f"{start}inf: it must be finite"):
            cls(**{name: float("inf")})


def test_types_that_cannot_be_looked_up_do_no_harm():
    """A file of others may import what its annotations name for the type checker alone."""

    @dataclasses.dataclass
    class Theirs:
        table: "NotImportedHere"  # pyright: ignore[reportUndefinedVariable]
        target_rate: "float" = 0.5

    check_ranges(Theirs(None))
    with pytest.raises(SpecificationError, match=r"target_rate = 1.5: it must lie between"):
        check_ranges(Theirs(None, 1.5))


def test_a_share_is_no_more_than_one():
    with pytest.raises(SpecificationError, match=r"IQL.target_rate = 1.5: it must lie between 0"):
        METHODS["IQL"](target_rate=1.5)
    with pytest.raises(SpecificationError, match=r"expectile = 1.0: it must lie strictly"):
        METHODS["IQL"](expectile=1.0)
    METHODS["IQL"](target_rate=1.0)


def test_methods_of_others_have_numbers_of_their_own():
    """A name that Headwater does not know may mean anything; one that it knows means the same."""

    @dataclasses.dataclass
    class Theirs:
        drift: float = 0.0
        target_rate: float = 0.5

    check_ranges(Theirs(drift=-3.0))
    with pytest.raises(SpecificationError, match="target_rate = -7: it must lie between 0 and 1"):
        check_ranges(Theirs(target_rate=-7))


def test_layers_are_neither_empty_nor_endless():
    for widths, sentence in (
        ((8, 0), r"IQL.widths = \[8, 0\]: every layer needs at least one unit"),
        ((8, 10**9), "a layer has at most 100,000 units"),
        ((1,) * 65, "at most 64 layers"),
    ):
        with pytest.raises(SpecificationError, match=sentence):
            METHODS["IQL"](widths=widths)


def test_what_is_swept_is_left_alone():
    rates = jnp.asarray([0.1, 2.0])
    swept = eqx.tree_at(lambda method: method.target_rate, METHODS["IQL"](), rates)
    check_ranges(swept)


def test_ranges_say_what_they_are():
    assert str(Range(0.0, 1.0)) == "it must lie between 0 and 1"
    assert str(Range(0.0)) == "it must be at least 0"
    assert str(Range(0.0, strict=True)) == "it must be more than 0"
    assert 0 in Range(0.0) and 0 not in Range(0.0, strict=True)


def test_every_range_is_used():
    used = {field.name for cls in METHODS.values() for field in dataclasses.fields(cls)}
    assert set(RANGES) <= used and set(MAY_BE_INFINITE) <= used
