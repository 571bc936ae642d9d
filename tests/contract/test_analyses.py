"""Every analysis keeps its contract, and the contract finds what is broken on purpose."""

import ast
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.analysis.registry import all_analyses
from headwater.core.papers import all_papers
from headwater.testing import check_analysis

TESTS = Path(__file__).parents[1]


def checked(text: str) -> set[str]:
    """The functions that `text` passes to `check_analysis`."""
    return {
        ast.unparse(node.args[0])
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("check_analysis")
        and node.args
    }


@pytest.mark.parametrize("name", list(all_analyses()))
def test_every_analysis_is_checked_and_has_a_paper(name):
    entry = all_analyses()[name]
    assert entry.paper in all_papers()
    path = TESTS / "analysis" / f"test_{entry.function.__module__.rpartition('.')[2]}.py"
    assert path.exists() and name in checked(path.read_text(encoding="utf-8")), (
        f"{path.relative_to(TESTS.parent)} does not call check_analysis({name}, …)"
    )


def test_what_is_checked_is_read_from_the_call():
    assert checked("hw.testing.check_analysis(saco, {}, 1.0)\ncheck(other)") == {"saco"}


def _shares(rows):
    return rows / jnp.sum(rows)


def _running(rows):
    return jnp.cumsum(rows)


_RANDOM = np.random.default_rng(0)


def _noisy(rows):
    return _shares(rows) * _RANDOM.uniform(0.99999, 1.00001)


ROWS = jnp.asarray([1.0, 2.0, 5.0])


def test_a_sound_analysis_passes():
    check_analysis(_shares, {"rows": ROWS}, np.asarray(ROWS) / 8, rows={"rows": 0})
    check_analysis(jnp.max, {"a": ROWS}, 5.0, rows={"a": None})


@pytest.mark.parametrize(
    ("function", "expected", "said"),
    [
        (_noisy, np.asarray(ROWS) / 8, "_noisy: the same arguments give other numbers"),
        (_shares, np.asarray(ROWS) / 7, "_shares is not what is expected"),
        (_running, np.cumsum(ROWS), "_running: rows in another order"),
        (_shares, (1.0, 2.0), "_shares is not what is expected: 1 answers, not 2"),
    ],
)
def test_planted_mistakes_are_caught(function, expected, said):
    with pytest.raises(AssertionError, match=said):
        check_analysis(function, {"rows": ROWS}, expected, rows={"rows": 0})
