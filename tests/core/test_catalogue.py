"""Methods by name, and their settings from text."""

import pytest

import headwater
from headwater.core import catalogue
from headwater.core.catalogue import (
    build_method,
    family,
    method_class,
    method_modules,
    settings,
)
from headwater.core.errors import SpecificationError, nearest


def test_every_method_is_found_where_its_file_is():
    for name, module in method_modules().items():
        assert method_class(name).__module__ == module
        assert getattr(headwater, name) is method_class(name)
        assert name in dir(headwater)
        assert module.startswith("headwater.methods." + family(name).replace("/", ".") + ".")


@pytest.mark.parametrize("name", ("IQL", "iql", "I-Q-L"))
def test_names_are_read_kindly(name):
    assert method_class(name).__name__ == "IQL"
    assert method_class("td3+bc").__name__ == "TD3BC"


def test_unknown_names_meet_the_nearest():
    with pytest.raises(SpecificationError, match=r"unknown method 'IQLL': did you mean .*IQL"):
        method_class("IQLL")
    with pytest.raises(AttributeError, match="no attribute 'nothing_like_it'"):
        _ = headwater.nothing_like_it


def test_settings_are_read_from_text():
    method = build_method(
        "iql",
        {
            "expectile": "0.9",
            "hidden_sizes": "(16, 8)",
            "normalise-observations": "no",
            "discount": 1,
        },
    )
    assert method == method_class("IQL")(
        expectile=0.9, hidden_sizes=(16, 8), normalise_observations=False, discount=1.0
    )
    assert isinstance(method.discount, float)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("expectil", 0.5, r"IQL: unknown hyper-parameter 'expectil': did you mean expectile\?"),
        ("expectile", "high", r"IQL\.expectile = 'high' is not of type float"),
        ("expectile", True, "is not of type float"),
        ("hidden_sizes", "8.5,8", r"IQL\.hidden_sizes = '8\.5' is not of type int"),
        ("hidden_sizes", 8, "is not of type"),
        ("normalise_observations", 1, r"IQL\.normalise_observations = 1 is not of type bool"),
    ],
)
def test_wrong_settings_are_explained(name, value, message):
    with pytest.raises(SpecificationError, match=message):
        build_method("IQL", {name: value})


def test_choices_are_listed():
    with pytest.raises(SpecificationError, match=r"x: unknown value 'befor': did you mean before"):
        from typing import Literal

        catalogue._read("befor", Literal["before", "after"], "x")


def test_nearest_lists_everything_where_nothing_is_near():
    assert nearest("zzz", ["b", "a"], "letter") == "unknown letter 'zzz': known letters are a, b."


def test_a_method_inside_another_is_named_or_described():
    named = build_method("CountBonus", {"inner": "StreamAC"})
    assert type(named.inner).__name__ == "StreamAC"
    described = build_method("CountBonus", {"inner": {"method": "StreamQ", "trace_decay": 0.5}})
    assert described.inner.trace_decay == 0.5
    assert build_method("CountBonus", settings(described)) == described
    with pytest.raises(SpecificationError, match="StreamQQ"):
        build_method("CountBonus", {"inner": "StreamQQ"})
    with pytest.raises(SpecificationError, match=r"CountBonus.inner = 3 is not of type"):
        build_method("CountBonus", {"inner": 3})
