"""What a flow of data is: what a user has to give, and the stage that is made of it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from headwater.core.errors import SpecificationError
from headwater.core.hypotheses import FiniteTask
from headwater.core.method import AbstractMethod
from headwater.core.records import (
    CompletionComparisons,
    Completions,
    EpisodeComparisons,
    Episodes,
    LabelledCompletions,
    Pulls,
    Queries,
)
from headwater.core.tokens import (
    AbstractCompletionReward,
    AbstractPreference,
    Prompts,
)
from headwater.datasets.bandits.pulls_files import PullsFile
from headwater.datasets.black_boxes.earlier_tasks import EarlierTasks
from headwater.environments.bandits.bandit import AbstractBandit
from headwater.environments.black_boxes.black_box import AbstractBlackBox
from headwater.runs.feeds.logged import Logged
from headwater.runs.options import Options
from headwater.runs.recipes.online import Budget, Task
from headwater.runs.stage import Stage
from headwater.sources.comparisons import (
    AbstractJudge,
)
from headwater.sources.language.host_rewards import AbstractHostReward
from headwater.texts.models import LanguageModel


class TextFile:
    """A file of texts, of which nothing is read twice: counting its rows cuts them into tokens.

    **Arguments:** `path`.
    """

    def __init__(self, path: Path):
        self.path = path
        self._found: dict[tuple[str, Path], Any] = {}

    def read(self, reader: Callable[[Path], Any], path: Path) -> Any:
        """What `reader` makes of this file, or of another that belongs to it."""
        what = reader.__name__, path
        if what not in self._found:
            self._found[what] = reader(path)
        return self._found[what]


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a user gave, opened as far as every flow needs it.

    **Arguments:** `data`: logged transitions, or where episodes, comparisons or texts lie (or these
    themselves); `task`: to act in; `process`: a finite one; `model`: a language model; `reward`,
    `judge`: of what is done or written, the rewards in a tuple if there are several; `budget`: of
    acting, `begin`: see `Stage`, both of a run that acts; `later`: logged transitions of the tasks
    behind the first, in their order.
    """

    data: (
        Logged
        | Path
        | TextFile
        | Episodes
        | EpisodeComparisons
        | Pulls
        | PullsFile
        | Queries
        | EarlierTasks
        | None
    ) = None
    task: Task | AbstractBandit | AbstractBlackBox | None = None
    process: FiniteTask | None = None
    model: LanguageModel | None = None
    reward: Any = None
    judge: AbstractPreference | AbstractJudge | Callable[..., Any] | None = None
    budget: Budget | None = None
    begin: Any = None
    later: tuple[Logged, ...] = ()


class HeldOut(NamedTuple):
    """What a language model is evaluated on while it learns.

    **Arguments:** `data`: texts, with labels or without, or comparisons; or prompts, to which
    responses are written, and `reward`: what judges these.
    """

    data: Completions | LabelledCompletions | CompletionComparisons | Prompts
    reward: AbstractCompletionReward | AbstractHostReward | None = None

    @property
    def score(self) -> str:
        """What is measured on it; more is better."""
        if self.reward is not None:
            return "reward"
        if isinstance(self.data, CompletionComparisons | LabelledCompletions):
            return "accuracy"
        return "log-likelihood"


class Fed(NamedTuple):
    """A stage, and what is known of it.

    **Arguments:** `stage`; `problem`: what the method is initialised for; `held_out`: of language
    models; `tokens`: that one update learns from, about; `before`: the stages before it, in which
    what the method builds on is learned.
    """

    stage: Stage
    problem: Any
    held_out: HeldOut | None = None
    tokens: float | None = None
    before: tuple[Stage, ...] = ()


@dataclasses.dataclass(frozen=True)
class Flow:
    """How one kind of data reaches the methods that are fed in one way.

    **Arguments:** `learns`: to go on with after the name of a method; `needs`, `takes`: of `data`,
    `env`, `process`, `model`, `reward`, `judge`, what has to be given and what else may be;
    `groups`: of options; `usual`: what options are by default; `stage`: makes the stage; `acts`:
    steps of an environment are what limits it; `rollouts`: each block of these is learned from
    once.
    """

    learns: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    groups: tuple[str, ...]
    usual: Mapping[str, Any]
    stage: Callable[[AbstractMethod, Inputs, Options], Fed]
    acts: bool = False
    rollouts: bool = False

    @property
    def idle(self) -> dict[str, str]:
        """Options of training that would change nothing, each with why and what to do."""
        found = {}
        if self.acts:
            found["updates"] = "updates is for methods that do not act: say steps instead"
            if self.kind == "bandits":
                found["updates"] += ", or nothing of a log, which is gone through once"
        if self.kind == "finite":
            found["batch_size"] = "batch_size is for methods that draw rows: leave it out"
        return found

    @property
    def kind(self) -> Literal["control", "finite", "language", "bandits", "black boxes"]:
        """What there is to learn about."""
        if "pulls" in self.groups:
            return "bandits"
        if "queries" in self.groups:
            return "black boxes"
        if "model" in self.needs:
            return "language"
        return "finite" if "process" in (*self.needs, *self.takes) else "control"


def wrong_data(method: AbstractMethod, needed: str, data: Any) -> SpecificationError:
    """The refusal of data of another kind than `needed`."""
    return SpecificationError(
        f"{type(method).__name__} learns from {needed}, not from a {type(data).__name__}"
    )
