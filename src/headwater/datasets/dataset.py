"""Logged experience in memory: flat columns and episode boundaries."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.errors import DataError
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces, Statistics, read_parts
from headwater.datasets.actions.canonical import ActionOptions, canonical_actions
from headwater.datasets.actions.confidence import filled, read_confidence
from headwater.datasets.actions.propensities import canonical_log_propensities, log_volume
from headwater.datasets.episodes.returns import returns_to_go, starts_of, truncate_at
from headwater.datasets.metadata import ACTION_NAMES, add_counts, remark, summed_counts
from headwater.datasets.references import References, published_references
from headwater.datasets.values import (
    blocks,
    check_finite,
    empty_rows,
    flags,
    observations_of,
    scalars,
)


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
        With `next_observations`, this happens where that of a truncated row is all NaN. A terminal
        row keeps its own observation as a placeholder that methods ignore.

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
        observations = observations_of(observations, "observations")
        rows = observations.shape[0]
        if rows == 0:
            raise DataError("the data has no rows: at least one transition is needed")
        if horizon is not None and horizon < 1:
            raise DataError(f"horizon is {horizon}: a time limit is at least one step")
        rewards = scalars(rewards, "rewards", rows)
        terminals = flags(terminals, "terminals", rows)
        if truncations is not None:
            truncations = flags(truncations, "truncations", rows)
        elif horizon is not None:
            truncations = truncate_at(terminals, horizon)
        else:
            truncations = np.zeros(rows, bool)
        details = dict(metadata or {})
        options = ActionOptions(
            action_low, action_high, discrete, action_count, action_labels, action_bounds
        )
        confidence = read_confidence(actions, action_confidence, missing_actions, rows)
        actions = filled(actions, confidence, options.kind, options.usual)
        actions, action_space = canonical_actions(actions, rows, options, details)
        if confidence is not None:
            actions[confidence == 0] = 0
        chances = canonical_log_propensities(propensities, log_propensities, actions, action_space)
        if not terminals[-1] and not truncations[-1]:
            truncations = truncations.copy()
            truncations[-1] = True
        dropped, lost = 0, np.zeros(0)
        cut = truncations & ~terminals
        if next_observations is not None:
            unknown = cut & empty_rows(next_observations, rows)
            following = observations_of(
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
            starts_of(terminals | truncations),
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
        starts = starts_of(self.terminals[rows] | truncations)
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
        check_finite(columns[name], name)
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
    squares = sum(((block - mean) ** 2).sum(0) for block in blocks(dataset.observations))
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


def _single(value) -> jax.Array:
    return jnp.asarray(value, jnp.float32)
