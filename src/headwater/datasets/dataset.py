"""Logged experience in memory: flat columns and episode boundaries."""

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces, Statistics, read_parts
from headwater.datasets.actions.confidence import filled, read_confidence
from headwater.datasets.actions.propensities import canonical_log_propensities, log_volume
from headwater.datasets.references import References, published_references

COUNTS = ("dropped_rows", "dropped_reward_rows", "dropped_reward_sum", "unmarked_ends")
"""What metadata counts: where datasets are put together, the sum is meant."""
ACTION_NAMES = "action_names"
"""What metadata calls the words that discrete actions are written as, in their numbers' order."""
_MOST_ACTIONS = 1_000_000
_FEW_ACTIONS = 64
"""Up to so many numbers, actions that never occur are taken to exist."""
_PIECE = 512
"""Rows of an episode whose returns are summed one after the other."""
_BLOCK = 4096
"""Rows that are computed with in double precision at once."""
_ROUNDING = 1e-4
"""Actions may lie outside their bounds by this fraction of the range: 32-bit rounding."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Episodes laid end to end, one NumPy array per column.

    Build one with `Dataset.from_arrays`, which validates; the constructor does not.

    **Arguments:** `observations`, `next_observations`: float32 `[row, component]`; `actions`:
    canonical (in [-1, 1]) float32 `[row, component]`, or int32 `[row]`; `rewards`: float32 `[row]`;
    `terminals`, `truncations`: bool `[row]`, at least one of them true on the last row of every
    episode and neither elsewhere; `episode_starts`: int64 `[episode + 1]`, first row of each
    episode and, last, the number of rows; `spaces`: with the user's action bounds and the
    statistics of this data; `metadata`: plain values that JSON can hold (`name`, `environment`,
    `source`, `behaviour_score`, `reference_returns`, `missing` columns, …); `log_propensities`:
    float32 `[row]`, log-probability of each action under the policy that chose it (of continuous
    ones the log-density of the canonical action), `None` if it was not logged; `action_confidence`:
    float32 `[row]`, 1 for an action that was logged, 0 for a row that has none (its action is then
    0), and strictly between for an action that was inferred: how probably it is the right one.
    `None`: all were logged.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminals: np.ndarray
    truncations: np.ndarray
    episode_starts: np.ndarray
    spaces: Spaces
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    log_propensities: np.ndarray | None = None
    action_confidence: np.ndarray | None = None

    @classmethod
    def from_arrays(
        cls,
        observations,
        actions,
        rewards,
        terminals,
        truncations=None,
        next_observations=None,
        *,
        action_low=None,
        action_high=None,
        discrete: bool | None = None,
        action_count: int | None = None,
        action_labels=None,
        action_bounds: str | None = None,
        horizon: int | None = None,
        metadata: dict[str, Any] | None = None,
        propensities=None,
        log_propensities=None,
        action_confidence=None,
        missing_actions: str | None = None,
    ) -> "Dataset":
        """A validated dataset from columns of equal length, episodes laid end to end.

        An episode ends where a row is terminal (the process ended: nothing comes after) or
        truncated (only the record stopped: a time limit, say). If the last row is neither, it is
        taken as truncated.

        Without `next_observations` the successor of a row is the next row of its episode. The last
        row of a truncated episode then has no known successor and is dropped, as D4RL does; its
        observation lives on as the successor of the row before, which becomes the truncated one.
        A terminal row keeps its own observation as a placeholder that methods ignore. So it is
        where a truncated row's next observation is all NaN.

        **Arguments:** `observations`: `[row, …]`, flattened to vectors; `actions`: `[row,
        component]` in the user's units, or integers `[row]`; `rewards`, `terminals`,
        `truncations`: `[row]`; `next_observations`: like `observations`; `action_low`,
        `action_high`: bounds of continuous actions, scalars or one per component (default: -1 and
        1); `discrete`: whether actions are a finite set (default: whether they are integers
        without bounds, or rows with a single 1 among zeros); `action_count`: size of that set
        (default: one more than the largest logged); `action_labels`: the numbers of its elements,
        where these are not 0, 1, 2 and so on (default: as many as there can be between the smallest
        and the largest, if there are negative ones or they begin at 1; those that occur, if most do
        not); `action_bounds`: `"data"` for the smallest and the largest value of each component;
        `horizon`: time limit in steps; without `truncations`, an episode that reaches it
        unterminated is truncated there; `metadata`: plain values; `propensities`: probability of
        each action under the policy that chose it, `[row]` (of continuous actions the density in
        the user's units; of discrete ones also of all, `[row, action]`); `log_propensities`: their
        natural logarithms; `action_confidence`: `[row]`, as of `Dataset`; without it,
        `missing_actions` says what becomes of rows whose action is NaN: `"keep"` to have it
        inferred, `"drop"` to leave them out, which cuts their episodes.

        Raises `DataError`, with column, row and remedy, for anything that cannot be learned from.
        """
        observations = _observations(observations, "observations")
        rows = observations.shape[0]
        if rows == 0:
            raise DataError("the data has no rows: at least one transition is needed")
        if horizon is not None and horizon < 1:
            raise DataError(f"horizon is {horizon}: a time limit is at least one step")
        rewards = _scalars(rewards, "rewards", rows)
        terminals = _flags(terminals, "terminals", rows)
        if truncations is not None:
            truncations = _flags(truncations, "truncations", rows)
        elif horizon is not None:
            truncations = truncate_at(terminals, horizon)
        else:
            truncations = np.zeros(rows, bool)
        details = dict(metadata or {})
        options = _ActionOptions(
            action_low, action_high, discrete, action_count, action_labels, action_bounds
        )
        confidence = read_confidence(actions, action_confidence, missing_actions, rows)
        actions = filled(actions, confidence, options.kind, options.usual)
        actions, action_space = _actions(actions, rows, options, details)
        if confidence is not None:
            actions[confidence == 0] = 0
        chances = canonical_log_propensities(propensities, log_propensities, actions, action_space)
        if not terminals[-1] and not truncations[-1]:
            truncations = truncations.copy()
            truncations[-1] = True
        dropped, lost = 0, np.zeros(0)
        cut = truncations & ~terminals
        if next_observations is not None:
            unknown = cut & _empty(next_observations, rows)
            following = _observations(
                next_observations,
                "next_observations",
                unless=terminals | unknown,
                instead=observations,
            )
            if following.shape != observations.shape:
                raise DataError(
                    f"next_observations has shape {following.shape} "
                    f"but observations has shape {observations.shape}: they must be equal"
                )
        else:
            following = np.concatenate([observations[1:], observations[-1:]])
            following[terminals] = observations[terminals]
            unknown = cut
        if next_observations is None or unknown.any():
            keep = ~unknown
            # A row whose successor is dropped is the new end of its episode.
            ends = terminals | truncations
            truncations = truncations | np.append(~keep[1:] & ~ends[:-1], False)
            dropped = int(rows - np.count_nonzero(keep))
            lost = rewards[~keep & (rewards != 0)].astype(np.float64)
            if dropped == rows:
                raise DataError(
                    "without next_observations the last row of each truncated episode has no known "
                    "successor and is dropped, and here nothing is left: every episode has one "
                    "row; give next_observations, or mark rows as terminal where the process ended"
                )
            observations, actions, rewards = observations[keep], actions[keep], rewards[keep]
            following, terminals, truncations = following[keep], terminals[keep], truncations[keep]
            chances = None if chances is None else chances[keep]
            confidence = None if confidence is None else confidence[keep]
        if dropped:
            add_counts(details, {"dropped_rows": dropped})
        if lost.size:
            counts = {"dropped_reward_rows": lost.size, "dropped_reward_sum": float(lost.sum())}
            add_counts(details, counts)
        infinite = (float("inf"),) * observations.shape[1]
        spaces = Spaces(
            observation=Box(
                low=tuple(-bound for bound in infinite),
                high=infinite,
                parts=read_parts(details.get("observation_parts"), observations.shape[1]),
            ),
            action=action_space,
            horizon=None if horizon is None else int(horizon),
        )
        whole = cls(
            observations,
            actions,
            rewards,
            following,
            terminals,
            truncations,
            _starts(terminals | truncations),
            spaces,
            details,
            chances,
            confidence,
        )
        if missing_actions == "drop" and confidence is not None:
            known = confidence > 0
            if np.all(confidence[known] == 1):
                whole = dataclasses.replace(whole, action_confidence=None)
            if not known.all():
                lost = int(np.count_nonzero(~known))
                remark(details, f"{lost:,} of {whole.size:,} rows have no action and were left out")
                whole = whole.select_rows(known)
        return with_statistics(whole)

    @property
    def size(self) -> int:
        """Number of transitions."""
        return self.rewards.shape[0]

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return self.episode_starts.shape[0] - 1

    @property
    def episode_of_row(self) -> np.ndarray:
        """The episode that each row belongs to, int64 `[row]`."""
        return np.repeat(np.arange(self.episodes), self.episode_lengths())

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        name = self.metadata.get("name", "unnamed")
        kind = "discrete" if self.spaces.discrete else "continuous"
        return (
            f"Dataset({name}: {self.size:,} transitions in {self.episodes:,} episodes, "
            f"observations of {self.spaces.observation_size}, {kind} actions of "
            f"{self.spaces.action_size})"
        )

    def raw_actions(self) -> np.ndarray:
        """Actions in the user's units, float32 `[row, component]`, or their numbers `[row]`.

        Where there is none, continuous ones are NaN.
        """
        if isinstance(self.spaces.action, Box):
            raw = self.spaces.action.from_canonical(self.actions.astype(np.float64))
            raw = raw.astype(np.float32)
            if self.action_confidence is not None:
                raw[self.action_confidence == 0] = np.nan
            return raw
        return np.asarray(self.spaces.action.from_canonical(self.actions))

    def raw_log_propensities(self) -> np.ndarray | None:
        """Log-probabilities of the actions, or log-densities in the user's units, `[row]`."""
        if self.log_propensities is None:
            return None
        shift = log_volume(self.spaces.action)
        return (self.log_propensities.astype(np.float64) - shift).astype(np.float32)

    def beside(self) -> dict[str, np.ndarray]:
        """The columns that not every log has, by name, in the user's units: for whoever writes."""
        found = {
            "log_propensities": self.raw_log_propensities(),
            "action_confidence": self.action_confidence,
        }
        return {name: column for name, column in found.items() if column is not None}

    @property
    def known_actions(self) -> np.ndarray:
        """The rows that have an action, logged or inferred, bool `[row]`."""
        if self.action_confidence is None:
            return np.ones(self.size, bool)
        return self.action_confidence > 0

    @property
    def logged_actions(self) -> np.ndarray:
        """The rows whose action was logged, bool `[row]`."""
        if self.action_confidence is None:
            return np.ones(self.size, bool)
        return self.action_confidence == 1

    def transitions(self, discount: float | None = 0.99) -> Transitions:
        """All rows as one batch with NumPy leaves.

        `next_action` is the action of the following row of the episode (the last row repeats its
        own); `return_to_go` is discounted with `discount` and stops where the episode does; without
        a `discount` it is left out.
        """
        following = np.arange(1, self.size + 1)
        last = self.episode_starts[1:] - 1
        following[last] = last
        columns = {
            "observation": self.observations,
            "action": self.actions,
            "reward": self.rewards,
            "next_observation": self.next_observations,
            "terminal": self.terminals,
            "truncated": self.truncations,
            "next_action": self.actions[following],
            "return_to_go": self.rewards,
        }
        if discount is not None:
            columns["return_to_go"] = self.returns_to_go(discount).astype(np.float32)
        # The record declares device arrays; filling its tree lets the columns stay on the host.
        fields = [field.name for field in dataclasses.fields(Transitions)]
        found = jax.tree.unflatten(
            _transitions_tree(), [columns[name] for name in fields if name in columns]
        )
        return found if discount is not None else dataclasses.replace(found, return_to_go=None)

    def returns_to_go(self, discount: float = 0.99) -> np.ndarray:
        """Discounted sum of rewards from each row to the end of its episode, float64 `[row]`."""
        return returns_to_go(self.rewards, self.episode_starts, discount)

    def episode_returns(self, discount: float = 1.0) -> np.ndarray:
        """Sum of the rewards of each episode, float64 `[episode]`."""
        if discount != 1.0:
            return self.returns_to_go(discount)[self.episode_starts[:-1]]
        return np.add.reduceat(self.rewards, self.episode_starts[:-1], dtype=np.float64)

    def episode_lengths(self) -> np.ndarray:
        """Number of rows of each episode, int64 `[episode]`."""
        return np.diff(self.episode_starts)

    def select_episodes(self, indices: Sequence[int] | np.ndarray) -> "Dataset":
        """The dataset of these episodes, in this order; an episode may be named repeatedly.

        Raises `DataError` if there are none or one does not exist.
        """
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if chosen.size == 0:
            raise DataError("no episodes were selected: a dataset needs at least one")
        wrong = chosen[(chosen < -self.episodes) | (chosen >= self.episodes)]
        if wrong.size:
            raise DataError(
                f"there is no episode {wrong[0]}: this dataset has episodes 0 to "
                f"{self.episodes - 1}"
            )
        chosen = chosen % self.episodes
        lengths = self.episode_lengths()[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        rows = np.repeat(self.episode_starts[chosen], lengths) + within
        return with_statistics(self._taken(rows, self.truncations[rows], starts))

    def select_rows(self, keep: np.ndarray) -> "Dataset":
        """The dataset of the rows where `keep`, bool `[row]`, is true.

        An episode that loses rows is cut there: what is left of it are several, truncated ones.
        Raises `DataError` if nothing is left.
        """
        rows = np.flatnonzero(keep)
        if rows.size == 0:
            raise DataError("no rows were selected: a dataset needs at least one")
        last = np.append(np.diff(rows) > 1, rows[-1] + 1 < self.size)
        truncations = self.truncations[rows] | (last & ~self.terminals[rows])
        starts = _starts(self.terminals[rows] | truncations)
        return with_statistics(self._taken(rows, truncations, starts))

    def _taken(self, rows: np.ndarray, truncations: np.ndarray, starts: np.ndarray) -> "Dataset":
        """These rows, of which it is known where the episodes are, with statistics as before."""
        taken: dict[str, Any] = {name: getattr(self, name)[rows] for name in COLUMNS}
        for name in OPTIONAL_COLUMNS:
            column = getattr(self, name)
            taken[name] = None if column is None else column[rows]
        taken |= {"truncations": truncations, "episode_starts": starts}
        return dataclasses.replace(self, metadata=dict(self.metadata), **taken)

    def references(self) -> References | None:
        """What normalises the returns of this dataset: its own references, else published ones."""
        stored = self.metadata.get("reference_returns")
        if stored is not None:
            try:
                low, high = (float(value) for value in stored)
            except (TypeError, ValueError, OverflowError):
                low = high = math.nan
            if not np.isfinite([low, high]).all() or low == high:
                raise DataError(
                    f"reference_returns {stored} in the metadata cannot normalise a score: "
                    "they must be two different finite returns, of a random and an expert policy"
                )
            return References(low, high, "stored with the dataset", False)
        for key in () if self.metadata.get("relabelled") else ("environment", "name"):
            if self.metadata.get(key):
                found = published_references(str(self.metadata[key]))
                if found is not None:
                    return found
        return None

    def normalised(self, returns) -> np.ndarray:
        """D4RL-style scores of undiscounted `returns`: 0 is a random policy, 100 an expert.

        Raises `DataError` if no reference returns are known.
        """
        references = self.references()
        if references is None:
            name = self.metadata.get("environment") or self.metadata.get("name") or "this dataset"
            raise DataError(
                f"no reference returns are known for {name}, so scores cannot be normalised: put "
                "the returns of a random and of an expert policy into the metadata as "
                "'reference_returns'"
            )
        return references.normalise(np.asarray(returns, np.float64))

    def fingerprint(self) -> str:
        """A hash of the content (columns, boundaries, spaces), the same wherever it is stored."""
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        total = hashlib.blake2b(digest_size=16)
        for name in (*COLUMNS, "episode_starts"):
            column = np.ascontiguousarray(getattr(self, name))
            total.update(f"{name}{column.dtype.str}{column.shape}".encode())
            total.update(column.reshape(-1).view(np.uint8).data)
        for name in OPTIONAL_COLUMNS:
            column = getattr(self, name)
            if column is not None:
                total.update(name.encode())
                total.update(np.ascontiguousarray(column).view(np.uint8).data)
        action = self.spaces.action
        bounds = (action.low, action.high) if isinstance(action, Box) else action.count
        if isinstance(action, Discrete) and action.labels is not None:
            bounds = action.labels
        total.update(repr((bounds, self.spaces.horizon)).encode())
        return total.hexdigest()

    @classmethod
    def concatenate(cls, datasets: Sequence["Dataset"]) -> "Dataset":
        """The episodes of all `datasets`, one dataset after the other.

        Metadata is kept where all agree; the names of the parts are listed under `parts`. Raises
        `DataError` if there are none or their spaces differ.
        """
        if not datasets:
            raise DataError("there are no datasets to concatenate: give at least one")
        first = datasets[0]
        for number, other in enumerate(datasets[1:], start=1):
            reason = first.spaces.mismatch(other.spaces)
            if reason is not None:
                raise DataError(f"datasets 0 and {number} cannot be concatenated because {reason}")
            if first.metadata.get(ACTION_NAMES) != other.metadata.get(ACTION_NAMES):
                raise DataError(
                    f"datasets 0 and {number} cannot be concatenated because the words of their "
                    f"actions differ ({ACTION_NAMES} in their metadata): number them alike"
                )
        offsets = np.cumsum([0, *(data.size for data in datasets)])
        starts = [data.episode_starts[:-1] + o for data, o in zip(datasets, offsets)]
        metadata = {
            key: value
            for key, value in first.metadata.items()
            if all(data.metadata.get(key) == value for data in datasets)
        }
        metadata |= summed_counts([data.metadata for data in datasets])
        if len(datasets) > 1:
            metadata["parts"] = [str(data.metadata.get("name", "unnamed")) for data in datasets]
        horizons = {data.spaces.horizon for data in datasets}
        chances = [data.log_propensities for data in datasets]
        known = [part for part in chances if part is not None]
        if 0 < len(known) < len(chances):
            remark(metadata, "propensities are not known of all parts, and were left out")
        columns = {
            name: np.concatenate([getattr(data, name) for data in datasets]) for name in COLUMNS
        }
        sure = [
            np.ones(data.size, np.float32)
            if data.action_confidence is None
            else data.action_confidence
            for data in datasets
        ]
        doubtful = any(data.action_confidence is not None for data in datasets)
        return with_statistics(
            cls(
                **columns,
                episode_starts=np.concatenate([*starts, offsets[-1:]]).astype(np.int64),
                spaces=Spaces(
                    observation=first.spaces.observation,
                    action=first.spaces.action,
                    horizon=horizons.pop() if len(horizons) == 1 else None,
                ),
                metadata=metadata,
                log_propensities=np.concatenate(known) if len(known) == len(chances) else None,
                action_confidence=np.concatenate(sure) if doubtful else None,
            )
        )


COLUMNS = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminals",
    "truncations",
)
"""The columns of a dataset: one value or vector per row."""
OPTIONAL_COLUMNS = ("log_propensities", "action_confidence")
"""Those that not every dataset has: one number per row."""


def check_columns(columns: dict[str, np.ndarray], starts: np.ndarray, spaces: Spaces) -> None:
    """Raises `DataError` for columns of the right types and shapes that hold what no dataset does.

    **Arguments:** `columns`: by the names of the fields of `Dataset`; `starts`: its
    `episode_starts`.
    """
    for name in ("observations", "next_observations", "rewards", "actions"):
        _finite(columns[name], name)
    actions = columns["actions"]
    low, high = (0, spaces.action_size - 1) if spaces.discrete else (-1.0, 1.0)
    if actions.min() < low or actions.max() > high:
        raise DataError(f"actions holds a value outside {low} to {high}: write the data again")
    ends = np.flatnonzero(columns["terminals"] | columns["truncations"])
    if not np.array_equal(ends + 1, starts[1:]):
        raise DataError("episodes end elsewhere than where a row is terminal or truncated")


@functools.cache
def _transitions_tree():
    scalar, vector = jnp.zeros(1), jnp.zeros((1, 1))
    flag = jnp.zeros(1, bool)
    return jax.tree.structure(
        Transitions(vector, vector, scalar, vector, flag, flag, vector, scalar)
    )


def with_statistics(dataset: Dataset) -> Dataset:
    """The dataset with the statistics of its spaces computed from its columns."""
    returns, rewards = dataset.episode_returns(), dataset.rewards
    mean = dataset.observations.mean(0, dtype=np.float64)
    squares = sum(((block - mean) ** 2).sum(0) for block in _blocks(dataset.observations))
    statistics = Statistics(
        observation_mean=_single(mean),
        observation_std=_single(np.sqrt(squares / len(dataset.observations))),
        return_low=_single(returns.min()),
        return_high=_single(returns.max()),
        reward_mean=_single(rewards.mean(dtype=np.float64)),
        reward_std=_single(rewards.std(dtype=np.float64)),
        terminal_share=_single(dataset.terminals.mean()),
        return_to_go_mean=_single(np.mean(returns_to_go(rewards, dataset.episode_starts, 1.0))),
    )
    spaces = Spaces(
        observation=dataset.spaces.observation,
        action=dataset.spaces.action,
        horizon=dataset.spaces.horizon,
        statistics=statistics,
    )
    return dataclasses.replace(dataset, spaces=spaces)


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows at a time: in double precision all of them are slow to find room for."""
    for begin in range(0, len(array), _BLOCK):
        yield array[begin : begin + _BLOCK]


def _single(value) -> jax.Array:
    return jnp.asarray(value, jnp.float32)


def add_counts(metadata: dict[str, Any], more: dict[str, Any]) -> None:
    """Adds to what `metadata` counts; whatever else a file may hold there is replaced."""
    for name in COUNTS:
        number = more.get(name, 0)
        if _is_number(number) and number:
            before = metadata.get(name, 0)
            metadata[name] = number + (before if _is_number(before) else 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def lacks_rewards(metadata: dict[str, Any]) -> bool:
    """Whether the data that has this metadata came without rewards: its rewards are all zero."""
    missing = metadata.get("missing")
    return isinstance(missing, list) and "rewards" in missing


def require_rewards(metadata: dict[str, Any], who: str) -> None:
    """Raises `DataError` if the data has no rewards, which `who` learns from or is judged by."""
    if lacks_rewards(metadata):
        raise DataError(
            f"{metadata.get('source') or metadata.get('name') or 'the data'}: {who} needs rewards, "
            "and no column is recognised as them: say which one it is with columns={'rewards': "
            "'NAME'}, or as a command with `--column rewards=NAME`; without "
            "rewards only imitation learns, such as BC"
        )


def require_actions(confidence: np.ndarray | None, metadata: dict[str, Any], who: str) -> None:
    """Raises `DataError` if rows have no action, which `who` learns from or is judged by.

    **Arguments:** `confidence`: the column of a dataset, or of columns on the disk.
    """
    missing = 0 if confidence is None else int(np.count_nonzero(confidence == 0))
    if missing:
        assert confidence is not None
        raise DataError(
            f"{metadata.get('source') or metadata.get('name') or 'the data'}: {missing:,} of "
            f"{len(confidence):,} rows have no action, and {who} needs them: infer them (train "
            "InverseDynamics on this log, then `headwater data label`, in Python hw.label), or "
            "leave these rows out with missing_actions='drop' (`--missing-actions drop`) when the "
            "file is read"
        )


def summed_counts(datasets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the metadata of several datasets count, together."""
    total: dict[str, Any] = {}
    for metadata in datasets:
        add_counts(total, metadata)
    return total


def _starts(last: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.flatnonzero(last) + 1]).astype(np.int64)


def returns_to_go(rewards: np.ndarray, starts: np.ndarray, discount: float) -> np.ndarray:
    """Discounted sum of rewards from each row to the end of its episode, float64 `[row]`.

    **Arguments:** `rewards`: `[row]`; `starts`: `[episode + 1]`, first row of each episode and,
    last, the number of rows; `discount`.
    """
    rewards = rewards.astype(np.float64)
    # Episodes are cut into pieces, all of which are summed at once, and then joined again.
    pieces = np.concatenate([np.arange(a, b, _PIECE) for a, b in itertools.pairwise(starts)])
    pieces = np.append(pieces, starts[-1])
    totals = _returns_within(rewards, pieces, discount)
    powers = discount ** np.arange(_PIECE, 0, -1)
    inside = np.flatnonzero(~np.isin(pieces[1:-1], starts))
    for begin, end in zip(pieces[inside][::-1], pieces[inside + 1][::-1], strict=True):
        totals[begin:end] += powers[begin - end :] * totals[end]
    return totals


def _returns_within(rewards: np.ndarray, starts: np.ndarray, discount: float) -> np.ndarray:
    """The same for short episodes: all of them at once, from each one's last step to its first."""
    lengths = np.diff(starts)
    totals = np.empty_like(rewards)
    order = np.argsort(-lengths, kind="stable")
    last, sorted_lengths = starts[1:][order] - 1, -lengths[order]
    following = np.zeros(lengths.size)
    for back in range(int(lengths.max())):
        alive = int(np.searchsorted(sorted_lengths, -back, side="left"))
        rows = last[:alive] - back
        following = rewards[rows] + discount * following[:alive]
        totals[rows] = following
    return totals


def _numbers(values, column: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{column} is no rectangular array of numbers ({error}): give one row per step, all of "
            "the same shape"
        ) from None
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{column} has type {array.dtype}, which is not a number: convert it "
            "to float32 or int32"
        )
    return array


def _finite(array: np.ndarray, column: str) -> None:
    good = np.isfinite(array)
    if good.all():
        return
    row, *rest = (int(index) for index in np.argwhere(~good)[0])
    place = f", component {rest[0]}" if rest else ""
    count = int(array.size - np.count_nonzero(good))
    others = f" (and {count - 1:,} more such values)" if count > 1 else ""
    raise DataError(
        f"{column} holds {array[(row, *rest)]} at row {row}{place}{others}: every number must be "
        "finite; remove or repair these rows"
    )


def _empty(values, rows: int) -> np.ndarray:
    """The rows that hold nothing but NaN, bool `[row]`."""
    array = np.asarray(values)
    if array.dtype.kind != "f" or array.ndim == 0 or array.shape[0] != rows:
        return np.zeros(rows, bool)
    return np.all(np.isnan(array.reshape(rows, -1)), axis=1)


def _as_float(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def _observations(values, column: str, unless=None, instead=None) -> np.ndarray:
    array = _numbers(values, column)
    if array.ndim == 0:
        raise DataError(f"{column} is a single number: give one row per step")
    array = _as_float(array.reshape(array.shape[0], int(np.prod(array.shape[1:], dtype=int))))
    if array.shape[0] and array.shape[1] == 0:
        raise DataError(f"{column} has rows without components: at least one number is needed")
    if unless is not None and instead is not None and array.shape == instead.shape:
        # What follows a terminal row means nothing and is often written as NaN.
        unusable = unless & ~np.isfinite(array).all(1)
        if unusable.any():
            array = array.copy()
            array[unusable] = instead[unusable]
    _finite(array, column)
    return array


def _one_per_row(values, column: str, rows: int) -> np.ndarray:
    array = _numbers(values, column)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{column} has shape {array.shape}: one number per row is needed")
    _length(array, column, rows)
    return array


def _length(array: np.ndarray, column: str, rows: int) -> None:
    if array.shape[0] != rows:
        raise DataError(
            f"{column} has {array.shape[0]:,} rows but observations has {rows:,}: all columns must "
            "have the same length"
        )


def _scalars(values, column: str, rows: int) -> np.ndarray:
    array = _as_float(_one_per_row(values, column, rows))
    _finite(array, column)
    return array


def _flags(values, column: str, rows: int) -> np.ndarray:
    array = _one_per_row(values, column, rows)
    if array.dtype == bool:
        return array
    wrong = np.flatnonzero((array != 0) & (array != 1))
    if wrong.size:
        raise DataError(
            f"{column} holds {array[wrong[0]]} at row {wrong[0]}: a flag is 0 or 1, false or true"
        )
    return array.astype(bool)


def truncate_at(terminals: np.ndarray, horizon: int) -> np.ndarray:
    """Flags `[row]` of the rows at which a time limit of `horizon` steps cut an episode."""
    if horizon < 1:
        raise DataError(f"horizon is {horizon}: a time limit is at least one step")
    starts = np.concatenate([[0], np.flatnonzero(terminals) + 1])
    starts = starts[starts < terminals.size]
    lengths = np.diff(np.append(starts, terminals.size))
    step = np.arange(1, terminals.size + 1) - np.repeat(starts, lengths)
    return (step % horizon == 0) & ~terminals


class _ActionOptions(NamedTuple):
    """What the user says of actions; see `Dataset.from_arrays`."""

    low: Any
    high: Any
    discrete: bool | None
    size: int | None
    labels: Any
    bounds: str | None

    @property
    def kind(self) -> bool | None:
        """Whether they are discrete, as far as the user says so."""
        if self.size is not None or self.labels is not None:
            return True
        bounded = self.low is not None or self.high is not None or self.bounds is not None
        return False if bounded else self.discrete

    @property
    def usual(self) -> Any:
        """Some action that there surely is."""
        if self.kind:
            return 0 if self.labels is None else self.labels[0]
        return -1.0 if self.low is None else self.low


def remark(metadata: dict[str, Any], sentence: str) -> None:
    """Notes in `metadata` how something was read."""
    reading = metadata.get("reading")
    if not isinstance(reading, dict) or not isinstance(reading.get("notes"), list):
        reading = {"columns": {}, "unused": [], "looks": {}, "ignored": {}, "notes": []}
    metadata["reading"] = {**reading, "notes": [*reading["notes"], sentence]}


def _actions(
    values, rows: int, options: _ActionOptions, metadata: dict[str, Any]
) -> tuple[np.ndarray, Box | Discrete]:
    array = _numbers(values, "actions")
    low, high, discrete, count = options.low, options.high, options.discrete, options.size
    if options.bounds not in (None, "data"):
        raise SpecificationError(f"action_bounds is '{options.bounds}': the only choice is 'data'")
    bounded = low is not None or high is not None or options.bounds is not None
    finite = count is not None or options.labels is not None
    hot = None if discrete is False or (bounded and not finite) else _hot(array, discrete or finite)
    if hot is not None:
        _length(array, "actions", rows)
        size = array.shape[1]
        if count not in (None, size):
            raise DataError(f"actions are one-hot rows of {size}, but action_count is {count}")
        remark(
            metadata,
            f"each row of actions is a single 1 among zeros: read as one of {size} discrete "
            "actions (discrete=False for a continuous vector)",
        )
        array, count, discrete = hot, size if options.labels is None else None, True
        if options.labels is not None:
            array = _labels(options.labels, size)[hot]
    if discrete is None:
        one_each = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
        discrete = finite or (array.dtype.kind in "biu" and one_each and not bounded)
    if discrete:
        if bounded:
            raise DataError("discrete actions have no bounds: leave out action_low and action_high")
        one_each = _one_per_row(array, "actions", rows)
        return _discrete_actions(one_each, count, options.labels, metadata)
    if options.labels is not None:
        raise DataError("action_labels is for discrete actions, but these are declared continuous")
    if count is not None:
        raise DataError("action_count is for discrete actions, but these are declared continuous")
    if array.ndim == 0:
        raise DataError("actions is a single number: give one row per step")
    _length(array, "actions", rows)
    array = _as_float(array.reshape(rows, int(np.prod(array.shape[1:], dtype=int))))
    if array.shape[1] == 0:
        raise DataError("actions has rows without components: at least one number is needed")
    _finite(array, "actions")
    if options.bounds is not None:
        low, high = _data_bounds(array, low, high)
        remark(metadata, "the bounds of the actions are the smallest and the largest in the data")
    space = Box(
        low=_bound(-1.0 if low is None else low, array.shape[1], "action_low"),
        high=_bound(1.0 if high is None else high, array.shape[1], "action_high"),
    )
    lower, upper = np.asarray(space.low, np.float32), np.asarray(space.high, np.float32)
    if np.any(lower >= upper):
        component = int(np.argmax(lower >= upper))
        raise DataError(
            f"action_low is {lower[component]:g} and action_high {upper[component]:g} for "
            f"component {component}: the lower bound must be below the upper"
        )
    slack = _ROUNDING * (upper - lower)
    outside = (array < lower - slack) | (array > upper + slack)
    if outside.any():
        row, component = (int(index) for index in np.argwhere(outside)[0])
        affected = int(np.count_nonzero(outside.any(1)))
        remedy = (
            "correct the bounds or clip these actions"
            if bounded
            else "if actions are in other units, declare their bounds with action_low and "
            f"action_high (here they span {array.min():g} to {array.max():g}), or take those of "
            "the data with action_bounds='data', in Python, in a file NAME.columns.toml beside the "
            "data, or with a command's `--action-low`, `--action-high` or `--action-bounds data`"
        )
        raise DataError(
            f"actions holds {array[row, component]:g} at row {row}, component {component}, outside "
            f"the bounds {lower[component]:g} to {upper[component]:g} (so do {affected:,} of "
            f"{rows:,} rows): {remedy}"
        )
    canonical = np.empty_like(array)
    for block, to in zip(_blocks(array), _blocks(canonical), strict=True):
        # In double precision, which is exact for the usual bounds.
        np.clip(
            space.to_canonical(block.astype(np.float64)), -1.0, 1.0, out=to, casting="same_kind"
        )
    return canonical, space


def _bound(value, size: int, name: str) -> tuple[float, ...]:
    array = _numbers(value, name).astype(np.float64).reshape(-1)
    if array.size not in (1, size):
        raise DataError(
            f"{name} has {array.size} components but actions have {size}: give one number, or one "
            "per component"
        )
    if not np.isfinite(array).all():
        raise DataError(f"{name} is {array.tolist()}: bounds of actions must be finite")
    return tuple(float(bound) for bound in np.broadcast_to(array, (size,)))


def _data_bounds(array: np.ndarray, low, high) -> tuple[Any, Any]:
    """The smallest and the largest value of each component, where the user gave no bounds."""
    lower, upper = array.min(0).astype(np.float64), array.max(0).astype(np.float64)
    constant = np.flatnonzero(lower == upper)
    if constant.size and (low is None or high is None):
        raise DataError(
            f"component {constant[0]} of the actions is always {lower[constant[0]]:g}, which "
            "bounds nothing: leave it out, or declare action_low and action_high"
        )
    return (lower if low is None else low), (upper if high is None else high)


def _hot(array: np.ndarray, required: bool) -> np.ndarray | None:
    """The place of the single 1 in each row, if every row is so."""
    if array.ndim != 2 or array.shape[1] < 2 or not array.shape[0]:
        return None
    if not np.all((array == 0) | (array == 1)) or not np.all(array.sum(1) == 1):
        return None
    places = array.argmax(1)
    # Rows that are all alike may be anything.
    return places if required or np.ptp(places) > 0 else None


def _labels(given: Any, size: int | None = None) -> np.ndarray:
    labels = _numbers(given, "action_labels").reshape(-1)
    whole = labels.size and np.all(labels == np.floor(labels)) and np.all(np.abs(labels) < 2**31)
    if not whole or np.unique(labels).size != labels.size:
        raise DataError("action_labels must be different whole numbers, one for each action")
    if size is not None and labels.size != size:
        raise DataError(f"there are {labels.size} action_labels for {size} actions")
    return labels.astype(np.int64)


def _discrete_actions(
    array: np.ndarray, count: int | None, given: Any, metadata: dict[str, Any]
) -> tuple[np.ndarray, Discrete]:
    _finite(array, "actions")
    broken = np.flatnonzero(array != np.floor(array)) if array.dtype.kind == "f" else np.array([])
    if broken.size:
        raise DataError(
            f"actions holds {array[broken[0]]:g} at row {broken[0]}: discrete actions are whole "
            "numbers; for continuous actions say discrete=False"
        )
    if given is not None:
        labels = _labels(given, count)
        wrong = np.flatnonzero(~np.isin(array, labels))
        if wrong.size:
            raise DataError(
                f"actions holds {int(array[wrong[0]])} at row {wrong[0]}, which is none of the "
                f"{labels.size} action_labels: correct them"
            )
    else:
        labels = _inferred_labels(array, count, metadata)
    if labels is None:
        count = int(array.max()) + 1 if count is None else count
        if count > _MOST_ACTIONS:
            raise DataError(
                f"there would be {count:,} discrete actions: correct action_count, give "
                "action_labels, or say discrete=False if they are no set"
            )
        return array.astype(np.int32), Discrete(count)
    order = np.argsort(labels)
    places = order[np.searchsorted(labels[order], array)]
    return places.astype(np.int32), Discrete.of(labels.tolist())


def _inferred_labels(
    array: np.ndarray, count: int | None, metadata: dict[str, Any]
) -> np.ndarray | None:
    """The numbers of actions where nobody gives them; `None` for 0, 1, 2 and so on."""
    low, high = int(array.min()), int(array.max())
    span = high - low + 1
    if count is not None:
        if low >= 0 and high < count:
            return None
        if span != count:
            wrong = np.flatnonzero((array < 0) | (array >= count))
            raise DataError(
                f"actions holds {int(array[wrong[0]])} at row {wrong[0]}, but discrete actions are "
                f"numbered 0 to {count - 1}: renumber them, correct action_count, or give "
                "action_labels"
            )
        remark(metadata, f"actions are numbered {low} to {high}")
        return np.arange(low, high + 1)
    found = np.unique(array).astype(np.int64)
    if span > _FEW_ACTIONS and 2 * found.size < span:
        if found.size > _MOST_ACTIONS:
            raise DataError(
                f"there would be {found.size:,} discrete actions: say discrete=False if they are "
                "no set"
            )
        remark(
            metadata,
            f"the actions are the {found.size:,} numbers that occur between {low} and {high}; say "
            "action_labels or action_count if there are others",
        )
        return found
    if low < 0 or (low == 1 and found.size == high > 1):
        remark(
            metadata,
            f"actions are numbered {low} to {high}; say action_labels or action_count if there are "
            "others",
        )
        return np.arange(low, high + 1)
    return None
