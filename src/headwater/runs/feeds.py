"""From what a method declares and what a user has to a stage that can run.

A method declares its kind of data and how it is fed; `FLOWS` says for every such pair what a user
has to give and makes the source of it. Nothing else knows methods by name or by folder, and this is
the only place that grows with a new flow of data.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.catalogue import all_methods, build_method, learns_from, settings
from headwater.core.errors import DataError, SpecificationError
from headwater.core.feed import Feed
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.hypotheses import FiniteTask
from headwater.core.method import AbstractMethod, AbstractPolicy
from headwater.core.records import (
    ComparisonsAndCompletions,
    CompletionComparisons,
    Completions,
    EpisodeComparisons,
    Episodes,
    Transition,
    Transitions,
)
from headwater.core.source import AbstractHostSource
from headwater.core.tokens import (
    AbstractCompletionReward,
    AbstractPreference,
    Prompts,
    TokenProblem,
)
from headwater.datasets.finite_files import read_episode_comparisons, read_episodes
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.language.token_tasks import ExactMatch
from headwater.networks.low_rank_adapters import Adapted
from headwater.ops.language.generation import generate
from headwater.runs.logged import Logged
from headwater.runs.options import GROUPS, Options
from headwater.runs.recipes import Budget, Task, online_stage, rows_per_update
from headwater.runs.stage import Stage
from headwater.sources.comparisons import (
    AbstractJudge,
    BradleyTerryJudge,
    FreshComparisons,
    LoggedComparisons,
)
from headwater.sources.completion_pairs import BradleyTerry, JudgedPairs, ReplayAndSampled
from headwater.sources.completions import AbstractWriting, CompletionReplay, SampledCompletions
from headwater.sources.episodes import FreshEpisodes, WholeLog
from headwater.sources.host_rewards import HostJudgedPairs, HostRewarded, TextJudge
from headwater.sources.resets import Resets
from headwater.sources.rollout import Stream
from headwater.texts.completion_advantages import advantages, prompt_values
from headwater.texts.models import LanguageModel, prompts_within
from headwater.texts.texts import read_comparisons, read_completions, read_prompts

EXACT_MATCH = "exact-match"
"""The reward that is 1 for the completion in the file, else 0."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a user gave, opened as far as every flow needs it.

    **Arguments:** `data`: logged transitions, or where episodes, comparisons or texts lie (or these
    themselves); `task`: to act in; `process`: a finite one; `model`: a language model; `reward`,
    `judge`: of what is done or written; `budget`: of acting, `begin`: see `Stage`, both of a run
    that acts.
    """

    data: Logged | Path | Episodes | EpisodeComparisons | None = None
    task: Task | None = None
    process: FiniteTask | None = None
    model: LanguageModel | None = None
    reward: AbstractCompletionReward | Callable[..., Any] | None = None
    judge: AbstractPreference | AbstractJudge | Callable[..., Any] | None = None
    budget: Budget | None = None
    begin: Any = None


class HeldOut(NamedTuple):
    """What a language model is evaluated on while it learns.

    **Arguments:** `data`: texts or comparisons; or prompts, to which responses are written, and
    `reward`: what judges these.
    """

    data: Completions | CompletionComparisons | Prompts
    reward: AbstractCompletionReward | TextJudge | None = None

    @property
    def score(self) -> str:
        """What is measured on it; more is better."""
        if self.reward is not None:
            return "reward"
        if isinstance(self.data, CompletionComparisons):
            return "accuracy"
        return "log-likelihood"


class Fed(NamedTuple):
    """A stage, and what is known of it.

    **Arguments:** `stage`; `problem`: what the method is initialised for; `held_out`: of language
    models; `tokens`: that one update learns from, about.
    """

    stage: Stage
    problem: Any
    held_out: HeldOut | None = None
    tokens: float | None = None


@dataclasses.dataclass(frozen=True)
class Flow:
    """How one kind of data reaches the methods that are fed in one way.

    **Arguments:** `learns`: to go on with after the name of a method; `needs`, `takes`: of `data`,
    `env`, `process`, `model`, `reward`, `judge`, what has to be given and what else may be;
    `groups`: of options; `usual`: what options are by default; `stage`: makes the stage; `acts`:
    steps of an environment are what limits it.
    """

    learns: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    groups: tuple[str, ...]
    usual: Mapping[str, Any]
    stage: Callable[[AbstractMethod, Inputs, Options], Fed]
    acts: bool = False

    @property
    def kind(self) -> Literal["control", "finite", "language"]:
        """What there is to learn about."""
        if "model" in self.needs:
            return "language"
        return "finite" if "process" in (*self.needs, *self.takes) else "control"


def flow_of(cls: type[AbstractMethod]) -> Flow:
    """The flow of the methods of this class. Raises `SpecificationError` if there is none."""
    data = learns_from(cls)[1]
    if (data, cls.feed) not in FLOWS:
        raise SpecificationError(
            f"{cls.__name__} learns from {data.__name__}, fed as {cls.feed.name}, for which "
            "runs/feeds.py has no flow: build its source in Python"
        )
    return FLOWS[data, cls.feed]


_IN_WORDS = {
    "data": "data",
    "env": "an environment",
    "process": "a process",
    "model": "a model",
    "reward": "a reward",
    "judge": "a judge",
}


def check_inputs(cls: type[AbstractMethod], given: set[str]) -> None:
    """Raises `SpecificationError`, in one sentence, for what is missing or is not looked at.

    **Arguments:** `given`: which of `data`, `env`, `process`, `model`, `reward`, `judge` there are.
    """
    flow, name = flow_of(cls), cls.__name__
    idle = [what for what in _IN_WORDS if what in given and what not in (*flow.needs, *flow.takes)]
    missing = [what for what in flow.needs if what not in given]
    said = f"{name} learns {flow.learns}"
    if missing:
        wanted = " and ".join(_IN_WORDS[what] for what in missing)
        out = "" if not idle else f", and leave out {' and '.join(idle)}"
        raise SpecificationError(f"{said}: give it {wanted}{out}")
    if idle:
        others = _others(cls, given)
        instead = f" (or take {' or '.join(others)})" if others else ""
        raise SpecificationError(f"{said}: leave out {' and '.join(idle)}{instead}")


def _others(cls: type[AbstractMethod], given: set[str]) -> list[str]:
    """A few methods for the same problem that look at all that is given, and best need all."""
    found: dict[str, int] = {}
    for name, other in all_methods().items():
        flow = FLOWS.get((learns_from(other)[1], other.feed))
        if flow is None or learns_from(other)[0] is not learns_from(cls)[0]:
            continue
        if given <= {*flow.needs, *flow.takes} and given >= set(flow.needs):
            found[name] = len(flow.needs)
    return [name for name, needed in found.items() if needed == max(found.values())][:3]


def check_options(cls: type[AbstractMethod], options: Options) -> None:
    """Raises `SpecificationError` for an option that this class of methods does not look at."""
    flow = flow_of(cls)
    for group in GROUPS:
        unusual = options.unusual((group,)) if group not in ("training", *flow.groups) else []
        if unusual:
            raise SpecificationError(
                f"{unusual[0]} is one of the {GROUPS[group]} options, but {cls.__name__} learns "
                f"{flow.learns}: leave it out"
            )


def settle(method: AbstractMethod, options: Options) -> tuple[AbstractMethod, Options]:
    """Both with everything settled that was left open.

    A method that reads the probabilities of what is written does so at the temperature of writing.
    Raises `SpecificationError` if the two were given different ones.
    """
    flow = flow_of(type(method))
    usual = {n: value for n, value in flow.usual.items() if getattr(options, n) is None}
    options = dataclasses.replace(options, **usual)
    options = dataclasses.replace(options, seeds=tuple(options.seed_list))
    if "writing" not in flow.groups:
        return method, options
    own = settings(method)
    if "temperature" not in own:
        given = 1.0 if options.temperature is None else options.temperature
        return method, dataclasses.replace(options, temperature=given)
    if options.temperature is None:
        return method, dataclasses.replace(options, temperature=own["temperature"])
    name = type(method).__name__
    if own["temperature"] not in (options.temperature, settings(build_method(name))["temperature"]):
        raise SpecificationError(
            f"texts are written at temperature {options.temperature}, but {name} was told "
            f"{own['temperature']}: give the temperature once"
        )
    return build_method(name, {**own, "temperature": options.temperature}), options


def feed(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    """The stage in which `method` learns from `inputs`.

    **Arguments:** `options`: settled. Raises `SpecificationError` or `DataError` for what does not
    fit together.
    """
    flow = flow_of(type(method))
    if inputs.budget is not None and flow.kind == "control" and not flow.acts:
        # A method that learned from a log may go on by acting.
        return _acting(method, inputs, options)
    return flow.stage(method, inputs, options)


# Logged transitions, and acting ------------------------------------------------------------------


def _offline(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    logged = inputs.data
    assert isinstance(logged, Logged) and options.updates and options.batch_size
    rows = len(options.seed_list) * rows_per_update(method, options.batch_size)
    pieces = logged.updates_per_draw(options.updates, rows)
    source = logged.source(method, pieces * options.batch_size)
    stage = Stage("offline", method, source, options.updates, pieces, inputs.begin)
    return Fed(stage, _spaces(logged, inputs.task))


def _acting(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    logged, task = inputs.data, inputs.task
    assert task is not None and inputs.budget is not None
    if isinstance(logged, Logged) and options.weights is not None:
        raise SpecificationError(
            f"{type(method).__name__} draws its log uniformly while it acts: leave out weights"
        )
    rows = logged.transitions(method) if isinstance(logged, Logged) else None
    stage = online_stage(method, task, inputs.budget, data=rows, begin=inputs.begin)
    return Fed(stage, _spaces(logged if isinstance(logged, Logged) else None, task))


def _streaming(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    task, name = inputs.task, type(method).__name__
    if not isinstance(method, AbstractPolicy):
        raise SpecificationError(
            f"{name} predicts and does not act: give the source Stream an `act`, in Python"
        )
    if options.random_steps or options.block != 1:
        idle = "random_steps" if options.random_steps else "block"
        raise SpecificationError(f"{name} learns from every step when it happens: leave out {idle}")
    assert task is not None
    if not isinstance(task, AbstractEnvironment):
        raise SpecificationError(
            f"{name} learns in environments that are compiled, and {task.name} is none: take "
            "one of Headwater's own, or write it in JAX"
        )
    stage = Stage("online", method, Stream(task), options.steps, begin=inputs.begin)
    return Fed(stage, task.spaces)


def _spaces(logged: Logged | None, task: Task | None) -> Any:
    if logged is None:
        assert task is not None
        return task.spaces
    if task is not None:
        reason = logged.spaces.mismatch(task.spaces, "in the data", "in it")
        if reason is not None:
            raise SpecificationError(f"the data does not fit the environment {task.name}: {reason}")
    horizon = logged.spaces.horizon or (task.spaces.horizon if task is not None else None)
    return dataclasses.replace(logged.spaces, horizon=horizon)


# Finite processes --------------------------------------------------------------------------------


def _told(method: AbstractMethod, task: FiniteTask) -> Any:
    return task.told(learns_from(type(method))[0], type(method).__name__)


def _playing(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    task = inputs.process
    assert task is not None
    name = type(method).__name__
    if task.process is None:
        raise SpecificationError(f"{name} acts, but this is no process to act in: give one")
    problem = _told(method, task)
    updates = _whole_updates(method, problem, options.steps)
    source = FreshEpisodes(task.process, problem.tasks)
    return Fed(Stage("learn", method, source, updates), problem)


def _comparing(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    task, judge = inputs.process, inputs.judge
    assert task is not None
    name = type(method).__name__
    if task.process is None:
        raise SpecificationError(f"{name} acts, but this is no process to act in: give one")
    if judge is None:
        if not isinstance(task.process, FiniteProcess):
            raise SpecificationError(
                f"{name} asks a judge, and without a known reward there is none: give a judge"
            )
        judge = BradleyTerryJudge(task.process.reward)
    if not isinstance(judge, AbstractJudge):
        raise SpecificationError(
            f"{name} asks about pairs of episodes: give a judge that derives from AbstractJudge, "
            f"not a {type(judge).__name__}"
        )
    problem = _told(method, task)
    updates = _whole_updates(method, problem, options.steps)
    return Fed(Stage("learn", method, FreshComparisons(task.process, judge), updates), problem)


def _episode_log(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    data = inputs.data
    if isinstance(data, Path):
        data = read_episodes(data)
    if not isinstance(data, Episodes):
        raise _wrong_data(method, "episodes of a finite process (hw.Episodes)", data)
    problem = _told(method, inputs.process or FiniteTask(_as_seen(data)))
    check_episodes(data, problem)
    assert options.updates is not None
    return Fed(Stage("learn", method, WholeLog(data), options.updates), problem)


def _comparison_log(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    data = inputs.data
    if isinstance(data, Path):
        data = read_episode_comparisons(data)
    if not isinstance(data, EpisodeComparisons):
        raise _wrong_data(method, "compared episodes of a finite process", data)
    problem = _told(method, inputs.process or FiniteTask(_as_seen(data.first, data.second)))
    for episodes in (data.first, data.second):
        check_episodes(episodes, problem)
    assert options.updates is not None
    return Fed(Stage("learn", method, LoggedComparisons(data), options.updates), problem)


def episodes_of_an_update(method: Any, problem: Any) -> int:
    """Episodes that one update eats, of each task."""

    def policies(key):
        return method.policy(method.init(problem, key=key), explore=True)

    shape = eqx.filter_eval_shape(policies, jax.random.key(0)).shape
    lead = shape[:-3] if problem.tasks is None else shape[1:-3]
    return int(np.prod(lead, dtype=int))


def _whole_updates(method: AbstractMethod, problem: Any, steps: int) -> int:
    horizon = problem.sizes[0]
    episodes = steps // (horizon * (problem.tasks or 1))
    return max(1, episodes // episodes_of_an_update(method, problem))


def _as_seen(*logs: Episodes) -> FiniteProblem:
    """What a log says of the process that it is of: as many states and actions as it shows."""
    states = 1 + max(int(np.max(np.asarray(log.state), initial=0)) for log in logs)
    actions = 1 + max(int(np.max(np.asarray(log.action), initial=0)) for log in logs)
    if not logs[0].action.ndim or not logs[0].action.shape[-1]:
        raise DataError("the log has no steps")
    return FiniteProblem(states, actions, logs[0].action.shape[-1])


def check_episodes(data: Episodes, problem: Any) -> None:
    """Raises `DataError`, naming the episode and the step, if `data` does not fit `problem`."""
    state, action, reward = (np.asarray(x) for x in (data.state, data.action, data.reward))
    horizon, states, actions = problem.sizes
    if not state.ndim == action.ndim == reward.ndim or not action.ndim:
        raise DataError(
            f"episodes have states of shape {state.shape}, actions of shape {action.shape} and "
            f"rewards of shape {reward.shape}: each needs [episode, step]"
        )
    if action.shape[-1] != horizon or state.shape[-1] != horizon + 1:
        raise DataError(
            f"episodes have {action.shape[-1]} actions and {state.shape[-1]} states, but a horizon "
            f"of {horizon} needs {horizon} and {horizon + 1}"
        )
    for name, values, count in (("state", state, states), ("action", action, actions)):
        wrong = np.argwhere((values < 0) | (values >= count))
        if len(wrong):
            *episode, step = wrong[0].tolist()
            raise DataError(
                f"{name} {values[tuple(wrong[0])]} in episode {_index(episode)}, step {step} is "
                f"not one of 0 … {count - 1}"
            )
    wrong = np.argwhere(~np.isfinite(reward))
    if len(wrong):
        *episode, step = wrong[0].tolist()
        raise DataError(f"the reward in episode {_index(episode)}, step {step} is not finite")


def _index(place: list[int]) -> str:
    return ", ".join(map(str, place)) if place else "0"


def _wrong_data(method: AbstractMethod, wanted: str, data: Any) -> SpecificationError:
    return SpecificationError(
        f"{type(method).__name__} learns from {wanted}, not from a {type(data).__name__}"
    )


# Language models ---------------------------------------------------------------------------------


def token_problem(model: LanguageModel, options: Options) -> TokenProblem:
    """What methods are told of a model: all of it, or small additions to it, is to be trained.

    Raises `SpecificationError` for additions that are larger than the model allows.
    """
    rank, width = options.rank, model.decoder.architecture.width
    if rank > width:
        raise SpecificationError(
            f"rank = {rank}: adapters of a model of width {width} have at most that rank"
        )
    network: Any = model.decoder
    if rank:
        key = jax.random.key(options.seed)
        network = Adapted(network, key=key, rank=rank, alpha=2.0 * rank)
    return TokenProblem(network, model.tokenizer.end)


class _Texts:
    """The inputs of a language model, and the pieces that its flows are put together from."""

    def __init__(self, method: AbstractMethod, inputs: Inputs, options: Options):
        self.method, self.inputs, self.options = method, inputs, options
        model = inputs.model
        assert model is not None and options.updates and options.batch_size
        self.model: LanguageModel = model
        self.rows: int = options.batch_size
        if not isinstance(inputs.data, Path):
            raise _wrong_data(method, "a file of texts", inputs.data)
        self.path: Path = inputs.data

    def fed(self, source: Any, tokens: float, held_out: HeldOut | None) -> Fed:
        assert self.options.updates is not None
        problem = token_problem(self.model, self.options)
        stage = Stage("language", self.method, source, self.options.updates)
        return Fed(stage, problem, held_out, tokens)

    def completions(self, path: Path) -> tuple[Completions, float]:
        """Texts, and tokens in one of them."""
        read = read_completions(
            path,
            self.model.tokenizer,
            self.model.decoder.context,
            too_long=self.options.too_long,
        )
        return read.data, read.tokens_per_record

    def comparisons(self, path: Path) -> tuple[CompletionComparisons, float]:
        """Pairs of texts, and tokens in one of them."""
        read = read_comparisons(
            path,
            self.model.tokenizer,
            self.model.decoder.context,
            too_long=self.options.too_long,
        )
        return read.data, read.tokens_per_record

    def prompts(self, path: Path) -> Prompts:
        """Prompts alone, that leave room for a response."""
        room = self.model.decoder.context - self.options.new_tokens
        if room < 1:
            raise SpecificationError(
                f"{self.options.new_tokens} new tokens leave no room for prompts in a context of "
                f"{self.model.decoder.context}"
            )
        read = read_prompts(path, self.model.tokenizer, room, too_long=self.options.too_long)
        return read.data

    def divided(self, read: Callable[[Path], Any]) -> tuple[Any, Any, float]:
        """What is learned from, what is held out (or `None`), and tokens in a record."""
        found = read(self.path)
        data, tokens = found if isinstance(found, tuple) else (found, 0.0)
        said = self.options.held_out
        if said is None:
            return data, None, tokens
        try:
            share = float(said)
        except ValueError:
            other = read(Path(said))
            return data, other[0] if isinstance(other, tuple) else other, tokens
        count = jax.tree.leaves(data)[0].shape[0]
        kept = round(share * count)
        if not 0.0 < share < 1.0 or not 0 < kept < count:
            raise SpecificationError(
                f"held_out = {said}: a share of {count} rows must leave at least one on both sides"
            )
        order = np.random.default_rng(self.options.seed).permutation(count)
        mine, others = np.sort(order[kept:]), np.sort(order[:kept])
        parts = (jax.tree.map(lambda x, i=i: jnp.asarray(x)[i], data) for i in (mine, others))
        return (*parts, tokens)

    def judged(self, right: Completions | None) -> AbstractCompletionReward | TextJudge:
        """The reward that was given, else the file's completions."""
        reward = self.inputs.reward
        if reward is None:
            assert right is not None
            return ExactMatch(Completions(right.tokens, right.response))
        return reward if isinstance(reward, AbstractCompletionReward) else self.asking(reward)

    def asking(self, function: Callable[..., Any]) -> TextJudge:
        """A Python function that reads what was written as text."""
        if not callable(function):
            raise SpecificationError(
                f"a reward is a function of texts, not a {type(function).__name__}"
            )
        return TextJudge(function, self.model.text, _name_of(function))

    def written(
        self, prompts: Prompts, *, samples: int | None = None, **others: Any
    ) -> SampledCompletions:
        """Responses of the policy to prompts."""
        return SampledCompletions(
            prompts,
            temperature=self.temperature,
            rows=self.rows,
            samples=samples or self.options.samples,
            new_tokens=self.options.new_tokens,
            end=self.model.tokenizer.end,
            **others,
        )

    def answerable(self, data: Completions) -> Prompts:
        """The prompts of texts, if answers fit behind them."""
        return prompts_within(data, self.model, self.path, self.options.new_tokens)

    @property
    def temperature(self) -> float:
        assert self.options.temperature is not None
        return self.options.temperature

    @property
    def written_tokens(self) -> float:
        return float(self.rows * self.options.samples * self.options.new_tokens)

    def asked(self) -> tuple[Prompts, HeldOut | None, AbstractCompletionReward | TextJudge]:
        """Prompts to answer, those held out, and the reward of answers."""
        if self.inputs.reward is None:
            right, others, _ = self.divided(self.completions)
            everything = right
            if others is not None:
                everything = _stacked(right, others)
            reward = self.judged(everything)
            prompts = self.answerable(right)
            held = None if others is None else HeldOut(self.answerable(others), reward)
            return prompts, held, reward
        prompts, others, _ = self.divided(self.prompts)
        reward = self.judged(None)
        return prompts, None if others is None else HeldOut(others, reward), reward


def _stored_texts(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    data, others, tokens = texts.divided(texts.completions)
    held = None if others is None else HeldOut(others)
    return texts.fed(CompletionReplay(data, texts.rows), texts.rows * tokens, held)


def _stored_comparisons(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    data, others, tokens = texts.divided(texts.comparisons)
    held = None if others is None else HeldOut(others)
    return texts.fed(CompletionReplay(data, texts.rows), texts.rows * tokens, held)


def _comparisons_and_written(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    data, others, tokens = texts.divided(texts.comparisons)
    written = texts.written(texts.answerable(data.chosen))
    source = ReplayAndSampled(CompletionReplay(data, texts.rows), written)
    held = None if others is None else HeldOut(others)
    return texts.fed(source, texts.rows * tokens + texts.written_tokens, held)


def _rewarded(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    prompts, held, reward = texts.asked()
    return texts.fed(_with_reward(texts.written(prompts), reward), texts.written_tokens, held)


def _from_resets(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    right, others, _ = texts.divided(texts.completions)
    reward = texts.judged(right if others is None else _stacked(right, others))
    prompts = texts.answerable(right)
    resets = Resets(
        _as_wide(right, prompts.tokens.shape[-1] + options.new_tokens),
        temperature=texts.temperature,
        rows=texts.rows,
        samples=options.samples,
        new_tokens=options.new_tokens,
        end=texts.model.tokenizer.end,
    )
    held = None if others is None else HeldOut(texts.answerable(others), reward)
    return texts.fed(_with_reward(resets, reward), texts.written_tokens, held)


def _reference_written(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, inputs, options)
    if options.samples < 2:
        raise SpecificationError(f"{type(method).__name__} compares samples: at least 2 are needed")
    prompts, others, _ = texts.divided(texts.prompts)
    reward = None if inputs.reward is None else texts.judged(None)
    if others is not None and reward is None:
        raise SpecificationError(
            f"{type(method).__name__} knows no reward to evaluate by: give one, or leave out "
            "held_out"
        )
    held = None if others is None else HeldOut(others, reward)
    source = texts.written(prompts, policy=texts.model.decoder)
    return texts.fed(source, texts.written_tokens, held)


def _judged_pairs(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    texts = _Texts(method, dataclasses.replace(inputs), dataclasses.replace(options, samples=2))
    judge = inputs.judge
    if judge is None:
        prompts, held, reward = texts.asked()
        written = texts.written(prompts)
        source: Any
        if isinstance(reward, TextJudge):
            source = HostJudgedPairs(written, reward)
        else:
            source = JudgedPairs(written, BradleyTerry(reward))
        return texts.fed(source, texts.written_tokens, held)
    prompts, others, _ = texts.divided(texts.prompts)
    if others is not None and inputs.reward is None:
        raise SpecificationError(
            "a judge gives no reward to evaluate by: give a reward too, or leave out held_out"
        )
    held = None if others is None else HeldOut(others, texts.judged(None))
    written = texts.written(prompts)
    if isinstance(judge, AbstractPreference):
        return texts.fed(JudgedPairs(written, judge), texts.written_tokens, held)
    if isinstance(judge, AbstractJudge):
        raise SpecificationError("a judge of episodes does not judge texts: give a function")
    source = HostJudgedPairs(written, texts.asking(judge), rewards=False)
    return texts.fed(source, texts.written_tokens, held)


def _with_advantages(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    """Texts with advantages over the model's own, drawn in proportion to what is positive.

    Without a reward to judge the model's own responses by, the advantage is over what the file's
    responses to such prompts earn.
    """
    texts = _Texts(method, inputs, options)
    data, others, tokens = texts.divided(texts.completions)
    reward = None if inputs.reward is None else texts.judged(None)
    if data.reward is None and reward is None:
        raise DataError(
            f"{texts.path}: {type(method).__name__} learns from rewards: give a column reward, or "
            "a reward"
        )
    if data.reward is None:
        assert reward is not None
        data = _scored(data, reward, texts.rows)
    own = data
    if reward is not None:
        own = _scored(_answers(texts, texts.answerable(data)), reward, texts.rows)
    data, weights = advantages(data, prompt_values(texts.model.decoder, own, data))
    if not jnp.any(weights > 0.0):
        raise DataError(f"{texts.path}: no response is better than expected: none can be learned")
    held = None if others is None else HeldOut(others)
    return texts.fed(CompletionReplay(data, texts.rows, weights), texts.rows * tokens, held)


def _with_reward(
    writing: SampledCompletions | Resets, reward: Any
) -> AbstractWriting | AbstractHostSource:
    if isinstance(reward, TextJudge):
        return HostRewarded(writing, reward)
    return dataclasses.replace(writing, reward=reward)


def _scored(data: Completions, reward: Any, rows: int) -> Completions:
    if isinstance(reward, TextJudge):
        found = jnp.asarray(reward.rewards(data.tokens, data.response))
    else:
        found = jax.lax.map(reward, Completions(data.tokens, data.response), batch_size=rows)
    return Completions(data.tokens, data.response, found)


def _answers(texts: _Texts, prompts: Prompts) -> Completions:
    """One response of the model to every prompt."""
    model, options = texts.model, texts.options
    key = jax.random.key(options.seed)

    @jax.jit
    def answers(prompts: Prompts) -> Completions:
        keys = jax.random.split(key, prompts.tokens.shape[0])

        def one(each):
            prompt, key = each
            data = generate(
                model.decoder,
                jax.tree.map(lambda x: x[None], prompt),
                options.new_tokens,
                key=key,
                end=model.tokenizer.end,
                temperature=texts.temperature,
            )
            return jax.tree.map(lambda x: x[0], Completions(data.tokens, data.response))

        return jax.lax.map(one, (prompts, keys), batch_size=texts.rows)

    return answers(prompts)


def _as_wide(data: Completions, width: int) -> Completions:
    room = width - data.tokens.shape[-1]
    if room <= 0:
        return jax.tree.map(lambda x: x[..., :width] if x.ndim > 1 else x, data)
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, room))) if x.ndim > 1 else x, data)


def _stacked(one: Completions, other: Completions) -> Completions:
    width = max(one.tokens.shape[-1], other.tokens.shape[-1])
    parts = [
        _as_wide(Completions(jnp.asarray(x.tokens), jnp.asarray(x.response)), width)
        for x in (one, other)
    ]
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), *parts)


def _name_of(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


# The table ---------------------------------------------------------------------------------------

_LOG = {"updates": 100_000, "batch_size": 256, "seeds": 4}
_PLAY = {"updates": 1, "batch_size": 256, "seeds": 4}
_READ = {"updates": 1_000, "batch_size": 16, "seeds": 1}
_WRITING = ("texts", "writing")

FLOWS: dict[tuple[type, Feed], Flow] = {
    (Transitions, Feed.STORED): Flow(
        "from logged experience", ("data",), ("env",), ("data",), _LOG, _offline
    ),
    (Transitions, Feed.ACTING): Flow(
        "online, from what it does and not from a log",
        ("env",),
        (),
        ("acting",),
        _LOG,
        _acting,
        True,
    ),
    (Transition, Feed.STREAM): Flow(
        "from each step once, as it happens",
        ("env",), (), ("acting",), {**_LOG, "random_steps": 0, "block": 1}, _streaming, True,
    ),
    (Transitions, Feed.BOTH): Flow(
        "online and from a log", ("data", "env"), (), ("data", "acting"), _LOG, _acting, True
    ),
    (Episodes, Feed.STORED): Flow(
        "from logged episodes of a finite process",
        ("data",), ("process",), ("finite",), _PLAY, _episode_log,
    ),
    (Episodes, Feed.ACTING): Flow(
        "from its own episodes in a finite process",
        ("process",), (), ("finite", "acting"), _PLAY, _playing, True,
    ),
    (EpisodeComparisons, Feed.STORED): Flow(
        "from logged comparisons of episodes in a finite process",
        ("data",), ("process",), ("finite",), _PLAY, _comparison_log,
    ),
    (EpisodeComparisons, Feed.JUDGED): Flow(
        "from its own episodes in a finite process, in pairs that a judge compares",
        ("process",), ("judge",), ("finite", "acting"), _PLAY, _comparing, True,
    ),
    (Completions, Feed.STORED): Flow(
        "a language model from texts", ("model", "data"), (), ("texts",), _READ, _stored_texts
    ),
    (Completions, Feed.ADVANTAGES): Flow(
        "a language model from texts and their rewards",
        ("model", "data"), ("reward",), _WRITING, _READ, _with_advantages,
    ),
    (CompletionComparisons, Feed.STORED): Flow(
        "a language model from compared texts",
        ("model", "data"), (), ("texts",), _READ, _stored_comparisons,
    ),
    (ComparisonsAndCompletions, Feed.BOTH): Flow(
        "a language model from compared texts and what it writes",
        ("model", "data"), (), _WRITING, _READ, _comparisons_and_written,
    ),
    (Completions, Feed.SAMPLED): Flow(
        "a language model from rewards of what it writes",
        ("model", "data"), ("reward",), _WRITING, _READ, _rewarded,
    ),
    (Completions, Feed.RESETS): Flow(
        "a language model from rewards of how it goes on with stored texts",
        ("model", "data"), ("reward",), _WRITING, _READ, _from_resets,
    ),
    (Completions, Feed.REFERENCE): Flow(
        "a language model from what it wrote before training",
        ("model", "data"), ("reward",), _WRITING, _READ, _reference_written,
    ),
    (CompletionComparisons, Feed.JUDGED): Flow(
        "a language model from pairs that it writes and a judge compares",
        ("model", "data"), ("reward", "judge"), _WRITING, _READ, _judged_pairs,
    ),
}  # fmt: skip
"""Every flow of data: what methods declare, and how that is brought to them."""
