"""A run: what was learned and what was seen of it, in memory or in a directory."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from headwater.api.specifications.plan import UPSTREAM, begin_of, open_problem
from headwater.api.specifications.specification import Specification, is_finished
from headwater.core.errors import RunError, SpecificationError
from headwater.core.finite import AbstractPartialView
from headwater.core.hypotheses import FiniteTask
from headwater.core.method import (
    AbstractArchiving,
    AbstractArmPolicy,
    AbstractCertificate,
    AbstractContinual,
    AbstractMethod,
    AbstractModelBased,
    AbstractPolicy,
    AbstractTablePolicy,
    AbstractTokenPolicy,
    AbstractValue,
)
from headwater.core.problems.arms import Arms
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.core.spaces import Box, Spaces
from headwater.core.tokens import AbstractTokenNetwork
from headwater.datasets.dataset import Dataset
from headwater.datasets.references import References
from headwater.evaluation.exact import cumulative
from headwater.evaluation.statistics import Interval, interval, seed_means
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.decoders.structured import StructuredDecoder
from headwater.networks.low_rank_adapters import Adapted
from headwater.runs import checkpoint
from headwater.runs.checkpoint import Position
from headwater.runs.directory import RunDirectory
from headwater.runs.evaluations import final_returns, returns_by_update
from headwater.runs.feeds.finite import episodes_of_an_update
from headwater.runs.recipes.online import before_acting
from headwater.runs.stage import Outcome, Outcomes
from headwater.texts.models import LanguageModel

if TYPE_CHECKING:
    import pyarrow as pa

UPSTREAM_DIRECTORY = "upstream"
"""Where a run's directory holds the run that it adapts."""
MODEL_DIRECTORY = "model"
"""Where it holds what a language model became, of the first seed."""
ADAPTERS_DIRECTORY = "adapters"
"""Where it holds the adapters of that seed, if it learned such, as PEFT reads them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One method trained with several seeds.

    **Arguments:** `specification`: what was asked for; `method`; `state`: of all seeds, every array
    with a leading `seed` axis; `problem`: what the method began with; `metrics`, `evaluations`:
    rows as in the run's files; `path`: the run's directory, `None` if it is in memory only;
    `finished`: whether it is complete; `upstream`: the run that it adapts, if any; `process`: the
    finite process that it is of; `base`: the language model that it began with;
    `tokens_per_update`: of texts, about, and `log`: the transitions learned from, if it was just
    trained.
    """

    specification: Specification
    method: AbstractMethod
    state: Any
    problem: Any
    metrics: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    path: Path | None = None
    finished: bool = True
    upstream: "Run | None" = None
    process: FiniteTask | None = None
    base: LanguageModel | None = None
    tokens_per_update: float | None = None
    log: Dataset | None = None

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        return f"Run({self.name}, {self.seeds} seeds, {where})"

    @property
    def name(self) -> str:
        """A short name: the directory's, or the method's."""
        return type(self.method).__name__ if self.path is None else self.path.name

    @property
    def lineage(self) -> "list[Run]":
        """This run, the one that it adapts, what that one adapts, and so on."""
        return [self, *([] if self.upstream is None else self.upstream.lineage)]

    @property
    def seeds(self) -> int:
        """How many seeds were trained."""
        return len(self.specification.seeds)

    @property
    def spaces(self) -> Spaces:
        """Of a control problem. Raises `SpecificationError` if it is a run of something else."""
        if not isinstance(self.problem, Spaces):
            raise SpecificationError(
                f"{self.name} is a run of {type(self.method).__name__}, which does not act on "
                "observations"
            )
        return self.problem

    def for_task(self, task: int) -> "Run":
        """This run with the policy that acts in one of the tasks that were learned, from 0.

        Raises `SpecificationError` if it learned one task only, or there is no such task.
        """
        tasks = 1 + len(self.specification.later)
        if not isinstance(self.method, AbstractContinual):
            raise SpecificationError(
                f"{self.name} is a run of {type(self.method).__name__}, which learns one task: "
                "leave out the task"
            )
        if not 0 <= task < tasks:
            raise SpecificationError(
                f"task = {task}: {self.name} learned {tasks} task{'s' * (tasks != 1)}, which are "
                "counted from 0"
            )
        method = self.method
        state = jax.vmap(lambda state: method.for_task(state, jnp.asarray(task)))(self.state)
        return dataclasses.replace(self, state=state)

    @property
    def policy(self) -> Any:
        """The policy of the first seed. Which one that is does not depend on how well it does."""
        return self.policies[0]

    @property
    def policies(self) -> list[Any]:
        """The policy of every seed: a `Policy`, of a bandit an `ArmPolicy`, or for a finite process
        the probabilities of actions, `[step, state, action]`.

        Raises `SpecificationError` if the method is not a policy.
        """
        if isinstance(self.method, AbstractTablePolicy):
            method = self.method
            tables = jax.vmap(lambda state: method.policy(state, explore=False))(self.state)
            return list(np.asarray(tables))
        if isinstance(self.method, AbstractArmPolicy) and isinstance(self.problem, Arms):
            # It knows of logs and their sources, which no other run has to wait for.
            from headwater.api.policies.arm_policy import ArmPolicy

            states = enumerate(_one_of(self.state, i) for i in range(self.seeds))
            seeds = self.specification.seeds
            return [ArmPolicy(self.method, self.problem, s, seed=seeds[i]) for i, s in states]
        if not isinstance(self.method, AbstractPolicy):
            raise SpecificationError(f"{type(self.method).__name__} is not a policy: it cannot act")
        return [Policy(self.method, _one_of(self.state, i), self.spaces) for i in range(self.seeds)]

    @property
    def models(self) -> list[LanguageModel]:
        """The language model of every seed. Raises `SpecificationError` if the method writes none.

        Adapters are merged into the weights.
        """
        found = []
        for network in self.networks:
            network = network.merged() if isinstance(network, Adapted) else network
            structure = None
            if isinstance(network, StructuredDecoder):
                network, structure = network.decoder, network.structure
            assert isinstance(network, Decoder) and self.base is not None
            found.append(dataclasses.replace(self.base, decoder=network, structure=structure))
        return found

    @property
    def networks(self) -> list[AbstractTokenNetwork]:
        """What writes, of every seed, with its adapters. Raises as `models` does."""
        if not isinstance(self.method, AbstractTokenPolicy) or self.base is None:
            raise SpecificationError(f"{type(self.method).__name__} learns no model that writes")
        method = self.method
        return [method.network(_one_of(self.state, seed)) for seed in range(self.seeds)]

    @property
    def archives(self) -> "list[pa.Table]":
        """The archive of every seed as a table: solutions, their objective and their measures.

        Raises `SpecificationError` if the method keeps none.
        """
        # Arrow is loaded where it is needed: no run has to wait for it.
        from headwater.api.campaigns.archive_table import archive_table

        method, problem = self.method, self.problem
        if not isinstance(method, AbstractArchiving) or not isinstance(problem, MeasuredSpace):
            raise SpecificationError(f"{type(method).__name__} keeps no archive of solutions")
        states = (_one_of(self.state, seed) for seed in range(self.seeds))
        return [archive_table(method.archive(state), problem) for state in states]

    @property
    def bounds(self) -> np.ndarray | None:
        """How much the policy of each seed falls short of the best at most, as certified.

        In the units of the rewards. `None` where the method certifies nothing, where it is not
        known where episodes start, and where states are not all that decides what follows.
        """
        method, task = self.method, self.process
        hidden = task is not None and isinstance(task.process, AbstractPartialView)
        if not isinstance(method, AbstractCertificate) or hidden:
            return None
        try:
            return np.asarray(jax.vmap(method.suboptimality_bound)(self.state), np.float64)
        except SpecificationError:
            # Something that a bound needs was not told.
            return None

    @property
    def regret(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Episodes, or rounds, `[row]` and the regret summed so far `[seed, row]`, where known."""
        if not self.metrics or "regret" not in self.metrics[0]["metrics"]:
            return None
        updates, regret = cumulative(self.metrics)
        if isinstance(self.problem, Arms | SearchSpace):
            each = self.specification.options.batch_size or 1
        else:
            each = episodes_of_an_update(self.method, self.problem)
        return updates * each, regret * each

    @property
    def final_returns(self) -> np.ndarray | None:
        """Returns of what it left, `[seed, episode]`; `None` if nothing was evaluated.

        They are those of the last evaluation, or, where the best is kept, of each seed's best one:
        by these it was chosen, so that fresh ones are lower on average.
        """
        seeds, best = self.specification.seeds, self.finished and self.keeps_best
        found = final_returns(self.evaluations, seeds, self.name, best=best)
        return np.asarray(found) if found else None

    @property
    def keeps_best(self) -> bool:
        """Whether each seed is left as it was at its best evaluation, not at the last one."""
        return self.specification.options.keeps_best

    @property
    def curve(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Learning curve: environment steps (updates, if offline) and mean returns by seed."""
        points = self._by_update()
        if not points:
            return None
        acted = self.specification.acts
        across = [points[u][0] if acted else u for u in sorted(points)]
        returns = [np.mean(points[u][1], axis=1) for u in sorted(points)]
        return np.asarray(across, np.float64), np.stack(returns, axis=1)

    @property
    def references(self) -> References | None:
        """What normalises its returns, if anything is known."""
        known = self.specification.references
        return None if known is None else References(*known)

    def normalised(self, returns) -> np.ndarray:
        """D4RL-style scores: 0 is a random policy, 100 an expert.

        Raises `SpecificationError` if no reference returns are known.
        """
        if self.references is None:
            raise SpecificationError(f"{self.name}: no reference returns are known for its task")
        return self.references.normalise(np.asarray(returns, np.float64))

    def score(self) -> Interval | None:
        """Interquartile mean over seeds of the final return, with an interval."""
        returns = self.final_returns
        return None if returns is None else interval(seed_means(returns))

    @property
    def outcome(self) -> Outcome:
        """What a stage that builds on this run gets."""
        return Outcome(self.method, self.state)

    def _by_update(self) -> dict[int, tuple[int, list[list[float]]]]:
        return returns_by_update(self.evaluations, self.specification.seeds, self.name)


class Policy:
    """A trained policy for use outside: observations in, actions in the user's units out."""

    def __init__(self, method: AbstractPolicy, state: Any, spaces: Spaces):
        self.method, self.state, self.spaces = method, state, spaces
        self._calls = 0

    def __call__(
        self, observation, *, explore: bool = False, key: PRNGKeyArray | None = None
    ) -> np.ndarray:
        """The action for one observation or a batch of them.

        **Arguments:** `observation`: `[…, component]`, or the environment's own dictionary where
        that is what was learned from; `explore`: sample as in training; `key`: of the sampling
        (default: a new one for each call).

        **Returns:** `[…, component]` in the units of the action space, or the numbers by which the
        data or the environment call actions, `[…]`. Raises `SpecificationError` if the observation
        is of another size or not finite.
        """
        observation = self._checked(observation)
        if key is None:
            key = jax.random.fold_in(jax.random.key(0), self._calls)
            self._calls += 1
        batch = observation.reshape(-1, observation.shape[-1])
        action = np.asarray(_act(self.method, self.state, batch, key, explore))
        action = np.asarray(self.spaces.action.from_canonical(action))
        return action.reshape((*observation.shape[:-1], *action.shape[1:]))

    def value(self, observation, action) -> np.ndarray:
        """What the critic expects of an action: the discounted return, in units of the reward.

        **Arguments:** `observation`: `[…, component]`; `action`: in the units of the action space,
        `[…, component]`, or numbers of actions `[…]`.

        **Returns:** `[…]`. Raises `SpecificationError` if the method predicts no values, or if the
        two do not fit each other.
        """
        if not isinstance(self.method, AbstractValue):
            raise SpecificationError(f"{type(self.method).__name__} predicts no values of actions")
        observation = self._checked(observation)
        lead, space = observation.shape[:-1], self.spaces.action
        action = np.asarray(action)
        expected = (*lead, space.size) if isinstance(space, Box) else lead
        if action.shape != expected:
            raise SpecificationError(
                f"observations of shape {observation.shape} go with actions of shape {expected}, "
                f"not {action.shape}"
            )
        action = space.to_canonical(action)
        if isinstance(space, Box):
            action = np.asarray(action, np.float32)
        rows = observation.reshape(-1, observation.shape[-1])
        actions = action.reshape(len(rows), *expected[len(lead) :])
        return np.asarray(_values(self.method, self.state, rows, actions)).reshape(lead)

    def _checked(self, observation) -> np.ndarray:
        size = self.spaces.observation_size
        if isinstance(observation, Mapping):
            observation = self.spaces.observation.vector(observation)
        try:
            observation = np.asarray(observation, np.float32)
        except (TypeError, ValueError):
            raise SpecificationError(
                f"this policy observes vectors of {size} numbers, not {observation!r}"
            ) from None
        if observation.ndim == 0 or observation.shape[-1] != size:
            raise SpecificationError(
                f"this policy observes vectors of {size} components, not of shape "
                f"{observation.shape}"
            )
        if not np.isfinite(observation).all():
            raise SpecificationError("the observation holds a number that is not finite")
        return observation


def _one_of(states: Any, seed: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[seed], states)


@eqx.filter_jit
def _values(method, state, observations, actions):
    return jax.vmap(lambda o, a: method.value(state, o, a))(
        jnp.asarray(observations), jnp.asarray(actions)
    )


@eqx.filter_jit
def _act(method, state, observations, key, explore):
    keys = jax.random.split(key, observations.shape[0])

    def one(observation, key):
        return method.act(state, observation, key=key, explore=explore)[0]

    return jax.vmap(one)(jnp.asarray(observations), keys)


def open_run(path: str | Path) -> Run:
    """A run from its directory, as far as it has come; its data and its task are not needed.

    Raises `RunError` if there is none, or nothing was saved yet.
    """
    directory = RunDirectory.open(path)
    specification = Specification.from_json(directory.specification, str(path))
    upstream = None
    earlier: Outcomes = {}
    if (directory.path / UPSTREAM_DIRECTORY / "run.json").is_file():
        upstream = open_run(directory.path / UPSTREAM_DIRECTORY)
        earlier = {UPSTREAM: upstream.outcome}
    opened = open_problem(specification, directory.path)
    method = specification.method.build()
    position, file, arrays = newest(directory)
    if (
        specification.updates_before
        and isinstance(method, AbstractModelBased)
        and not position.stage
    ):
        state = _with_model_so_far(specification, method, opened.problem, arrays, file)
    else:
        shapes = state_shapes(specification, method, opened.problem, earlier)

        def read(shapes):
            return checkpoint.restore(shapes, arrays, str(file))

        fitting = specification.fits_critics and not position.stage
        state = before_acting(shapes, read) if fitting else read(shapes)
    return Run(
        specification,
        method,
        state,
        opened.problem,
        directory.rows("metrics"),
        directory.rows("evaluations"),
        directory.path,
        finished=is_finished(specification, position),
        upstream=upstream,
        process=opened.process,
        base=opened.model,
    )


def _with_model_so_far(
    specification: Specification,
    method: AbstractMethod,
    problem: Any,
    arrays: dict[str, np.ndarray],
    file: Path,
) -> Any:
    """The state of a run whose model is still being learned: as it begins, with that model."""
    assert isinstance(method, AbstractModelBased)
    keys = jax.random.split(jax.random.key(0), len(specification.seeds))

    def begun(learner):
        return jax.vmap(lambda key: learner.init(problem, key=key))(keys)

    shapes = eqx.filter_eval_shape(begun, method.dynamics)
    model = checkpoint.restore(shapes, arrays, str(file))
    return jax.vmap(method.with_model)(begun(method), model)


def newest(directory: RunDirectory) -> tuple[Position, Path, dict[str, np.ndarray]]:
    """The newest checkpoint that can be read, its file, and the method's arrays in it."""
    found = checkpoint.find(directory.checkpoints)
    damaged = ""
    for position in reversed(found):
        file = checkpoint.path_of(directory.checkpoints, position)
        try:
            return position, file, checkpoint.read(file)["method"]
        except RunError as error:
            damaged = damaged or str(error)
    if found:
        raise RunError(damaged)
    raise RunError(
        f"{directory.path}: nothing was saved yet; start it with `headwater resume "
        f"{directory.path}`"
    )


def state_shapes(
    specification: Specification, method: AbstractMethod, problem: Any, earlier: Outcomes
) -> Any:
    """Shapes of a run's state. Raises `SpecificationError` if its method cannot begin there."""
    begin = begin_of(specification, method, fitted=False)
    keys = jax.random.split(jax.random.key(0), len(specification.seeds))

    def states(arrays: Mapping[str, Any]):
        if begin is None:
            return jax.vmap(lambda key: method.init(problem, key=key))(keys)

        def one(arrays, key):
            outcomes = {name: Outcome(earlier[name].method, arrays[name]) for name in earlier}
            return begin(outcomes, problem, key)

        return jax.vmap(one)(arrays, keys)

    return eqx.filter_eval_shape(states, {name: e.state for name, e in earlier.items()})
