"""The analyses that stand on a paper, found in the files of this room."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from headwater.core.papers import paper as paper_of

Function = TypeVar("Function", bound=Callable[..., Any])


class Analysis(NamedTuple):
    """A function that reads something finished and returns numbers.

    **Arguments:** `name`: of the function; `paper`: its key in `papers.bib`; `function`.
    """

    name: str
    paper: str
    function: Callable[..., Any]


_REGISTERED: dict[str, Analysis] = {}


def analysis(*, paper: str) -> Callable[[Function], Function]:
    """Registers a function as the analysis of a paper; the function stays as it is.

    It has to pass `headwater.testing.check_analysis`, and its test calls that.

    **Arguments:** `paper`: its key in `papers.bib`. Raises `SpecificationError` for another.
    """
    key = paper_of(paper).key

    def register(function: Function) -> Function:
        name = function.__name__
        _REGISTERED[name] = Analysis(name, key, function)
        return function

    return register


def all_analyses() -> dict[str, Analysis]:
    """Every registered analysis by name, in alphabetical order."""
    room = Path(__file__).parent
    for path in sorted(room.rglob("*.py")):
        if path.name != "__init__.py":
            name = ".".join(path.relative_to(room).with_suffix("").parts)
            importlib.import_module(f"headwater.analysis.{name}")
    return dict(sorted(_REGISTERED.items()))
