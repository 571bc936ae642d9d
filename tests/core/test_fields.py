"""Hyper-parameters say what they may be where they stand, and refuse what they may not."""

import ast
import dataclasses
import inspect
import math
import typing
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import jaxtyping
import pytest

from headwater.core.catalogue import all_methods
from headwater.core.errors import SpecificationError
from headwater.core.fields import (
    Range,
    allowed_values,
    check_choice,
    check_fields,
    choices_of,
    integer,
    range_of,
    real,
    share,
    sizes,
)

METHODS = all_methods()
HINTS = {name: typing.get_type_hints(cls) for name, cls in METHODS.items()}


@pytest.fixture
def types_unchecked():
    """As users have it: while the tests run, annotations are checked before Headwater looks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def fields(*hints):
    """Every field of every method that has one of these annotations."""
    for method, cls in METHODS.items():
        for field in dataclasses.fields(cls):
            if HINTS[method][field.name] in hints:
                yield pytest.param(cls, field, id=f"{method}.{field.name}")


@pytest.mark.parametrize(("cls", "field"), list(fields(int, float, float | None, int | None)))
def test_every_number_has_a_range_and_is_held_to_it(cls, field):
    name, allowed = field.name, range_of(field)
    assert allowed is not None, "declare it with share, positive, non_negative, between, integer …"
    start = f"{cls.__name__}.{name} = "
    whole = field.type in (int, int | None)
    assert allowed.whole == whole
    if math.isfinite(allowed.low):
        # Some methods have more to say of a number, and say it first.
        with pytest.raises(SpecificationError, match=rf"{name} ?= ?-7|{name}=-7"):
            cls(**{name: -7 if whole else -7.0})
    if whole:
        return
    with pytest.raises(SpecificationError, match=f"{start}nan: it must be a number"):
        cls(**{name: float("nan")})
    with pytest.raises(SpecificationError, match=f"{start}-inf: it must be finite"):
        cls(**{name: float("-inf")})
    if not allowed.infinite:
        with pytest.raises(SpecificationError, match=f"{start}inf: it must be finite"):
            cls(**{name: float("inf")})


@pytest.mark.parametrize(("cls", "field"), list(fields(bool)))
def test_a_flag_is_true_or_false(cls, field, types_unchecked):
    sentence = f"{cls.__name__}.{field.name} = 'no': it must be True or False"
    with pytest.raises(SpecificationError, match=sentence):
        cls(**{field.name: "no"})


def strings():
    """Every field of every method that takes a string."""
    for method, cls in METHODS.items():
        for field in dataclasses.fields(cls):
            hint = HINTS[method][field.name]
            options = (hint, *typing.get_args(hint))
            if typing.get_origin(hint) is tuple:
                # Names of columns, which are not known before the data are.
                continue
            if str in options or any(typing.get_origin(o) is Literal for o in options):
                yield pytest.param(cls, field, id=f"{method}.{field.name}")


@pytest.mark.parametrize(("cls", "field"), list(strings()))
def test_a_misspelt_choice_is_refused_with_the_nearest(cls, field, types_unchecked):
    known = choices_of(cls, field.name)
    assert known, "annotate it with a Literal"
    for right in known:
        wrong = right[:-1] + right[-1] * 2 + "x"
        where = f"{cls.__name__}.{field.name}: unknown value '{wrong}': did you mean .*{right}"
        with pytest.raises(SpecificationError, match=where):
            cls(**{field.name: wrong})


def test_there_are_strings_to_misspell():
    assert len(list(strings())) > 30


def test_methods_compare_choices_only_with_what_they_may_be():
    """`if self.bonus == "…"` with a name that the field does not have would never be true."""
    for cls in METHODS.values():
        for node in ast.walk(ast.parse(inspect.getsource(cls))):
            if not (isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute)):
                continue
            found = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
            if known := choices_of(cls, node.left.attr):
                assert set(found) <= set(known), (cls.__name__, node.left.attr, found)


def test_types_that_cannot_be_looked_up_do_no_harm():
    """A file of others may import what its annotations name for the type checker alone."""

    @dataclasses.dataclass
    class Theirs:
        table: "NotImportedHere"  # pyright: ignore[reportUndefinedVariable]
        polyak_rate: "float" = share(0.5)  # noqa: RUF009

    check_fields(Theirs(None))
    with pytest.raises(SpecificationError, match=r"polyak_rate = 1.5: it must lie between"):
        check_fields(Theirs(None, 1.5))


def test_annotations_may_be_text():
    @dataclasses.dataclass
    class Theirs:
        bonus: "Literal['bernstein', 'hoeffding'] | None" = None
        fast: "bool" = True

    check_fields(Theirs())
    check_fields(Theirs("hoeffding"))
    with pytest.raises(SpecificationError, match=r"Theirs.bonus: .* did you mean bernstein\?"):
        check_fields(Theirs("bernstien"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(SpecificationError, match=r"Theirs.fast = 1: it must be True or False"):
        check_fields(Theirs(None, 1))  # pyright: ignore[reportArgumentType]


def test_a_share_is_no_more_than_one():
    with pytest.raises(SpecificationError, match=r"IQL.polyak_rate = 1.5: it must lie between 0"):
        METHODS["IQL"](polyak_rate=1.5)
    with pytest.raises(SpecificationError, match=r"expectile = 1.0: it must lie strictly"):
        METHODS["IQL"](expectile=1.0)
    METHODS["IQL"](polyak_rate=1.0)


def test_methods_of_others_are_held_to_what_they_declare():
    @dataclasses.dataclass
    class Theirs:
        drift: float = 0.0
        polyak_rate: float = share(0.5)

    check_fields(Theirs(drift=-3.0))
    with pytest.raises(SpecificationError, match="polyak_rate = -7: it must lie between 0 and 1"):
        check_fields(Theirs(polyak_rate=-7))


def test_a_count_is_whole():
    @dataclasses.dataclass
    class Theirs:
        rows: int = integer(256, low=0)

    for value, sentence in (
        (2.5, "Theirs.rows = 2.5: it must be a whole number"),
        (-1, "Theirs.rows = -1: it must be at least 0"),
        (2**31, "Theirs.rows = 2147483648: it must be at most 2,147,483,647"),
    ):
        with pytest.raises(SpecificationError) as refused:
            check_fields(Theirs(value))  # pyright: ignore[reportArgumentType]
        assert str(refused.value) == sentence
    check_fields(Theirs(0))


def test_layers_are_neither_empty_nor_endless(types_unchecked):
    for hidden_sizes, sentence in (
        ((8, 0), r"IQL.hidden_sizes = \[8, 0\]: every layer needs at least one unit"),
        ((8, 10**9), "a layer has at most 100,000 units"),
        ((1,) * 65, "at most 64 layers"),
        (256, "IQL.hidden_sizes = 256: it must be a tuple of whole numbers"),
    ):
        with pytest.raises(SpecificationError, match=sentence):
            METHODS["IQL"](hidden_sizes=hidden_sizes)


def test_what_is_swept_is_left_alone():
    rates = jnp.asarray([0.1, 2.0])
    swept = eqx.tree_at(lambda method: method.polyak_rate, METHODS["IQL"](), rates)
    check_fields(swept)


def test_ranges_say_what_they_are():
    assert str(Range(0.0, 1.0)) == "it must lie between 0 and 1"
    assert str(Range(0.0)) == "it must be at least 0"
    assert str(Range(0.0, strict=True)) == "it must be more than 0"
    assert 0 in Range(0.0) and 0 not in Range(0.0, strict=True)


def test_tables_show_what_a_field_may_hold():
    class Theirs(eqx.Module):
        discount: float = share(0.9)
        slope: float = real(0.0)
        rows: int = integer(1)
        hidden_sizes: tuple[int, ...] = sizes((8,))
        fast: bool = False
        bonus: Literal["one", "two"] = "one"
        table: dict | None = None
        target: float | None = real(None)

    shown = {f.name: allowed_values(Theirs, f) for f in dataclasses.fields(Theirs)}
    assert shown == {
        "discount": "[0, 1]",
        "slope": "(-∞, ∞)",
        "rows": "1, 2, …",
        "hidden_sizes": "1, 2, … for each layer",
        "fast": "True, False",
        "bonus": "one, two",
        "table": "",
        "target": "(-∞, ∞) or None",
    }
    assert Range(0.0, strict=True, infinite=True).interval == "(0, ∞]"


def test_numbers_are_swept_and_what_decides_the_program_is_static():
    @dataclasses.dataclass
    class Theirs:
        discount: float = share(0.9)
        rows: int = integer(1)
        period: int = integer(1, static=False)

    static = {f.name: f.metadata.get("static", False) for f in dataclasses.fields(Theirs)}
    assert static == {"discount": False, "rows": True, "period": False}


def test_a_choice_outside_a_method_is_refused_too():
    with pytest.raises(SpecificationError) as refused:
        check_choice("vmpa", ("map", "vmap"), "layout")
    assert str(refused.value) == "layout: unknown value 'vmpa': did you mean vmap, map?"
