"""What each kind of data looks like: a tiny problem and random batches. One row per kind."""

import dataclasses
import typing
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.hypotheses import FiniteHypotheses, ValueClass
from headwater.core.method import AbstractMethod
from headwater.core.problems.arms import Arms
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import (
    ActionWindows,
    ComparisonsAndCompletions,
    ComparisonsAndSegments,
    CompletionComparisons,
    Completions,
    EpisodeComparisons,
    Episodes,
    LabelledCompletions,
    LoggedPairs,
    MeasuredQueries,
    Pulls,
    Queries,
    SegmentComparisons,
    Segments,
    Transition,
    Transitions,
)
from headwater.core.spaces import Box, Discrete, Spaces, Statistics
from headwater.core.tokens import TokenProblem, position_mask
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.token_table import PrefixTable
from headwater.ops.linear.preference import trajectory_features

ROWS = 16
TERMINAL = slice(0, 4)
"""Rows of a batch that are terminal."""
TRUNCATED = slice(4, 7)
"""Rows of a batch that are truncated; the rest is neither."""
_OBSERVATION, _ACTION, _CHOICES = 3, 2, 4


class Kind(NamedTuple):
    """One kind of data.

    `problem` is what `init` gets; `batch(key)` makes data for one update; `flat` says that its rows
    come in no order, so that checks may edit and permute them one by one. A `last_resort` is
    for methods that take no kind before it; a kind that is about a `field` for those that have it.
    """

    name: str
    problem: Any
    batch: Callable[[Any], Any]
    flat: bool
    hard: dict[str, Callable[[Any], Any]]
    last_resort: bool = False
    field: str | None = None


def kinds_for(cls: type[AbstractMethod]) -> list[Kind]:
    """The kinds that `cls` declares in `AbstractMethod[Problem, Data, State]` and takes."""
    taken: list[Kind] = []
    fields = {field.name for field in dataclasses.fields(cls)}
    for kind in _declared(cls):
        if kind.field is not None and kind.field not in fields:
            continue
        if not (kind.last_resort and taken) and refusal(cls, kind) is None:
            taken.append(kind)
    return taken


def refusal(cls: type[AbstractMethod], kind: Kind) -> str | None:
    """Why the method refuses this problem, in its own words; `None` if it does not."""
    try:
        method = cls()  # pyright: ignore[reportCallIssue]
        eqx.filter_eval_shape(method.init, kind.problem, key=jax.random.key(0))
    except SpecificationError as error:
        return str(error)
    except Exception:
        # Whatever else is wrong belongs to the checks, which show it.
        return None
    return None


def without_statistics(problem: Spaces) -> Spaces:
    """The same problem when nothing was logged."""
    return Spaces(problem.observation, problem.action, problem.horizon)


def _declared(cls: type[AbstractMethod]) -> list[Kind]:
    for base in cls.__orig_bases__:  # pyright: ignore[reportAttributeAccessIssue]
        if typing.get_origin(base) is AbstractMethod:
            problem, data, _ = typing.get_args(base)
            if (problem, data) not in _KINDS:
                raise LookupError(
                    f"{cls.__name__} learns from {data.__name__} of {problem.__name__}, "
                    "which has no row in headwater.testing.kinds yet"
                )
            return list(_KINDS[problem, data])
    raise LookupError(f"{cls.__name__} does not derive from AbstractMethod[Problem, Data, State]")


def _spaces(action: Box | Discrete) -> Spaces:
    statistics = Statistics(
        observation_mean=jnp.asarray([0.1, -0.2, 0.3]),
        observation_std=jnp.asarray([1.0, 0.5, 2.0]),
        return_low=jnp.asarray(-3.0),
        return_high=jnp.asarray(4.0),
        reward_mean=jnp.asarray(0.2),
        reward_std=jnp.asarray(1.5),
        terminal_share=jnp.asarray(0.1),
        return_to_go_mean=jnp.asarray(0.5),
    )
    box = Box((-10.0,) * _OBSERVATION, (10.0,) * _OBSERVATION)
    return Spaces(box, action, horizon=20, statistics=statistics)


def _transitions(key, shape: tuple[int, ...], discrete: bool) -> Transitions:
    keys = jax.random.split(key, 6)
    pairs_key, pair_action_key = jax.random.split(keys[0])

    def action(key):
        if discrete:
            return jax.random.randint(key, shape, 0, _CHOICES, jnp.int32)
        return jax.random.uniform(key, (*shape, _ACTION), minval=-0.9, maxval=0.9)

    row = jnp.broadcast_to(jnp.arange(shape[0]).reshape(-1, *(1 for _ in shape[1:])), shape)
    return Transitions(
        observation=jax.random.normal(keys[0], (*shape, _OBSERVATION)),
        action=action(keys[1]),
        reward=jax.random.normal(keys[2], shape),
        next_observation=jax.random.normal(keys[3], (*shape, _OBSERVATION)),
        terminal=row < TERMINAL.stop,
        truncated=(row >= TRUNCATED.start) & (row < TRUNCATED.stop),
        next_action=action(keys[4]),
        return_to_go=jax.random.normal(keys[5], shape),
        whole_log=LoggedPairs(
            jax.random.normal(pairs_key, (*shape, _OBSERVATION)), action(pair_action_key)
        ),
    )


def _action_windows(key, discrete: bool) -> ActionWindows:
    window_key, action_key = jax.random.split(key)
    rows = _transitions(action_key, (ROWS,), discrete)
    # Of three positions: one before, the one of the action, and one after.
    return ActionWindows(jax.random.normal(window_key, (ROWS, 3, _OBSERVATION)), rows.action)


_HARD_WINDOWS = {
    "one action": lambda d: replace(d, action=jnp.zeros_like(d.action)),
    "nothing changes": lambda d: replace(d, observations=jnp.zeros_like(d.observations)),
    "repeated rows": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), d),
    "actions at the edge": lambda d: replace(d, action=_edge(d.action)),
}


def _segments(key, discrete: bool) -> Segments:
    """Segments of five steps."""
    rows = _transitions(key, (5 * ROWS,), discrete)
    return Segments(*(x.reshape(ROWS, 5, *x.shape[1:]) for x in (rows.observation, rows.action)))


def _compared_segments(key, discrete: bool) -> SegmentComparisons:
    """Pairs of which a judge of the first component prefers one, or calls them equal."""
    first, second = (_segments(each, discrete) for each in jax.random.split(key))
    scores = [jnp.sum(found.observation[..., 0], axis=1) for found in (first, second)]
    preference = jnp.where(scores[0] > scores[1], 1.0, 0.0)
    return SegmentComparisons(first, second, preference.at[-2:].set(0.5))


def _compared_and_logged_segments(key, discrete: bool) -> ComparisonsAndSegments:
    pair_key, logged_key = jax.random.split(key)
    return ComparisonsAndSegments(
        _compared_segments(pair_key, discrete), _segments(logged_key, discrete)
    )


_HARD_SEGMENTS = {
    "the same twice": lambda d: replace(d, second=d.first),
    "all equal": lambda d: replace(d, preference=jnp.full_like(d.preference, 0.5)),
    "always the first": lambda d: replace(d, preference=jnp.ones_like(d.preference)),
    "repeated rows": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), d),
    "actions at the edge": lambda d: replace(
        d, first=replace(d.first, action=_edge(d.first.action))
    ),
}


def _one_step(key, discrete: bool) -> Transition:
    """A step of a stream, which once in four times ends an episode in one of the two ways."""
    step_key, end_key = jax.random.split(key)
    row = jax.tree.map(lambda x: x[0], _transitions(step_key, (1,), discrete))
    end = jax.random.randint(end_key, (), 0, 8)
    return Transition(
        row.observation, row.action, row.reward, row.next_observation, end == 0, end == 1
    )


def _edge(action):
    if jnp.issubdtype(action.dtype, jnp.integer):
        return action
    return jnp.where(action < 0.0, -1.0, 1.0)


_HARD_TRANSITIONS = {
    "all terminal": lambda d: replace(d, terminal=jnp.ones_like(d.terminal)),
    "no rewards": lambda d: replace(
        d, reward=jnp.zeros_like(d.reward), return_to_go=jnp.zeros_like(d.reward)
    ),
    "one action": lambda d: replace(
        d, action=jnp.zeros_like(d.action), next_action=jnp.zeros_like(d.action)
    ),
    "repeated rows": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), d),
    "actions at the edge": lambda d: replace(
        d, action=_edge(d.action), next_action=_edge(d.next_action)
    ),
    "large rewards": lambda d: replace(d, reward=1e6 * d.reward, return_to_go=1e6 * d.return_to_go),
}


_HARD_STEPS = {
    "all terminal": lambda d: replace(d, terminal=jnp.ones_like(d.terminal)),
    "no rewards": lambda d: replace(d, reward=jnp.zeros_like(d.reward)),
    "one observation": lambda d: jax.tree.map(jnp.zeros_like, d),
    "actions at the edge": lambda d: replace(d, action=_edge(d.action)),
    "large rewards": lambda d: replace(d, reward=1e6 * d.reward),
}


def _episodes(key, shape: tuple[int, ...]) -> Episodes:
    state_key, action_key, reward_key, cost_key = jax.random.split(key, 4)
    reward = jax.random.uniform(reward_key, (*shape, _STEPS))
    return Episodes(
        state=jax.random.randint(state_key, (*shape, _STEPS + 1), 0, _STATES, jnp.int32),
        action=jax.random.randint(action_key, (*shape, _STEPS), 0, _CHOICES, jnp.int32),
        reward=reward.at[..., 0].set(1.0),
        cost=jax.random.uniform(cost_key, (*shape, _STEPS, 2)),
    )


_STATES, _STEPS, _TASKS = 5, 3, 2
_HARD_EPISODES = {
    "no rewards": lambda d: replace(d, reward=jnp.zeros_like(d.reward)),
    "one action": lambda d: replace(d, action=jnp.zeros_like(d.action)),
    "one state": lambda d: replace(d, state=jnp.zeros_like(d.state)),
}


def _one_task(key) -> Episodes:
    return _episodes(key, (ROWS,))


def _several_tasks(key) -> Episodes:
    return _episodes(key, (_TASKS, ROWS))


def _finite(tasks: int | None = None) -> FiniteProblem:
    lead = () if tasks is None else (tasks,)
    keys = jax.random.split(jax.random.key(5))
    return FiniteProblem(
        _STATES,
        _CHOICES,
        _STEPS,
        initial=jax.random.dirichlet(keys[0], jnp.ones(_STATES), lead),
        reward=jax.random.uniform(keys[1], (*lead, _STEPS, _STATES, _CHOICES)),
        tasks=tasks,
        budgets=jnp.asarray([0.5, 1.0]),
    )


def _processes(key) -> FiniteProcess:
    """Tasks of which a method sees everything, whose rewards are one or nothing."""
    keys = jax.random.split(key, 3)
    sizes = (_TASKS, _STEPS, _STATES, _CHOICES)
    return FiniteProcess(
        jax.random.dirichlet(keys[0], jnp.ones(_STATES), sizes),
        jax.random.uniform(keys[1], sizes),
        jax.random.dirichlet(keys[2], jnp.ones(_STATES), (_TASKS,)),
        noisy=True,
    )


_HARD_PROCESSES = {
    "no rewards": lambda d: replace(d, reward=jnp.zeros_like(d.reward)),
    "one state": lambda d: replace(
        d,
        transition=jnp.zeros_like(d.transition).at[..., 0].set(1.0),
        initial=jnp.zeros_like(d.initial).at[..., 0].set(1.0),
    ),
    "the same task": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), d),
}


def _comparisons(key) -> EpisodeComparisons:
    first, second = (replace(_episodes(each, (ROWS,)), cost=None) for each in jax.random.split(key))
    # A judge with a taste: where answers mean nothing, careful methods have nothing to decide by.
    features = _with_features().features
    assert features is not None
    scores = [trajectory_features(episodes, features)[:, 0] for episodes in (first, second)]
    return EpisodeComparisons(first, second, scores[0] > scores[1])


def _both(change):
    return lambda d: replace(d, first=change(d.first), second=change(d.second))


_HARD_COMPARISONS = {
    **{name: _both(change) for name, change in _HARD_EPISODES.items()},
    "pairs of the same": lambda d: replace(d, second=d.first),
    "always the first": lambda d: replace(d, first_preferred=jnp.ones_like(d.first_preferred)),
}


def _with_features() -> FiniteProblem:
    features = jax.random.normal(jax.random.key(6), (_STEPS, _STATES, _CHOICES, 3))
    return replace(_finite(), reward=None, features=features)


def _value_class() -> ValueClass:
    keys = jax.random.split(jax.random.key(6))
    shape = (_STEPS, _STATES, _CHOICES)
    return ValueClass(
        replace(_finite(), reward=None),
        jax.random.uniform(keys[0], (7, *shape)),
        jax.random.uniform(keys[1], (9, *shape)),
    )


def _hypotheses() -> FiniteHypotheses:
    reward_key, model_key = jax.random.split(jax.random.key(7))
    sizes = (_STEPS, _STATES, _CHOICES)
    return FiniteHypotheses(
        replace(_finite(), reward=None),
        jax.random.normal(reward_key, (6, *sizes)),
        jax.random.dirichlet(model_key, jnp.ones(_STATES), (2, *sizes)),
    )


_CONTINUOUS = _spaces(Box((-2.0, 0.0), (2.0, 1.0)))
_DISCRETE = _spaces(Discrete(_CHOICES))

_TOKENS, _CONTEXT, _END = 4, 4, 3


def _token_problem() -> TokenProblem:
    network = PrefixTable(_TOKENS, _CONTEXT, key=jax.random.key(7))
    return TokenProblem(network, end=_END)


def _decoder_problem(**experts: Any) -> TokenProblem:
    architecture = Architecture(_TOKENS, _CONTEXT, width=4, layers=4, heads=1, hidden=8, **experts)
    return TokenProblem(Decoder(architecture, key=jax.random.key(7)), end=_END)


def _completions(key, shape: tuple[int, ...], prompt_tokens=None) -> Completions:
    """Responses of one to three tokens to prompts of one token."""
    token_key, length_key, reward_key, chance_key, part_key = jax.random.split(key, 5)
    tokens = jax.random.randint(token_key, (*shape, _CONTEXT), 0, _TOKENS, jnp.int32)
    if prompt_tokens is not None:
        tokens = tokens.at[..., 0].set(prompt_tokens)
    length = jax.random.randint(length_key, shape, 1, _CONTEXT, jnp.int32)
    response = position_mask(jnp.ones_like(length), 1 + length, _CONTEXT)
    chance = -jax.random.exponential(chance_key, (*shape, _CONTEXT))
    parts = jax.random.normal(part_key, (*shape, _CONTEXT))
    return Completions(
        tokens,
        response,
        jax.random.normal(reward_key, shape),
        jnp.where(response, chance, 0.0),
        token_reward=jnp.where(response, parts, 0.0),
    )


def _answers(key) -> Completions:
    """Four responses to each of four prompts."""
    prompts = jnp.broadcast_to(jnp.arange(4, dtype=jnp.int32)[:, None], (4, 4))
    return _completions(key, (4, 4), prompts)


def _compared_completions(key) -> CompletionComparisons:
    first, second = jax.random.split(key)
    chosen = _completions(first, (ROWS,))
    rejected = _completions(second, (ROWS,), chosen.tokens[..., 0])
    return CompletionComparisons(chosen, rejected, jnp.arange(ROWS) % 2 == 0)


def _labelled_completions(key) -> LabelledCompletions:
    return LabelledCompletions(_completions(key, (ROWS,)), jnp.arange(ROWS) % 3 > 0)


def _compared_and_own(key) -> ComparisonsAndCompletions:
    first, second = jax.random.split(key)
    return ComparisonsAndCompletions(_compared_completions(first), _answers(second))


_HARD_LABELS = {
    "repeated rows": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), d),
    "all desirable": lambda d: replace(d, desirable=jnp.ones_like(d.desirable)),
    "all undesirable": lambda d: replace(d, desirable=jnp.zeros_like(d.desirable)),
}


_HARD_COMPLETIONS = {
    "no rewards": lambda d: replace(
        d, reward=jnp.zeros_like(d.reward), token_reward=jnp.zeros_like(d.token_reward)
    ),
    "large rewards": lambda d: replace(d, reward=1e6 * d.reward, token_reward=1e6 * d.token_reward),
    "repeated rows": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[:1, :1], x.shape), d),
    "empty responses": lambda d: replace(
        d,
        response=jnp.zeros_like(d.response),
        log_probability=jnp.zeros_like(d.log_probability),
        token_reward=jnp.zeros_like(d.token_reward),
    ),
}

_ARMS = 4


def _pulls(key, problem: Arms) -> Pulls:
    keys = jax.random.split(key, 5)
    rewards = jax.random.uniform(keys[0], (ROWS, problem.arms))
    arm = jax.random.randint(keys[1], (ROWS,), 0, problem.arms, jnp.int32)
    return Pulls(
        jax.random.normal(keys[2], (ROWS, problem.context_size)),
        jax.random.normal(keys[3], (ROWS, problem.arms, problem.feature_size)),
        arm,
        jnp.take_along_axis(rewards, arm[:, None], 1)[:, 0],
        jax.random.uniform(keys[4], (ROWS,), minval=0.1),
        rewards,
    )


_HARD_PULLS = {
    "no rewards": lambda d: replace(
        d, reward=jnp.zeros_like(d.reward), rewards=jnp.zeros_like(d.rewards)
    ),
    "rarely pulled": lambda d: replace(d, propensity=jnp.full_like(d.propensity, 1e-6)),
    "large contexts": lambda d: replace(d, context=1e3 * d.context, features=1e3 * d.features),
    "repeated rows": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), d),
}

_AT_ONCE = 4


def _queries(key, problem: SearchSpace) -> Queries:
    """Evaluations of a hill, with noise."""
    point_key, candidate_key, noise_key, fidelity_key = jax.random.split(key, 4)
    point = jax.random.uniform(point_key, (_AT_ONCE, problem.size))
    candidates = problem.unit_candidates
    if candidates is not None:
        point = candidates[jax.random.randint(candidate_key, (_AT_ONCE,), 0, len(candidates))]
    point = jnp.asarray(problem.rounded(point))
    noise = 0.1 * jax.random.normal(noise_key, (_AT_ONCE,))
    fidelity = jax.random.randint(fidelity_key, (_AT_ONCE,), 0, problem.fidelities, jnp.int32)
    cost = jnp.asarray(problem.costs, jnp.float32)[fidelity]
    return Queries(point, noise - jnp.sum((point - 0.3) ** 2, axis=1), fidelity, cost)


_HARD_QUERIES = {
    "all alike": lambda d: replace(d, value=jnp.zeros_like(d.value)),
    "large values": lambda d: replace(d, value=1e6 * d.value),
    "repeated rows": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), d),
    "one point": lambda d: replace(d, point=jnp.zeros_like(d.point)),
}

_ARCHIVED = MeasuredSpace(
    SearchSpace((-5.0, 1.0), (10.0, 15.0), capacity=80), (-1.0, 0.0), (1.0, 2.0), 6
)


def _measured_queries(key, problem: MeasuredSpace) -> MeasuredQueries:
    """Solutions whose measures follow from them, one of which failed, and frames of these."""
    point_key, noise_key, frame_key = jax.random.split(key, 3)
    point = jax.random.uniform(point_key, (ROWS, problem.size))
    value = 0.1 * jax.random.normal(noise_key, (ROWS,)) + jnp.sum(point, axis=1)
    measures = jnp.stack([2.0 * point[:, 0] - 1.0, 2.0 * point[:, 1] ** 2], axis=1)
    mixing = jax.random.normal(jax.random.key(0), (2, problem.frame_size))
    frame = jax.nn.sigmoid(measures @ mixing)
    frame = frame + 0.01 * jax.random.normal(frame_key, frame.shape)
    return MeasuredQueries(point, value.at[0].set(jnp.nan), measures, frame)


_HARD_MEASURED_QUERIES = {
    "all alike": lambda d: replace(d, value=jnp.zeros_like(d.value)),
    "all failed": lambda d: replace(d, value=jnp.full_like(d.value, jnp.nan)),
    "large values": lambda d: replace(d, value=1e6 * d.value),
    "repeated rows": lambda d: jax.tree.map(lambda x: jnp.broadcast_to(x[1:2], x.shape), d),
    "beyond the bounds": lambda d: replace(d, measures=100.0 * d.measures),
    "dark frames": lambda d: replace(d, frame=jnp.zeros_like(d.frame)),
}

_KINDS: dict[tuple[type, type], tuple[Kind, ...]] = {
    (Spaces, Transitions): (
        Kind(
            "continuous",
            _CONTINUOUS,
            lambda key: _transitions(key, (ROWS,), False),
            True,
            _HARD_TRANSITIONS,
        ),
        Kind(
            "discrete",
            _DISCRETE,
            lambda key: _transitions(key, (ROWS,), True),
            True,
            _HARD_TRANSITIONS,
        ),
    ),
    (Spaces, ActionWindows): tuple(
        Kind(
            f"windows of {name}",
            problem,
            lambda key, discrete=problem.discrete: _action_windows(key, discrete),
            True,
            _HARD_WINDOWS,
        )
        for name, problem in (("continuous", _CONTINUOUS), ("discrete", _DISCRETE))
    ),
    (Spaces, SegmentComparisons): tuple(
        Kind(
            f"compared segments of {name}",
            problem,
            lambda key, discrete=problem.discrete: _compared_segments(key, discrete),
            True,
            _HARD_SEGMENTS,
        )
        for name, problem in (("continuous", _CONTINUOUS), ("discrete", _DISCRETE))
    ),
    (Spaces, ComparisonsAndSegments): tuple(
        Kind(
            f"compared and logged segments of {name}",
            problem,
            lambda key, discrete=problem.discrete: _compared_and_logged_segments(key, discrete),
            True,
            {
                name: lambda d, change=change: replace(d, comparisons=change(d.comparisons))
                for name, change in _HARD_SEGMENTS.items()
            },
        )
        for name, problem in (("continuous", _CONTINUOUS), ("discrete", _DISCRETE))
    ),
    (Spaces, Transition): tuple(
        Kind(
            f"a stream of {name}",
            problem,
            lambda key, discrete=problem.discrete: _one_step(key, discrete),
            False,
            _HARD_STEPS,
        )
        for name, problem in (("continuous", _CONTINUOUS), ("discrete", _DISCRETE))
    ),
    (Arms, Pulls): tuple(
        Kind(name, problem, lambda key, p=problem: _pulls(key, p), True, _HARD_PULLS)
        for name, problem in (
            ("pulls with contexts", Arms(_ARMS, 3)),
            ("pulls with contexts and features", Arms(_ARMS, 3, 2)),
            ("pulls without contexts", Arms(_ARMS)),
        )
    ),
    (SearchSpace, Queries): tuple(
        Kind(
            name,
            problem,
            lambda key, p=problem: _queries(key, p),
            False,
            _HARD_QUERIES,
            last_resort=bool(problem.whole),
        )
        for name, problem in (
            ("queries in a box", SearchSpace((-5.0, 1.0), (10.0, 15.0), capacity=20)),
            (
                "queries of candidates",
                SearchSpace.of_candidates(
                    [[0.1 * i, (0.7 * i) % 1.0] for i in range(9)], capacity=20
                ),
            ),
            (
                "queries of whole numbers",
                SearchSpace((0.0,) * 3, (3.0,) * 3, whole=(True,) * 3, capacity=20),
            ),
            (
                "queries at two fidelities",
                SearchSpace((-5.0, 1.0), (10.0, 15.0), costs=(0.1, 1.0), capacity=20),
            ),
        )
    ),
    (MeasuredSpace, MeasuredQueries): (
        Kind(
            "measured queries",
            _ARCHIVED,
            lambda key: _measured_queries(key, _ARCHIVED),
            False,
            _HARD_MEASURED_QUERIES,
        ),
    ),
    (ValueClass, Episodes): (
        # One episode for each step of the horizon, in this order.
        Kind(
            "value class",
            _value_class(),
            lambda key: _episodes(key, (_STEPS,)),
            False,
            _HARD_EPISODES,
        ),
    ),
    (FiniteProblem, Episodes): (
        # Methods refuse what they do not take.
        Kind("finite", replace(_finite(), reward=None), _one_task, True, _HARD_EPISODES),
        Kind("finite with known rewards", _finite(), _one_task, True, _HARD_EPISODES, True),
        Kind("finite tasks", _finite(_TASKS), _several_tasks, False, _HARD_EPISODES, True),
    ),
    (FiniteProblem, FiniteProcess): (
        Kind("whole tasks", _finite(_TASKS), _processes, False, _HARD_PROCESSES),
    ),
    (FiniteProblem, EpisodeComparisons): (
        Kind("compared", _with_features(), _comparisons, True, _HARD_COMPARISONS),
        Kind(
            "compared without features",
            replace(_finite(), reward=None),
            _comparisons,
            True,
            _HARD_COMPARISONS,
            True,
        ),
    ),
    (FiniteHypotheses, EpisodeComparisons): (
        Kind("compared, few hypotheses", _hypotheses(), _comparisons, True, _HARD_COMPARISONS),
    ),
    (TokenProblem, Completions): (
        Kind("answers", _token_problem(), _answers, False, _HARD_COMPLETIONS),
        Kind("answers of a decoder", _decoder_problem(), _answers, False, _HARD_COMPLETIONS, True),
        # Copies, as are made of a decoder without experts, hardly differ within a few updates.
        Kind(
            "answers of a decoder with experts",
            _decoder_problem(experts=3, active_experts=1),
            _answers,
            False,
            _HARD_COMPLETIONS,
            field="num_experts",
        ),
    ),
    (TokenProblem, ComparisonsAndCompletions): (
        Kind(
            "compared and own answers",
            _token_problem(),
            _compared_and_own,
            False,
            {
                "the same twice": lambda d: eqx.tree_at(
                    lambda x: x.comparisons.rejected, d, d.comparisons.chosen
                ),
                **{
                    name: lambda d, change=change: replace(d, completions=change(d.completions))
                    for name, change in _HARD_COMPLETIONS.items()
                },
            },
        ),
    ),
    (TokenProblem, LabelledCompletions): (
        Kind(
            "labelled answers",
            _token_problem(),
            _labelled_completions,
            # Which response follows which prompt is part of the update.
            False,
            _HARD_LABELS,
        ),
        Kind(
            "labelled answers of a decoder",
            _decoder_problem(),
            _labelled_completions,
            False,
            _HARD_LABELS,
            True,
        ),
    ),
    (TokenProblem, CompletionComparisons): (
        Kind(
            "compared answers",
            _token_problem(),
            _compared_completions,
            True,
            {
                "repeated rows": lambda d: jax.tree.map(
                    lambda x: jnp.broadcast_to(x[:1], x.shape), d
                ),
                "the same twice": lambda d: replace(d, rejected=d.chosen),
            },
        ),
    ),
}
