"""What every command shares."""

import errno
import json
import math

import numpy as np
import pytest

from headwater.cli.frame import (
    carry_out,
    chosen_task,
    print_json,
    print_table,
    read_options,
    read_settings,
)
from headwater.core.errors import DataError, SpecificationError
from headwater.environments.control.pendulum import Pendulum


def interrupted() -> KeyboardInterrupt:
    stop = KeyboardInterrupt()
    stop.add_note("continue with `headwater resume here`")
    return stop


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (DataError("log.npz: it is empty"), 1, "error: log.npz: it is empty\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (interrupted(), 130, "\ninterrupted; continue with `headwater resume here`\n"),
        (MemoryError(), 1, "error: memory ran out; take fewer seeds"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 1, "error: memory ran out; take fewer"),
        (OSError(errno.ENOSPC, "No space left", "f.npz"), 1, "error: f.npz: No space left\n"),
        (SystemExit(3), 3, ""),
    ],
)
def test_ends_are_said(raised, status, said, capsys):
    def command() -> None:
        raise raised

    assert carry_out("test", command, []) == status
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith(said) and "Traceback" not in shown.err


def test_mistakes_of_ours_are_not_hidden():
    def command() -> None:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        carry_out("test", command, [])


def test_settings_are_read():
    assert read_settings(["a=1", " b = x=y "]) == {"a": "1", "b": "x=y"}
    for wrong in ("a", "=1", ""):
        with pytest.raises(SpecificationError, match=f"'{wrong}' is not of the form NAME=VALUE"):
            read_settings([wrong])


def test_options_are_read_as_json_where_they_are():
    given = ["a=1.5", "b=True", "c=false", "d=[1, 2]", "e=text", "f=null"]
    expected = {"a": 1.5, "b": True, "c": False, "d": [1, 2], "e": "text", "f": None}
    assert read_options(given) == expected


def test_options_belong_to_a_task():
    assert chosen_task("pendulum", []) == "pendulum"
    assert chosen_task(None, []) is None
    assert chosen_task("pendulum", ["mass=2"]) == Pendulum(mass=2.0)
    for env in (None, "none"):
        with pytest.raises(SpecificationError, match="--env-option needs --env"):
            chosen_task(env, ["mass=2"])


def test_json_is_plain_and_finite(capsys, tmp_path):
    print_json({"path": tmp_path, "array": np.arange(2), "number": np.float64(0.5)})
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"path": str(tmp_path), "array": [0, 1], "number": 0.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json(math.nan)


def test_table_holds_every_cell(capsys):
    print_table("a title", ["name", "value"], [["one", "1"], ["two", "[2, 3]"]])
    shown = capsys.readouterr().out
    for text in ("a title", "name", "value", "one", "1", "two", "[2, 3]"):
        assert text in shown
