"""Make datasets of graded quality by training a behaviour policy, as D4RL did."""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.api.inputs import as_method
from headwater.core.catalogue import build_method, settings
from headwater.core.errors import RunError, SpecificationError, nearest
from headwater.core.method import AbstractLikelihood, AbstractMethod, AbstractPolicy
from headwater.core.spaces import Box, Spaces
from headwater.datasets.actions.propensities import log_volume
from headwater.datasets.dataset import Dataset
from headwater.datasets.read import load
from headwater.datasets.references import published_references
from headwater.datasets.write import write
from headwater.environments.adapters.host_interaction import host_transitions
from headwater.environments.environment import AbstractEnvironment, AbstractHostTask
from headwater.environments.interaction import begin, interact, random_action
from headwater.evaluation.fitted_value import log_probabilities
from headwater.evaluation.returns import evaluate_returns
from headwater.runs import checkpoint
from headwater.runs.checkpoint import Position
from headwater.runs.directory import RunDirectory
from headwater.runs.feeds.table import check_inputs
from headwater.runs.loop import run
from headwater.runs.options import check_seed
from headwater.runs.recipes.online import Budget, Task, online_stage, rows_per_update

KINDS = ("random", "medium", "medium-replay", "medium-expert", "expert", "full-replay")
"""Grades of data: a uniformly random policy; the behaviour policy a third of the way from there to
its best; everything it saw until then; that policy's data and the best one's; the best one; and
everything the behaviour policy ever saw."""

_SUFFIXES = {
    "parquet": ".parquet",
    "npz": ".npz",
    "arrow": ".arrow",
    "d4rl": ".hdf5",
    "minari": "",
    "columns": "",
}
_BLOCK = 64
"""Environment steps between updates where the simulator runs on the host."""
_COPIES = 20
"""Most simulators that one policy is logged in."""
_MOST_STEPS = 2**31 - 1
_EPISODES = 5
"""Per evaluation of the behaviour policy."""


class Snapshot(NamedTuple):
    """The behaviour policy at one time: updates and environment steps so far, mean return."""

    update: int
    steps: int
    score: float


class Collection(NamedTuple):
    """What `collect` made.

    **Arguments:** `paths`: the dataset of each kind; `scores`: mean return of its episodes;
    `behaviour`: the snapshots of the behaviour policy, in order; `medium`, `expert`: the two used;
    `random`: the mean return of uniformly random actions.
    """

    paths: dict[str, Path]
    scores: dict[str, float]
    behaviour: list[Snapshot]
    medium: Snapshot
    expert: Snapshot
    random: float


def collect(
    task: Task,
    out: str | Path,
    *,
    kinds: Sequence[str] = KINDS[:5],
    transitions: int = 200_000,
    steps: int = 300_000,
    medium: float = 1 / 3,
    behaviour: AbstractMethod | None = None,
    batch_size: int = 128,
    snapshots: int = 60,
    seed: int = 0,
    format: str = "parquet",
    progress: bool | None = None,
) -> Collection:
    """Trains a behaviour policy in `task` and logs datasets of graded quality into `out`.

    Interrupted, it goes on where it was when called again with the same arguments; finished
    datasets are left alone. As in D4RL, policies are sampled, not followed at their mean. The
    metadata of each dataset holds the task, the behaviour policy, its score and the local reference
    returns (of random actions and of the best policy), which normalise scores where the task has no
    published ones.

    **Arguments:** `kinds`: of `KINDS`; `transitions`: per policy; `steps`: environment steps of the
    behaviour policy's training; `medium`: how far the medium policy is from random (0) to the best
    (1); `behaviour`: the online method (default: a small `SAC`, or `DQN` for discrete actions);
    `batch_size`: its rows per gradient step; `snapshots`: candidates to choose medium and expert
    from; `seed`; `format`: see `headwater.datasets.format.variants`.

    Raises `SpecificationError` for arguments that do not fit, `RunError` if `out` holds another
    collection or cannot be written.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise SpecificationError(nearest(kind, KINDS, "kind of data"))
    if format not in _SUFFIXES:
        raise SpecificationError(nearest(format, _SUFFIXES, "format"))
    if not 0.0 < medium < 1.0:
        raise SpecificationError(f"medium = {medium} must lie between 0 (random) and 1 (the best)")
    for name, value, least in (
        ("transitions", transitions, 1),
        ("steps", steps, 1),
        ("batch_size", batch_size, 1),
        ("snapshots", snapshots, 2),
        ("seed", seed, 0),
    ):
        if value < least:
            raise SpecificationError(f"{name} = {value}: it must be at least {least}")
    check_seed(seed)
    if max(transitions, steps) > _MOST_STEPS:
        raise SpecificationError(f"at most {_MOST_STEPS:,} transitions or steps can be asked for")
    method = as_method(behaviour or default_behaviour(task.spaces))
    check_inputs(type(method), {"env"})
    out = Path(out)
    policy = _Behaviour(task, method, steps, batch_size, snapshots, seed)
    sizes = {"transitions": transitions, "medium": medium}
    policy.train(out / "behaviour", sizes, progress)
    worst = policy.random_score()
    best = max(policy.snapshots, key=lambda snapshot: snapshot.score)
    target = worst + medium * (best.score - worst)
    middle = next(s for s in policy.snapshots if s.score >= target or s == best)
    make: dict[str, Callable[[], Dataset]] = {
        "random": partial(policy.log, None, transitions, seed=1),
        "medium": partial(policy.log, middle, transitions, seed=2),
        "expert": partial(policy.log, best, transitions, seed=3),
        "medium-replay": lambda: policy.replay(middle.steps),
        "full-replay": lambda: policy.replay(steps),
        "medium-expert": lambda: Dataset.concatenate([make["medium"](), make["expert"]()]),
    }
    paths, scores = {}, {}
    for kind in kinds:
        name = task.name.replace("/", "-").replace(":", "-")
        path = out / f"{name}-{kind}{_SUFFIXES[format]}"
        if path.exists():
            data = load(path)
        else:
            data = make[kind]()
            data.metadata.update(
                name=f"{task.name}-{kind}",
                environment=task.name,
                behaviour_score=float(np.mean(data.episode_returns())),
                behaviour={
                    "method": type(method).__name__,
                    "training_steps": steps,
                    "seed": seed,
                    "medium": middle._asdict(),
                    "expert": best._asdict(),
                },
                local_returns=[worst, best.score],
            )
            if published_references(task.name) is None:
                known = task.reference_returns
                data.metadata["reference_returns"] = list(known or (worst, best.score))
            write(data, path, format)
        paths[kind], scores[kind] = path, float(np.mean(data.episode_returns()))
    return Collection(paths, scores, policy.snapshots, middle, best, worst)


def default_behaviour(spaces: Spaces) -> AbstractMethod:
    """The small online method that trains a behaviour policy unless another is given."""
    small: dict[str, Any] = {"hidden_sizes": (64, 64)}
    if spaces.discrete:
        return build_method(
            "DQN", {**small, "learning_rate": 1e-3, "exploration_decay_updates": 2e4}
        )
    rates = ("actor_learning_rate", "critic_learning_rate", "temperature_learning_rate")
    return build_method("SAC", {**small, **dict.fromkeys(rates, 1e-3)})


class _Behaviour:
    """A policy that learns online, its snapshots, and what it saw."""

    def __init__(
        self,
        task: Task,
        method: AbstractMethod,
        steps: int,
        batch_size: int,
        snapshots: int,
        seed: int,
    ):
        if not isinstance(method, AbstractPolicy):
            raise SpecificationError(f"{type(method).__name__} cannot act: give an online method")
        self.task, self.method, self.seed = task, method, seed
        self.steps, self.batch_size, self.count = steps, batch_size, snapshots
        self.snapshots: list[Snapshot] = []
        budget = Budget(
            steps=steps,
            rows=rows_per_update(method, batch_size),
            random_steps=min(steps // 10, 5_000),
            block=1 if isinstance(task, AbstractEnvironment) else _BLOCK,
        )
        self.stage = online_stage(method, task, budget, name="behaviour")
        self.directory: RunDirectory

    def train(self, path: Path, sizes: dict[str, Any], progress: bool | None) -> None:
        """Trains, or goes on training, or finds that all is done.

        **Arguments:** `sizes`: what else must be the same to go on with this collection.
        """
        request = {
            "verb": "collect",
            "task": {"name": self.task.name, "options": task_options(self.task)},
            "method": {"name": type(self.method).__name__, "settings": settings(self.method)},
            "steps": self.steps,
            "batch_size": self.batch_size,
            "snapshots": self.count,
            "seed": self.seed,
            **sizes,
        }
        # What cannot begin should leave no directory behind.
        method, spaces = self.method, self.task.spaces
        eqx.filter_eval_shape(lambda key: method.init(spaces, key=key), jax.random.key(0))
        # As it comes back from the file: lists for tuples.
        request = json.loads(json.dumps(request))
        if (path / "run.json").is_file():
            self.directory = RunDirectory.open(path)
            before = self.directory.specification
            for name, value in request.items():
                if before.get(name) != value:
                    raise RunError(
                        f"{path.parent} holds a collection with {_first(name, before, request)}: "
                        "choose another directory or ask for the same again"
                    )
        else:
            self.directory = RunDirectory.create(path, request)
        result = run(
            [self.stage],
            self.task.spaces,
            seed=self.seed,
            directory=self.directory,
            evaluate=self._evaluate,
            evaluations=self.count,
            progress=progress,
            keep=True,
        )
        self.snapshots = [
            Snapshot(row["update"], row["environment_steps"], float(np.mean(row["returns"])))
            for row in result.evaluations
        ]

    def random_score(self) -> float:
        """Mean return of uniformly random actions."""
        state = jnp.zeros((1, 1))
        key = jax.random.key(self.seed)
        returns = evaluate_returns(
            _Random(self.task.spaces), state, self.task, episodes=20, key=key
        )
        return float(np.mean(returns))

    def log(self, snapshot: Snapshot | None, transitions: int, seed: int) -> Dataset:
        """What the policy of that time (`None`: a random one) does, sampled."""
        method: Any = _Random(self.task.spaces)
        state: Any = jnp.zeros((1, 1))
        if snapshot is not None:
            method, state = self.method, self._state(snapshot)
        if isinstance(self.task, AbstractEnvironment):
            columns = self._log_pure(method, state, transitions, seed)
        else:
            columns = self._log_host(method, state, transitions, seed)
        return _dataset(self.task.spaces, **columns)

    def replay(self, steps: int) -> Dataset:
        """The first `steps` transitions that the policy saw while it learned."""
        path = checkpoint.path_of(self.directory.checkpoints, self._position(self.stage.updates))
        saved = checkpoint.read(path)["source"]
        prefix = ".ring.data." if isinstance(self.task, AbstractEnvironment) else "ring."
        written = int(np.max(saved[".ring.written" if prefix[0] == "." else "written"]))
        columns = {
            name.removeprefix(prefix): column[0, : min(steps, written)]
            for name, column in saved.items()
            if name.startswith(prefix) and name != ".ring.written"
        }
        return _dataset(self.task.spaces, **columns)

    def _evaluate(self, method, state, key) -> np.ndarray:
        return evaluate_returns(method, state, self.task, episodes=_EPISODES, key=key, explore=True)

    def _position(self, update: int) -> Position:
        return Position(0, self.stage.name, update)

    def _state(self, snapshot: Snapshot) -> Any:
        path = checkpoint.path_of(self.directory.snapshots, self._position(snapshot.update))
        template = eqx.filter_eval_shape(
            lambda keys: jax.vmap(lambda k: self.method.init(self.task.spaces, key=k))(keys),
            jax.random.split(jax.random.key(0), 1),
        )
        return checkpoint.restore(template, checkpoint.read(path)["method"], str(path))

    def _log_pure(self, method, state, transitions: int, seed: int) -> dict[str, np.ndarray]:
        assert isinstance(self.task, AbstractEnvironment)
        copies, steps = _shares(self.task.spaces, transitions)
        key = jax.random.fold_in(jax.random.key(self.seed), seed)
        rows = _walk(method, state, self.task, copies, steps, key)
        # [step, copy, …] to whole copies one after the other, each cut off at its end.
        truncated = np.asarray(rows.truncated).copy()
        truncated[-1] |= ~np.asarray(rows.terminal)[-1]
        columns = {**vars(rows), "truncated": truncated}
        flat = {
            name: np.asarray(column).swapaxes(0, 1).reshape(-1, *column.shape[2:])
            for name, column in columns.items()
            if column is not None
        }
        return {**flat, **_chances(method, state, flat)}

    def _log_host(self, method, state, transitions: int, seed: int) -> dict[str, np.ndarray]:
        assert isinstance(self.task, AbstractHostTask)
        key = jax.random.fold_in(jax.random.key(self.seed), seed)

        def act(observations: np.ndarray, t: int) -> np.ndarray:
            step = np.asarray(t, np.int32)
            return np.asarray(_act(method, state, observations[0], key, step))[None]

        copies, steps = _shares(self.task.spaces, transitions)
        start = int(jax.random.randint(key, (), 0, 2**31 - 1))
        columns = host_transitions(self.task, act, steps=copies * steps, seed=start, copies=copies)
        del columns["copy"]
        return {**columns, **_chances(method, state, columns)}


def _chances(method, state, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Log-probability of each action under the policy that chose it, if that policy knows it."""
    if not isinstance(method, AbstractLikelihood):
        return {}
    own = jax.tree.map(lambda leaf: leaf[0], state)
    logs = log_probabilities(method, own, columns["observation"], columns["action"])
    return {"log_propensity": np.asarray(logs)}


def _first(name: str, before: Any, now: Any) -> str:
    """The first difference in the part called `name`, as few words as it takes."""
    old, new = before.get(name), now[name]
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return _first(next(key for key in new if old[key] != new[key]), old, new)
    return f"{name} = {old}, not {new}"


class _Random(AbstractPolicy, AbstractLikelihood):
    """Draws actions uniformly."""

    spaces: Spaces

    def act(self, state, observation, *, key, explore: bool):
        return random_action(self.spaces, key=key), ()

    def log_probability(self, state, observation, action):
        size = self.spaces.action_size
        each = -jnp.log(float(size)) if self.spaces.discrete else -size * jnp.log(2.0)
        return jnp.asarray(each, jnp.float32)


def task_options(task: Task) -> dict[str, Any]:
    """The options that `headwater.environments.make` was given for `task`."""
    if isinstance(task, AbstractEnvironment):
        return dict(vars(task))
    return dict(getattr(task, "options", ()))


def _shares(spaces: Spaces, transitions: int) -> tuple[int, int]:
    """Simulators and steps in each, so that the log's end cuts off no episode of full length."""
    longest = spaces.horizon or transitions
    episodes = math.ceil(transitions / longest)
    copies = next(c for c in range(min(_COPIES, episodes), 0, -1) if episodes % c == 0)
    return copies, episodes // copies * longest


def _dataset(spaces: Spaces, **columns: np.ndarray) -> Dataset:
    action, space = columns["action"], spaces.action
    bounds: dict[str, Any] = {"action_count": spaces.action_size}
    if isinstance(space, Box):
        action = space.from_canonical(action.astype(np.float64))
        bounds = {"action_low": space.low, "action_high": space.high}
    elif space.labels is not None:
        action, bounds = space.from_canonical(action), {"action_labels": space.labels}
    return Dataset.from_arrays(
        columns["observation"],
        action,
        columns["reward"],
        columns["terminal"],
        columns["truncated"],
        columns["next_observation"],
        horizon=spaces.horizon,
        log_propensities=columns["log_propensity"] - log_volume(space)
        if "log_propensity" in columns
        else None,
        **bounds,
    )


@eqx.filter_jit
def _walk(method, state, environment, copies, steps, key):
    start_key, walk_key = jax.random.split(key)
    state = jax.tree.map(lambda leaf: leaf[0], state)

    def act(observation, key):
        return method.act(state, observation, key=key, explore=True)[0]

    at = begin(environment, copies, key=start_key)
    return interact(environment, at, act, steps=steps, key=walk_key)[1]


@eqx.filter_jit
def _act(method, state, observations, key, t):
    state = jax.tree.map(lambda leaf: leaf[0], state)
    keys = jax.random.split(jax.random.fold_in(key, t), observations.shape[0])
    return jax.vmap(lambda o, k: method.act(state, o, key=k, explore=True)[0])(observations, keys)
