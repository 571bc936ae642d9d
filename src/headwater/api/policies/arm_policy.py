"""A policy over arms in a program of one's own: it predicts, pulls and learns on."""

import functools
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from headwater.core import json_text
from headwater.core.catalogue import build_method, settings
from headwater.core.errors import DataError, HeadwaterError, RunError, SpecificationError
from headwater.core.finite import draw_index
from headwater.core.method import AbstractArmPolicy, AbstractMethod
from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls
from headwater.datasets.bandits.pulls_files import check_pulls
from headwater.exports.policy_function import as_text
from headwater.runs.checkpoint import flatten, restore
from headwater.runs.files import explain, write_atomically
from headwater.runs.learn import learn
from headwater.sources.pulls import LoggedPulls

FORMAT = "headwater arm policy 1"


class ArmPolicy:
    """Contexts in, arms out; what the arms then earned makes it better.

    ```python
    policy = hw.ArmPolicy(hw.LinUCB(), hw.Arms(arms=10, context_size=5))  # or run.policy
    arms, propensities = policy.pull(contexts)
    policy.partial_fit(contexts, arms, rewards, propensities)
    best = policy.predict(contexts)
    ```

    Nothing is compiled anew for another number of rounds but for each power of two.

    **Arguments:** `method`; `problem`: its arms; `state`: what it has learned, by default nothing;
    `seed`: of its own draws.

    Raises `SpecificationError` if the method is no policy over arms, or not for such arms.
    """

    def __init__(self, method: AbstractMethod, problem: Arms, state: Any = None, *, seed: int = 0):
        if not isinstance(method, AbstractArmPolicy):
            raise SpecificationError(
                f"{type(method).__name__} is no policy over the arms of a bandit"
            )
        self.method, self.problem = method, problem
        # What is compiled in, apart from what is handed over: programs are found at once then.
        self._numbers, self._rest = eqx.partition(method, eqx.is_array)
        key = jax.random.key(seed)
        if state is None:
            key, own = jax.random.split(key)
            state = method.init(problem, key=own)
        # As numbers, since a typed key takes longer to hand over than all else together.
        self._key = jax.random.key_data(key)
        self.state = state

    def __repr__(self) -> str:
        return f"ArmPolicy({type(self.method).__name__}, {self.problem.arms} arms)"

    def predict(self, contexts: Any = None, features: Any = None) -> np.ndarray:
        """The arm that looks best in each round.

        **Arguments:** `contexts`: `[round, context]`, or `[context]` of one round; left out where
        rounds have none, which is one round; `features`: of the arms, `[arm, feature]` or
        `[round, arm, feature]`, if the problem does not hold them.

        **Returns:** `[round]`, or one number for one round. Raises `DataError` for contexts or
        features of another size, or that are not finite.
        """
        return np.asarray(np.argmax(self.predict_proba(contexts, features), axis=-1))

    def predict_proba(
        self, contexts: Any = None, features: Any = None, *, explore: bool = False
    ) -> np.ndarray:
        """How probably each arm is pulled, `[round, arm]`: as while learning if `explore`.

        Arguments and errors are those of `predict`.
        """
        contexts, features, single = self._rounds(contexts, features)
        found = self._probabilities(contexts, features, explore)
        return found[0] if single else found

    def pull(self, contexts: Any = None, features: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The arms to pull while learning, and how probable each of them was.

        Keep the second for `partial_fit`, and for whoever judges another policy by these rounds.
        Arguments and errors are those of `predict`. **Returns:** twice `[round]`.
        """
        contexts, features, single = self._rounds(contexts, features)
        size, rounds = _padded(len(contexts)), len(contexts)
        given = (_pad(contexts, size), _pad(features, 1 if len(features) == 1 else size))
        self._key, arms, propensities = _pulled(
            self._rest, self._numbers, self.state, *given, self._key
        )
        arms, propensities = np.asarray(arms)[:rounds], np.asarray(propensities)[:rounds]
        if single:
            return np.asarray(arms[0]), np.asarray(propensities[0])
        return arms, propensities

    def partial_fit(
        self,
        contexts: Any,
        arms: Any,
        rewards: Any,
        propensities: Any = None,
        features: Any = None,
    ) -> "ArmPolicy":
        """Learns from rounds, one after the other, and returns itself.

        **Arguments:** `contexts`: as of `predict`, `None` where rounds have none; `arms`: that were
        pulled, `[round]`, by this policy or another; `rewards`: that they earned; `propensities`:
        how probably each of them was pulled, which only some methods need; `features`: as of
        `predict`.

        Raises `DataError`, naming row and column, for what cannot be such rounds, and changes
        nothing then; `SpecificationError` if the method needs propensities, or needs to know what
        the other arms would have earned.
        """
        arms, rewards = np.atleast_1d(np.asarray(arms)), np.atleast_1d(np.asarray(rewards))
        if arms.ndim != 1 or rewards.shape != arms.shape:
            raise DataError(
                f"arms of shape {arms.shape} and rewards of shape {rewards.shape}: one arm and one "
                "reward for each round are needed"
            )
        if arms.dtype.kind not in "iu":
            raise DataError(f"arms are numbers of arms from 0 on, not {arms.dtype}")
        if contexts is None and not self.problem.context_size:
            contexts = np.zeros((len(arms), 0))
        contexts, features, _ = self._rounds(contexts, features)
        if propensities is None:
            if self._needs_propensities:
                raise SpecificationError(
                    f"{type(self.method).__name__} learns from how probably each arm was pulled: "
                    "give the propensities, which pull() returned beside the arms"
                )
            propensities = np.ones(len(arms))
        propensities = np.atleast_1d(np.asarray(propensities))
        if propensities.shape != arms.shape or rewards.dtype.kind not in "biuf":
            raise DataError(
                "rewards and propensities are numbers, one for each round: they have "
                f"{len(rewards)} and {propensities.shape}, of {rewards.dtype} and "
                f"{propensities.dtype}"
            )
        data = Pulls(
            contexts,
            features,
            arms.astype(np.int32),
            rewards.astype(np.float32),
            propensities.astype(np.float32),
        )
        check_pulls(data, self.problem)
        first, rows = 0, len(arms)
        while first < rows:
            # The largest power of two that is left, so that few sizes are compiled.
            size = 1 << ((rows - first).bit_length() - 1)
            # Features that are the same in every round have a single row.
            part = data if size == rows else _rows_of(data, slice(first, first + size))
            self._key, self.state = _learned(
                self._rest, self._numbers, self.problem, self.state, part, self._key
            )
            first += size
        return self

    def save(self, path: str | Path) -> Path:
        """Writes the policy with all that it has learned into one file, which `load` reads.

        The file holds arrays and text (safetensors), no program. Raises `RunError` if it cannot be
        written.
        """
        path, problem = Path(path).expanduser(), self.problem
        arrays = {f"state|{name}": array for name, array in flatten(self.state).items()}
        if problem.features is not None:
            arrays["features"] = np.asarray(problem.features)
        arrays["key"] = np.asarray(self._key)
        sizes = ("arms", "context_size", "feature_size", "low", "high")
        described = as_text(
            {
                "format": FORMAT,
                "headwater": version("headwater"),
                "method": type(self.method).__name__,
                "settings": settings(self.method),
                # Bounds may be infinite, for which JSON has no number.
                "problem": {name: str(getattr(problem, name)) for name in sizes},
            }
        )
        content = save(
            {name: np.asarray(array, order="C") for name, array in arrays.items()}, described
        )
        try:
            write_atomically(path, lambda place: place.write_bytes(content))
            path.chmod(0o644)
        except OSError as error:
            raise RunError(explain(error, path)) from None
        return path

    @classmethod
    def load(cls, path: str | Path) -> "ArmPolicy":
        """The policy in a file that `save` wrote; it goes on where it was.

        Raises `RunError` if there is none, or it is damaged or of something else.
        """
        path = Path(path).expanduser()
        try:
            if not path.is_file():
                raise OSError("there is no such file")
            with safe_open(path, framework="numpy") as file:
                described = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if described.get("format") != FORMAT:
                raise ValueError(f"it says '{described.get('format')}', not '{FORMAT}'")
            method = build_method(described["method"], json_text.parse(described["settings"]))
            sizes = json_text.parse(described["problem"])
            features = arrays.pop("features", None)
            problem = Arms(
                int(sizes["arms"]),
                int(sizes["context_size"]),
                int(sizes["feature_size"]),
                None if features is None else jnp.asarray(features),
                float(sizes["low"]),
                float(sizes["high"]),
            )
            # Refuses what is no key.
            key = jax.random.key_data(jax.random.wrap_key_data(jnp.asarray(arrays.pop("key"))))
            template = jax.eval_shape(lambda key: method.init(problem, key=key), jax.random.key(0))
            learned = {name.removeprefix("state|"): array for name, array in arrays.items()}
            policy = cls(method, problem, restore(template, learned, str(path)))
        except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: not a readable policy over arms ({error})") from error
        except HeadwaterError as error:
            raise RunError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
        policy._key = key
        return policy

    @functools.cached_property
    def _needs_propensities(self) -> bool:
        """Whether what is learned depends on them: what is unknown then reaches the state."""
        problem = self.problem
        features = jnp.zeros((1, problem.arms, problem.feature_size))
        row = Pulls(
            jnp.ones((1, problem.context_size)),
            features if problem.features is None else jnp.asarray(problem.features)[None],
            jnp.zeros(1, jnp.int32),
            jnp.full(1, problem.low if problem.bounded else 1.0),
            jnp.full(1, jnp.nan),
        )
        given = (problem, self.state, row, self._key)
        _, state = _learned(self._rest, self._numbers, *given)
        numbers = (x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating))
        return any(bool(jnp.isnan(x).any()) for x in numbers)

    def _probabilities(self, contexts: np.ndarray, features: np.ndarray, explore: bool):
        size = _padded(len(contexts))
        given = (_pad(contexts, size), _pad(features, 1 if len(features) == 1 else size))
        self._key, found = _all_probabilities(
            self._rest, explore, self._numbers, self.state, *given, self._key
        )
        return np.asarray(found)[: len(contexts)]

    def _rounds(self, contexts: Any, features: Any) -> tuple[np.ndarray, np.ndarray, bool]:
        """Contexts `[round, context]`, features `[1 or round, arm, feature]`, and if it is one."""
        problem = self.problem
        if contexts is None:
            if problem.context_size:
                raise DataError(
                    f"rounds have contexts of {problem.context_size} numbers: give them"
                )
            contexts = np.zeros(0)
        contexts = _numbers(contexts, "contexts")
        single = contexts.ndim == 1
        if single:
            contexts = contexts[None]
        if contexts.ndim != 2 or contexts.shape[1] != problem.context_size:
            raise DataError(
                f"contexts have shape {contexts.shape}: each round has {problem.context_size} "
                "numbers"
            )
        if features is None:
            features = problem.features
        if features is None:
            if problem.feature_size:
                raise DataError(
                    f"each arm has {problem.feature_size} features in each round: give them"
                )
            features = np.zeros((problem.arms, 0))
        features = _numbers(features, "features")
        if features.ndim == 2:
            features = features[None]
        sizes = (problem.arms, problem.feature_size)
        if features.shape[1:] != sizes or len(features) not in (1, len(contexts)):
            raise DataError(
                f"features have shape {features.shape}: {sizes[0]} arms have {sizes[1]} each, "
                f"once or in each of {len(contexts)} rounds"
            )
        for name, array in (("contexts", contexts), ("features", features)):
            wrong = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
            if len(wrong):
                raise DataError(f"row {wrong[0] + 1}: {name} hold a number that is not finite")
        return contexts, features, single


def _numbers(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise DataError(f"{name} are arrays of numbers, not {type(values).__name__}") from None


def _rows_of(data: Pulls, chosen: slice) -> Pulls:
    same = len(data.features) == 1
    features = data.features if same else data.features[chosen]
    rest = (data.arm, data.reward, data.propensity)
    return Pulls(data.context[chosen], features, *(column[chosen] for column in rest))


def _padded(rows: int) -> int:
    return 1 << max(rows - 1, 0).bit_length()


def _pad(column: Any, size: int) -> np.ndarray:
    column = np.asarray(column)
    return np.concatenate([column, np.zeros((size - len(column), *column.shape[1:]), column.dtype)])


def _split(key):
    """Numbers of the next key, and a key of one's own."""
    following, own = jax.random.split(jax.random.wrap_key_data(key))
    return jax.random.key_data(following), own


def _chances(rest, explore, numbers, state, contexts, features, key):
    """The next key, and the distribution of each round; `features` may have a single row."""
    method, rounds = eqx.combine(rest, numbers), contexts.shape[0]
    key, own = _split(key)

    def one(context, features, key):
        return method.probabilities(state, context, features, key=key, explore=explore)

    features = jnp.broadcast_to(features, (rounds, *features.shape[1:]))
    return key, jax.vmap(one)(contexts, features, jax.random.split(own, rounds))


_all_probabilities = functools.partial(jax.jit, static_argnums=(0, 1))(_chances)


@functools.partial(jax.jit, static_argnums=0)
def _pulled(rest, numbers, state, contexts, features, key):
    """The next key, arms, and how probable each of them was."""
    key, chances = _chances(rest, True, numbers, state, contexts, features, key)
    key, own = _split(key)

    def one(chances, key):
        return draw_index(chances, jax.random.uniform(key)).astype(jnp.int32)

    arms = jax.vmap(one)(chances, jax.random.split(own, len(chances)))
    return key, arms, jnp.take_along_axis(chances, arms[:, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def _learned(rest, numbers, problem, state, data, key):
    """The next key, and the state after the rounds."""
    method, rows = eqx.combine(rest, numbers), data.arm.shape[0]
    key, own = _split(key)
    source = LoggedPulls(jax.tree.map(jnp.asarray, data))
    return key, learn(method, problem, source, rows, state=state, key=own).state
