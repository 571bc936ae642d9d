"""What a log shows of who acted in it and of what can be learned: numbers that advice rests on."""

import dataclasses
from typing import Any

import numpy as np

from headwater.datasets.dataset import Dataset
from headwater.datasets.metadata import lacks_rewards
from headwater.datasets.reading import ROLE_OF_LOOKS
from headwater.datasets.transform import positive_sided_variance, scaled_to_unit

_ROWS = 1_000
"""Rows that are compared with each other; of more, so many at random."""
_NEIGHBOURS = 16
_BEST = 0.1
"""The share of the episodes that is called the best."""
_FEWEST_FOR_HIDDEN = 100
"""Rows without which nothing is said of what observations hide."""
_LEFT_OPEN = 0.1
"""Of the variance of a change, what must be open for the step before to tell of it."""


@dataclasses.dataclass(frozen=True)
class Measures:
    """What is measured of a log; plain numbers only.

    **Arguments:** `rows`, `episodes`; `rows_per_number`: rows for each component of the observation
    and of the action (for each action, if they are discrete); `length`: mean steps of an episode,
    `single_steps`: 1 if every episode is a single step, else 0; `terminal_share`: of episodes that
    end by themselves; `rewarded`: 1 if rewards tell episodes apart, 0 if there are none or all are
    alike; `missing_rewards`: 1 if there are none; `zero_share`: of rewards; `upside`: variance of
    returns above the mean, scaled to [0, 1]; `best_gain`: how far the mean return of the best tenth
    lies above the mean, in standard deviations; `agreement`: how much alike actions are where
    observations are, from 0 (uniformly random) to 1 (always the same), `best_agreement`: the same
    within the best tenth; `support`: how much of the actions was tried near an observation, from 0
    to 1, which uniformly random ones reach; `effect`: share of the variance of what follows a row
    (its rewards to go) that its action explains among rows with observations alike; `propensities`:
    1 if probabilities of the logged actions were read, or a column looks like them; `hidden`: how
    much of what an observation and its action leave open of the next observation the step before
    them tells, from 0 to 1, of the component of which it tells most: about 0 where observations are
    states, and much where they hide a velocity, say.
    """

    rows: int
    episodes: int
    rows_per_number: float
    length: float
    single_steps: float
    terminal_share: float
    rewarded: float
    missing_rewards: float
    zero_share: float
    upside: float
    best_gain: float
    agreement: float
    best_agreement: float
    support: float
    effect: float
    propensities: float
    hidden: float

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return dataclasses.asdict(self)


def measure(dataset: Dataset, *, seed: int = 0) -> Measures:
    """What `dataset` shows. At most 1,000 rows are compared, drawn by `seed`."""
    draw = np.random.default_rng(seed)
    lengths, returns = dataset.episode_lengths(), dataset.episode_returns()
    spread = float(returns.std())
    best = _best_rows(dataset, returns)
    every = draw.permutation(dataset.size)[:_ROWS]
    chosen = draw.permutation(best)[:_ROWS]
    seen = _standardised(dataset.observations)
    near = _nearest(seen[every], dataset.episode_of_row[every] if dataset.episodes > 4 else None)
    near_best = _nearest(seen[chosen], None)
    actions, count = dataset.actions, dataset.spaces.action_size
    numbers = dataset.spaces.observation_size + count
    last = dataset.episode_starts[1:] - 1
    to_go = dataset.returns_to_go(1.0)
    top = np.sort(returns)[-max(1, int(_BEST * returns.size)) :]
    rewarded = not lacks_rewards(dataset.metadata) and not _alike(dataset)
    return Measures(
        rows=dataset.size,
        episodes=dataset.episodes,
        rows_per_number=dataset.size / numbers,
        length=float(lengths.mean()),
        single_steps=float(lengths.max() == 1),
        terminal_share=float(np.mean(dataset.terminals[last])),
        rewarded=float(rewarded),
        missing_rewards=float(lacks_rewards(dataset.metadata)),
        zero_share=float(np.mean(dataset.rewards == 0)),
        upside=positive_sided_variance(scaled_to_unit(returns)),
        best_gain=float((top.mean() - returns.mean()) / spread) if spread > 0 else 0.0,
        agreement=_agreement(actions[every], near, count, dataset.spaces.discrete),
        best_agreement=_agreement(actions[chosen], near_best, count, dataset.spaces.discrete),
        support=_support(actions[every], near, count, dataset.spaces.discrete),
        effect=_effect(actions[every], to_go[every], near, dataset.spaces.discrete),
        propensities=float(_propensities(dataset)),
        hidden=_hidden(dataset, draw),
    )


def _alike(dataset: Dataset) -> bool:
    """Whether rewards tell no behaviour from another: none but zeros, or one that never ends."""
    if np.ptp(dataset.rewards) > 0:
        return False
    return not dataset.rewards.any() or not dataset.terminals.any()


def _best_rows(dataset: Dataset, returns: np.ndarray) -> np.ndarray:
    count = max(1, int(_BEST * dataset.episodes))
    best = np.argsort(-returns, kind="stable")[:count]
    return np.flatnonzero(np.isin(dataset.episode_of_row, best))


def _standardised(observations: np.ndarray) -> np.ndarray:
    values = observations.astype(np.float64)
    spread = values.std(0)
    return (values - values.mean(0)) / np.where(spread > 0, spread, 1.0)


def _nearest(seen: np.ndarray, episode: np.ndarray | None) -> np.ndarray:
    """The rows with the nearest observations, `[row, neighbour]`, -1 where there are too few.

    **Arguments:** `episode`: `[row]`, of which a row's own is left out, since what follows each
    other is alike for other reasons.
    """
    rows = len(seen)
    squares = np.sum(seen**2, axis=1)
    far = squares[:, None] + squares - 2 * seen @ seen.T
    own = np.eye(rows, dtype=bool) if episode is None else episode[:, None] == episode
    far[own] = np.inf
    count = min(_NEIGHBOURS, rows - 1)
    if count < 1:
        return np.full((rows, 1), -1)
    # Of equally near rows the first ones, whatever the last bits of a processor's products.
    found = np.argsort(far.round(9), axis=1, kind="stable")[:, :count]
    found[~np.isfinite(np.take_along_axis(far, found, 1))] = -1
    return found


def _agreement(actions: np.ndarray, near: np.ndarray, count: int, discrete: bool) -> float:
    known = near >= 0
    if not known.any():
        return 0.0
    if discrete:
        same = float(np.mean((actions[near] == actions[:, None])[known]))
        chance = 1 / count
        return max(0.0, (same - chance) / (1 - chance)) if count > 1 else 1.0
    # Half the mean square of a difference is a variance; 1/3 is that of uniform actions.
    square = np.mean((actions[near] - actions[:, None]) ** 2, axis=2)[known]
    return float(np.clip(1 - square.mean() / 2 * 3, 0.0, 1.0))


def _support(actions: np.ndarray, near: np.ndarray, count: int, discrete: bool) -> float:
    if discrete:
        tried = np.zeros((len(actions), count), bool)
        tried[np.arange(len(actions)), actions] = True
        rows, places = np.nonzero(near >= 0)
        tried[rows, actions[near[rows, places]]] = True
        # Of many actions a few rows hold a part only, whoever acts.
        most = 1 - (1 - 1 / count) ** (near.shape[1] + 1)
        return float(min(1.0, tried.mean() / most))
    known = np.all(near >= 0, axis=1)
    if not known.any():
        return 0.0
    spread = actions[near[known]].std(1)
    return float(np.clip(spread * np.sqrt(3), 0.0, 1.0).mean())


def _effect(actions: np.ndarray, to_go: np.ndarray, near: np.ndarray, discrete: bool) -> float:
    """What rows with the same action (or the nearest ones) tell beyond all rows nearby."""
    known = np.all(near >= 0, axis=1)
    if not known.any() or near.shape[1] < 4:
        return 0.0
    beside, values = near[known], to_go[near[known]]
    own, returns_to_go = actions[known], to_go[known]
    if discrete:
        alike = actions[beside] == own[:, None]
    else:
        far = np.sum((actions[beside] - own[:, None]) ** 2, axis=2)
        alike = far <= np.quantile(far, 0.25, axis=1, keepdims=True)
    enough = alike.sum(1) >= 2
    if enough.sum() < 20:
        return 0.0
    alike, values, returns_to_go = alike[enough], values[enough], returns_to_go[enough]
    count = alike.sum(1)
    # What a mean of n values misses by is 1 + 1/n of their variance, of which there is to be told.
    same = np.sum(values * alike, 1) / count
    within = np.mean((returns_to_go - same) ** 2 / (1 + 1 / count))
    total = np.mean((returns_to_go - values.mean(1)) ** 2 / (1 + 1 / values.shape[1]))
    return float(np.clip(1 - within / total, 0.0, 1.0)) if total > 0 else 0.0


def _hidden(dataset: Dataset, draw: np.random.Generator) -> float:
    """What the step before tells of the change that follows, beyond a row's own observation."""
    first = np.isin(np.arange(dataset.size), dataset.episode_starts[:-1])
    rows = draw.permutation(np.flatnonzero(~first & ~dataset.terminals))[:_ROWS]
    if len(rows) < _FEWEST_FOR_HIDDEN:
        return 0.0
    acted = dataset.actions[[rows, rows - 1]]
    if dataset.spaces.discrete:
        acted = np.eye(dataset.spaces.action_size)[acted]
    acted = _standardised(acted.reshape(2 * len(rows), -1)).reshape(2, len(rows), -1)
    seen, earlier, following = (
        observed.astype(np.float64)
        for observed in (
            dataset.observations[rows],
            dataset.observations[rows - 1],
            dataset.next_observations[rows],
        )
    )
    now = np.concatenate([_standardised(seen), acted[0]], axis=1)
    # As a change: where steps are small, two observations are too much alike to tell it.
    before = np.concatenate([now, _standardised(seen - earlier), acted[1]], axis=1)
    change = _standardised(following - seen)
    episode = dataset.episode_of_row[rows] if dataset.episodes > 4 else None

    def missed(seen: np.ndarray) -> np.ndarray:
        near = _nearest(seen, episode)[:, : _NEIGHBOURS // 2]
        known = np.all(near >= 0, axis=1)
        return np.mean((change[near[known]].mean(1) - change[known]) ** 2, axis=0)

    alone, after = missed(now), missed(before)
    # Of what hardly anything is left open, the rest says nothing.
    open_still = alone >= _LEFT_OPEN
    return float(np.max(1 - after[open_still] / alone[open_still], initial=0.0))


def _propensities(dataset: Dataset) -> bool:
    reading = dataset.metadata.get("reading")
    looks = reading.get("looks", {}) if isinstance(reading, dict) else {}
    roles = [ROLE_OF_LOOKS.get(what) for what in looks.values()]
    return dataset.log_propensities is not None or "propensities" in roles
