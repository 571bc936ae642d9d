"""Gives commands as a person would, in this process or in one of its own."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headwater.cli import main

TINY = ("--set", "hidden_sizes=8", "--batch-size", "16")
"""Networks and batches that take no time."""


def write_log(path: Path, **columns: Any) -> None:
    """Writes four episodes of ten random steps of `pendulum`, with some `columns` replaced."""
    draw = np.random.default_rng(0)
    given = {
        "observations": draw.normal(size=(40, 3)),
        "actions": draw.uniform(-2, 2, (40, 1)),
        "rewards": draw.normal(size=40),
        "terminals": np.zeros(40, bool),
        "truncations": np.arange(40) % 10 == 9,
        "next_observations": draw.normal(size=(40, 3)),
        "action_low": -2.0,
        "action_high": 2.0,
        **columns,
    }
    np.savez(path, **{name: value for name, value in given.items() if value is not None})


class Answer(NamedTuple):
    """Exit status and what was printed."""

    status: int
    out: str
    err: str


def ask(*arguments: Any) -> Answer:
    """The answer to `headwater ARGUMENTS`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    return Answer(status, out.getvalue(), err.getvalue())


def done(*arguments: Any) -> str:
    """What `headwater ARGUMENTS` prints, which must succeed."""
    answer = ask(*arguments)
    assert answer.status == 0, answer.err
    return answer.out


_START = """
import signal, sys
# Where tests run in the background, interrupts are ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
from headwater.cli import main
sys.exit(main())
"""


def begin(*arguments: Any, folder: Path) -> subprocess.Popen:
    """`headwater ARGUMENTS` as a process of its own in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-c", _START, *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
