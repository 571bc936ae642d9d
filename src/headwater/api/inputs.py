"""From what people give (names, paths, objects) to what a specification says of it."""

import dataclasses
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.api.run import Run, open_run
from headwater.api.specifications.choices import JudgeChoice, ModelChoice, ProcessChoice, TaskChoice
from headwater.api.specifications.plan import Given
from headwater.core.catalogue import build_method, method_class
from headwater.core.errors import DataError, HeadwaterError, RunError, SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.hypotheses import FiniteTask
from headwater.core.method import AbstractCompletionScorer, AbstractMethod
from headwater.core.records import Completions, EpisodeComparisons, Episodes, Pulls, Queries
from headwater.core.tokens import AbstractCompletionReward
from headwater.datasets.bandits.pulls_files import PullsFile
from headwater.datasets.black_boxes.earlier_tasks import EarlierTasks
from headwater.datasets.columns.roles import Mapping
from headwater.datasets.dataset import Dataset
from headwater.datasets.finite_files import read_process
from headwater.datasets.formats.directory_format import is_column_directory, open_columns
from headwater.datasets.read import load, locate
from headwater.environments.bandits.bandit import AbstractBandit
from headwater.environments.black_boxes.black_box import AbstractBlackBox
from headwater.environments.catalogue import bandit_names, black_box_names
from headwater.environments.environment import AbstractEnvironment, AbstractHostTask
from headwater.environments.processes import make_process, process_names
from headwater.environments.registry import acted_in, make, make_recorded
from headwater.networks.hugging_face import read_reward_model
from headwater.networks.reward_head import WithReward
from headwater.runs.feeds.flow import Flow
from headwater.runs.feeds.language import EXACT_MATCH
from headwater.runs.feeds.logged import DataChoice, file_fingerprint
from headwater.runs.options import Options
from headwater.runs.recipes.online import Task


class Chosen(NamedTuple):
    """What a specification says of its inputs; the fields are the specification's."""

    data: DataChoice | None = None
    task: TaskChoice | None = None
    process: ProcessChoice | None = None
    model: ModelChoice | None = None
    reward: JudgeChoice | None = None
    judge: JudgeChoice | None = None
    later: tuple[DataChoice, ...] = ()
    added_rewards: tuple[JudgeChoice, ...] = ()


def as_method(method: AbstractMethod | str | type) -> AbstractMethod:
    """A method from its name or class. Raises `SpecificationError` if there is none."""
    if isinstance(method, str):
        return build_method(method)
    if isinstance(method, type) and issubclass(method, AbstractMethod):
        return build_method(method.__name__)
    if not isinstance(method, AbstractMethod):
        raise SpecificationError(f"{method!r} is not a method: give one such as IQL() or its name")
    method_class(type(method).__name__)
    return method


def as_task(env: Task | str | None, recorded: str | None = None) -> Task | None:
    """A task from its name; `None` means the `recorded` one, if it can be made here."""
    if env is None:
        try:
            return None if recorded is None else acted_in(make_recorded(recorded))
        except HeadwaterError:
            return None
    if isinstance(env, str):
        return None if env == "none" else acted_in(make(env))
    if isinstance(env, AbstractBandit | AbstractBlackBox):
        return acted_in(env)
    if not isinstance(env, AbstractEnvironment | AbstractHostTask):
        raise SpecificationError(
            f"a {type(env).__name__} is no environment: give its name, or one made by hw.make or "
            "from_gymnasium"
        )
    return env


def as_bandit(env: Any) -> AbstractBandit | None:
    """A bandit from its name. Raises `SpecificationError` for any other environment."""
    if env is None or env == "none":
        return None
    env = make(env) if isinstance(env, str) else env
    if not isinstance(env, AbstractBandit):
        name = env.name if isinstance(env, AbstractEnvironment | AbstractHostTask) else repr(env)
        raise SpecificationError(
            f"{name} is no bandit: take one of {', '.join(bandit_names())}, or write one that "
            "derives from AbstractBandit"
        )
    return env


def as_black_box(env: Any) -> AbstractBlackBox | None:
    """A black box from its name. Raises `SpecificationError` for anything else."""
    if env is None or env == "none":
        return None
    env = make(env) if isinstance(env, str) else env
    if not isinstance(env, AbstractBlackBox):
        known = isinstance(env, AbstractEnvironment | AbstractHostTask | AbstractBandit)
        raise SpecificationError(
            f"{env.name if known else repr(env)} is no black box: take one of "
            f"{', '.join(black_box_names())}, or hw.BlackBox(function, space)"
        )
    return env


def as_process(
    process: Any, problem: Any, options: Options, made_with: dict[str, Any] | None
) -> tuple[ProcessChoice | None, FiniteTask | None]:
    """A finite process from a name, a file or an object.

    **Arguments:** `problem`: what methods are told, if not what follows from the process;
    `made_with`: options of a process by name. Raises `SpecificationError` or `DataError`.
    """
    if process is None and problem is None:
        return None, None
    name, path, own = "", None, True
    if isinstance(process, str | os.PathLike):
        place = Path(process).expanduser()
        name, own = str(process), False
        if place.suffix.lower() == ".npz" or place.is_file():
            if made_with:
                raise SpecificationError(f"{process} is a file: options are of processes by name")
            path, name = str(place.resolve()), place.stem
            task = read_process(place)
        elif place.suffix or os.sep in str(process):
            raise DataError(
                f"there is no file {process}: give an .npz archive of arrays, or one of "
                f"{', '.join(process_names())}"
            )
        else:
            task = make_process(str(process), **(made_with or {}))
    else:
        if made_with:
            raise SpecificationError("process options are of processes by name")
        task = FiniteTask.of(process, problem)
        name = "log" if process is None else type(process).__name__
    if problem is not None and isinstance(process, str | os.PathLike):
        task, own, path = FiniteTask.of(task.process, problem), True, None
    task = task.telling(options.known_reward, options.budgets, options.reward_range)
    known = task.process is None or isinstance(task.process, FiniteProcess)
    return ProcessChoice(name, dict(made_with or {}), path, own, known), task


def read_log(
    data: Dataset | str | Path, options: dict[str, Any] | None, runs: Sequence[Run]
) -> Dataset:
    """The log to judge runs from, read as `options` of `headwater.load` say.

    Without options it is read as the first of the runs that learned from it read it. Raises
    `SpecificationError` for options of data that is read already, `DataError` as `load` does.
    """
    if isinstance(data, Dataset):
        refuse_options(options)
        return data
    if options:
        return load(data, **options)
    place = locate(data).resolve()
    for learned in (each for run in runs for each in run.lineage):
        choice = learned.specification.data
        known = None if choice is None else choice.place(learned.path)
        if choice is not None and known is not None and known.resolve() == place:
            return load(data, **choice.options)
    return load(data)


def refuse_options(options: dict[str, Any] | None, why: str = "the data is read already") -> None:
    """Raises `SpecificationError` if there are options of reading, where `why` nothing is read."""
    if options:
        raise SpecificationError(
            f"{next(iter(options))} says how a file is read, and {why}: leave it out"
        )


def pulls_columns(options: dict[str, Any] | None) -> Mapping | None:
    """The one option of reading that logged rounds of a bandit have: their columns."""
    others = {name: value for name, value in (options or {}).items() if name != "columns"}
    refuse_options(others, "logged rounds of a bandit have no such option, `columns` alone")
    return (options or {}).get("columns") or None


def choose_transitions(
    data: Any, options: dict[str, Any] | None, *, from_disk: bool = False
) -> tuple[DataChoice | None, Dataset | None]:
    """What the specification says of logged transitions, and these unless they stay on disk."""
    if data is None:
        return None, None
    if isinstance(data, Dataset):
        refuse_options(options)
        return DataChoice(None, {}, data.fingerprint()), data
    if not isinstance(data, str | os.PathLike):
        raise SpecificationError(
            f"data is a Dataset, a file or a directory of transitions, not a {type(data).__name__}"
        )
    path = str(locate(Path(data) if isinstance(data, os.PathLike) else data).resolve())
    if from_disk:
        known = open_columns(path).fingerprint() if is_column_directory(Path(path)) else None
        return DataChoice(path, options or {}, known), None
    loaded = load(path, **(options or {}))
    return DataChoice(path, options or {}, loaded.fingerprint()), loaded


def _with_comparisons(chosen: DataChoice, path: Path) -> DataChoice:
    """The choice of a log with the file of answers about its segments. Raises `DataError`."""
    path = path.expanduser().resolve()
    found = file_fingerprint(path)
    return dataclasses.replace(chosen, comparisons=str(path), comparisons_fingerprint=found)


def choose_file(data: Any) -> tuple[DataChoice | None, Any]:
    """What the specification says of episodes, comparisons or texts, and where these are."""
    if data is None:
        return None, None
    if isinstance(data, Episodes | EpisodeComparisons | Pulls | Queries | EarlierTasks):
        return DataChoice(None, {}, None), data
    if not isinstance(data, str | os.PathLike):
        raise SpecificationError(
            f"data is a file, or episodes in Python, not a {type(data).__name__}"
        )
    path = locate(Path(data)) if Path(data).suffix else Path(data)
    if path.is_dir():
        raise DataError(f"{data} is a directory: give one of the files in it")
    if not path.is_file():
        raise DataError(f"{data}: there is no such file")
    return DataChoice(str(path.resolve()), {}, file_fingerprint(path)), path.resolve()


def recorded_task(chosen: DataChoice, data: Dataset | None) -> str | None:
    """The task that the data says it was logged in."""
    if data is not None:
        return data.metadata.get("environment")
    path = Path(chosen.path or "")
    return open_columns(path).metadata.get("environment") if is_column_directory(path) else None


def open_inputs(
    flow: Flow,
    options: Options,
    *,
    data: Any = None,
    env: Any = None,
    process: Any = None,
    model: Any = None,
    reward: Any = None,
    judge: Any = None,
    problem: Any = None,
    data_options: dict[str, Any] | None = None,
    process_options: dict[str, Any] | None = None,
    policy: bool = True,
) -> tuple[Chosen, Given]:
    """Everything that was given, opened, and what the specification says of it.

    **Arguments:** `policy`: the method acts, and so can be evaluated where the data was logged.

    Raises `SpecificationError` or `DataError` for what is not there or cannot be read.
    """
    reward_choices, reward = choose_rewards(reward)
    if options.reward_weights is not None and not reward_choices:
        raise SpecificationError("reward_weights: give the rewards that they are of")
    judge_choice = None if judge is None else JudgeChoice("object", _name_of(judge))
    judge = open_function(judge) if isinstance(judge, str) else judge
    if flow.kind == "control":
        tasks = data if isinstance(data, list | tuple) else [data]
        if not tasks:
            raise SpecificationError("the list of logs is empty: give one of each task")
        from_disk = options.from_disk
        found = [choose_transitions(one, data_options, from_disk=from_disk) for one in tasks]
        chosen, data = found[0]
        later = tuple(choice for choice, _ in found[1:] if choice is not None)
        if len(later) < len(found) - 1 or (chosen is None and later):
            raise SpecificationError("a log in the list is None: give one of each task")
        if chosen is not None and options.comparisons is not None:
            chosen = _with_comparisons(chosen, Path(options.comparisons))
        # The policy that there is in the end acts in the last task.
        last = later[-1] if later else chosen
        recorded = None if last is None else recorded_task(last, found[-1][1])
        # What is no policy is evaluated nowhere, wherever the data comes from.
        used = "env" in flow.needs or (policy and "env" in flow.takes)
        task = as_task(env, recorded if used else None)
        made = None if task is None else TaskChoice.of(task)
        others = tuple(log for _, log in found[1:])
        return Chosen(chosen, made, later=later), Given(data, task, later=others)
    if data_options and flow.kind != "bandits":
        raise SpecificationError("data options are of logged transitions: leave them out")
    chosen, data = choose_file(data)
    if flow.kind == "bandits":
        if chosen is not None and isinstance(data, Path):
            columns = pulls_columns(data_options)
            chosen = dataclasses.replace(chosen, options=data_options or {})
            data = PullsFile(data, columns)
        else:
            refuse_options(data_options)
        bandit = as_bandit(env)
        made = None if bandit is None else TaskChoice.of(bandit)
        return Chosen(chosen, made), Given(data, bandit)
    if flow.kind == "black boxes":
        black_box = as_black_box(env)
        made = None if black_box is None else TaskChoice.of(black_box)
        return Chosen(chosen, made), Given(data, black_box)
    if flow.kind == "finite":
        named, task = as_process(process, problem, options, process_options)
        return (
            Chosen(chosen, process=named, judge=judge_choice),
            Given(data, process=task, judge=judge),
        )
    if not isinstance(model, str | os.PathLike):
        raise SpecificationError(
            f"a model is the directory that it is in, not a {type(model).__name__}"
        )
    opened = ModelChoice.of(Path(model), options.adapters)
    return (
        Chosen(
            chosen,
            model=opened,
            reward=reward_choices[0] if reward_choices else None,
            judge=judge_choice,
            added_rewards=reward_choices[1:],
        ),
        Given(data, reward=reward, judge=judge),
    )


# Rewards -----------------------------------------------------------------------------------------


class LearnedReward(AbstractCompletionReward):
    """What a reward model, as it was learned, says of responses."""

    method: AbstractCompletionScorer
    state: Any

    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        return jax.lax.stop_gradient(self.method.rate(self.state, data))


class StoredReward(AbstractCompletionReward):
    """What a reward model of transformers says of responses."""

    network: WithReward

    def __call__(self, data: Completions) -> Float[Array, "*batch"]:
        return jax.lax.stop_gradient(self.network.rate(data))


def choose_rewards(reward: Any) -> tuple[tuple[JudgeChoice, ...], Any]:
    """What the specification says of one reward or several, and the reward itself.

    **Arguments:** `reward`: `None` or `"exact-match"`; the run of a reward model, or the directory
    of one that transformers loads; `module:function` or `file.py:function`; a function of texts, or
    an `AbstractCompletionReward`; or a list of such, which are added up.

    **Returns:** no choice and `None` for exact match; a tuple of rewards for several.

    Raises `SpecificationError` or `RunError` for anything else.
    """
    if not isinstance(reward, list | tuple):
        if reward is None or _is_exact_match(reward):
            return (), None
        choice, found = _choose_reward(reward)
        return (choice,), found
    if not reward:
        raise SpecificationError("the list of rewards is empty: give one at least")
    if len(reward) == 1:
        return choose_rewards(reward[0])
    choices, found = zip(*map(_choose_reward, reward), strict=True)
    return choices, found


def _choose_reward(reward: Any) -> tuple[JudgeChoice, Any]:
    if _is_exact_match(reward):
        return JudgeChoice("file", EXACT_MATCH), EXACT_MATCH
    if isinstance(reward, str | os.PathLike):
        text = str(reward)
        if text.endswith(".py"):
            raise SpecificationError(
                f"{text} is a file of Python: say which of its functions is the reward, as "
                f"{text}:FUNCTION"
            )
        if ":" in text and not Path(text).exists():
            return JudgeChoice("object", text), open_function(text)
        place = str(Path(reward).resolve())
        return JudgeChoice("run", place), load_reward(place)
    if not isinstance(reward, AbstractCompletionReward) and not callable(reward):
        raise SpecificationError(
            f"{reward!r} is no reward: give a function of texts, the run of a "
            "reward model, or exact-match"
        )
    return JudgeChoice("object", _name_of(reward)), reward


def _is_exact_match(reward: Any) -> bool:
    return isinstance(reward, str) and reward == EXACT_MATCH


def open_rewards(chosen: tuple[JudgeChoice, ...], given: Any, vocabulary: int) -> Any:
    """The rewards of a run, as `choose_rewards` returns them.

    **Arguments:** `chosen`: what its specification says; `given`: by whom it is opened, as
    `choose_rewards` returns it, or `None`; `vocabulary`: of the policy that is judged.

    Raises `RunError` for Python code that is not given again, or another number of rewards.
    """
    held = given if isinstance(given, tuple) else (given,)
    if given is None:
        held = (None,) * len(chosen)
    if len(held) != len(chosen):
        raise RunError(
            f"this run adds up {len(chosen)} rewards, and {len(held)} were given: give all of "
            "them, in their order"
        )
    found = []
    for choice, reward in zip(chosen, held, strict=True):
        if choice.kind == "object" and reward is None:
            raise RunError(
                f"the reward '{choice.name}' is Python code, which a run's directory does not get "
                "to name: give it again (--reward, or reward=… in Python)"
            )
        if choice.kind == "run":
            reward = load_reward(choice.name, vocabulary)
        found.append(EXACT_MATCH if choice.kind == "file" else reward)
    return tuple(found) if len(found) > 1 else found[0]


def open_function(text: str) -> Callable[..., Any]:
    """The Python function that `module:function` or `file.py:function` names.

    Raises `SpecificationError` if there is none.
    """
    where, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier():
        raise SpecificationError(
            f"'{text}' does not name a function: give module:function or file.py:function"
        )
    try:
        if where.endswith(".py"):
            path = Path(where).expanduser()
            found = importlib.util.spec_from_file_location(path.stem, path)
            if found is None or found.loader is None or not path.is_file():
                raise SpecificationError(f"there is no file {where}")
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
        else:
            # As `python -m` does: modules beside the user's work are found.
            if os.getcwd() not in sys.path:
                sys.path.insert(0, os.getcwd())
            module = importlib.import_module(where)
    except SpecificationError:
        raise
    except (Exception, SystemExit) as error:  # Whatever the module does when it is imported.
        reason = " ".join(str(error).split())[:160]
        raise SpecificationError(f"{where} cannot be imported ({reason})") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise SpecificationError(f"{where} has no function '{name}'")
    return function


def load_reward(path: str | Path, vocabulary: int | None = None) -> LearnedReward | StoredReward:
    """The reward that the first seed of a run of a reward model learned, or that is in a directory
    of a model for sequence classification.

    **Arguments:** `vocabulary`: of the policy that is to be judged. Raises `RunError` if the run
    is of something else or is not finished, `DataError` if the vocabularies differ.
    """
    place = Path(path)
    if (place / "config.json").is_file() and not (place / "run.json").is_file():
        stored = StoredReward(read_reward_model(place))
        _check_vocabulary(path, stored.network.vocabulary, vocabulary)
        return stored
    run = open_run(path)
    method = run.method
    if not isinstance(method, AbstractCompletionScorer):
        raise RunError(f"{path} is no run of a reward model: train one, or use {EXACT_MATCH}")
    if not run.finished:
        raise RunError(f"{path} is not finished: `headwater resume {path}` first")
    _check_vocabulary(path, run.problem.network.vocabulary, vocabulary)
    return LearnedReward(method, jax.tree.map(lambda x: jnp.asarray(np.asarray(x))[0], run.state))


def _check_vocabulary(path: str | Path, known: int, vocabulary: int | None) -> None:
    if vocabulary is not None and known != vocabulary:
        raise DataError(
            f"{path}: its {known} tokens are not the policy's {vocabulary}: train a reward model "
            "that begins with the same tokenizer"
        )


def _name_of(thing: Any) -> str:
    if isinstance(thing, str):
        return thing
    return getattr(thing, "__qualname__", type(thing).__name__)
