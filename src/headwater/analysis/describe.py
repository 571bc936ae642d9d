"""What is in a dataset, and what can be expected of it."""

import dataclasses
from typing import Any

import numpy as np

from headwater.analysis.coverage import duplicate_rows, saco, unique_pairs
from headwater.core.errors import DataError
from headwater.datasets.dataset import Dataset
from headwater.datasets.formats.minari_format import discontinuities
from headwater.datasets.metadata import lacks_rewards
from headwater.datasets.reading import dropped_sentence, reading_rows
from headwater.datasets.transform import (
    advantage_weights,
    effective_sample_size,
    positive_sided_variance,
    return_weights,
    scaled_to_unit,
)

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""The quantiles in which distributions are told."""

# Where "high" begins. The papers draw no line; these are ours, and the advice says "expect".
_HIGH_QUALITY = 0.75
_HIGH_COVERAGE = 0.5
_HIGH_UPSIDE = 0.03
# Beyond this share of distinct rows the bins are too fine to tell coverage from size.
_SATURATED = 0.95
_ACTION_BINS = 20
_AT_BOUND = 0.999


@dataclasses.dataclass(frozen=True)
class Description:
    """What `describe` found; plain values only.

    **Arguments:** quantiles are at `QUANTILES`; `return_quantiles` undiscounted; `scores`: mean and
    quantiles normalised by `references` (random, expert), if there are any; `actions`: support of
    the logged actions (canonical); `unique_pairs`: distinct binned state–action pairs; `saco`: the
    same relative to a reference replay; `trajectory_quality` (TQ): mean return on the scale from a
    random policy (0) to the best one found online (1); `upside`: positive-sided variance of the
    returns scaled to [0, 1], `positive_sided_variance` the same unscaled;
    `effective_return_weights` and `effective_advantage_weights`: effective share of the rows under
    RW and AW; `propensities`: how probable the logged actions were (densities of canonical
    actions), if that was logged; `action_confidence`: which actions were logged, inferred or are
    missing, if that is known; `inferred_rewards`: what inferred the rewards and from what, if they
    were not logged; `reading`: which columns were used for what, as names and values;
    `notes`: what looks odd; `suggestions`: what kind of method to expect to work.
    """

    name: str
    environment: str | None
    episodes: int
    transitions: int
    observation_size: int
    action_size: int
    discrete: bool
    terminal_episodes: int
    truncated_episodes: int
    length_mean: float
    length_quantiles: list[float]
    return_mean: float
    return_std: float
    return_quantiles: list[float]
    references: dict[str, Any] | None
    score_mean: float | None
    score_quantiles: list[float] | None
    reward_mean: float
    reward_std: float
    reward_low: float
    reward_high: float
    reward_zero_share: float
    actions: dict[str, Any]
    observation_low: list[float]
    observation_high: list[float]
    observation_mean: list[float]
    observation_std: list[float]
    unique_pairs: float
    saco: float | None
    trajectory_quality: float | None
    trajectory_quality_basis: str | None
    positive_sided_variance: float
    upside: float
    effective_return_weights: float
    effective_advantage_weights: float
    duplicate_rows: int
    propensities: dict[str, Any] | None
    action_confidence: dict[str, float] | None
    inferred_rewards: dict[str, Any] | None
    fingerprint: str
    reading: list[tuple[str, str]]
    notes: list[str]
    suggestions: list[str]

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table, in reading order."""
        kind = "discrete" if self.discrete else "continuous"
        rows = [
            ("dataset", self.name),
            ("environment", self.environment or "not recorded"),
            ("episodes", f"{self.episodes:,}"),
            ("transitions", f"{self.transitions:,}"),
            ("observation / action", f"{self.observation_size} / {self.action_size} {kind}"),
            (
                "episodes ended",
                f"{self.terminal_episodes:,} terminal, {self.truncated_episodes:,} truncated",
            ),
            ("episode length", _spread(self.length_mean, self.length_quantiles)),
            ("return", _spread(self.return_mean, self.return_quantiles)),
        ]
        if self.references is not None and self.score_mean is not None:
            mark = " (indicative)" if self.references["indicative"] else ""
            rows.append(
                (f"normalised score{mark}", _spread(self.score_mean, self.score_quantiles or []))
            )
            rows.append(
                (
                    "references",
                    f"random {self.references['random']:.6g}, expert "
                    f"{self.references['expert']:.6g}, from {self.references['source']}",
                )
            )
        rows.append(
            (
                "reward",
                f"mean {self.reward_mean:.4g} ± {self.reward_std:.4g}, {self.reward_low:.4g} to "
                f"{self.reward_high:.4g}, {self.reward_zero_share:.0%} zero",
            )
        )
        if self.inferred_rewards is not None:
            rows.append(("rewards known", _inferred_sentence(self.inferred_rewards)))
        rows.extend(_action_rows(self.actions))
        if self.action_confidence is not None:
            rows.append(("actions known", _confidence_sentence(self.action_confidence)))
        rows.append(("propensities", _propensity_sentence(self.propensities, self.discrete)))
        rows.append(("distinct state–action pairs", f"{self.unique_pairs:,.0f}"))
        rows.append(
            (
                "coverage (SACo)",
                "needs a reference replay" if self.saco is None else f"{self.saco:.3f}",
            )
        )
        quality = self.trajectory_quality
        rows.append(
            (
                "quality (TQ)",
                "needs returns of a random and an online policy"
                if quality is None
                else f"{quality:.3f} ({self.trajectory_quality_basis})",
            )
        )
        rows.append(
            (
                "upside (PSV)",
                f"{self.positive_sided_variance:.4g}; {self.upside:.4f} of returns in [0, 1]",
            )
        )
        rows.append(
            (
                "effective share of rows",
                f"RW {self.effective_return_weights:.1%}, "
                f"AW {self.effective_advantage_weights:.1%}",
            )
        )
        rows.append(("duplicate rows", f"{self.duplicate_rows:,}"))
        rows.extend(row for row in self.reading if row[0] != "dropped")
        rows.extend(("note", note) for note in self.notes)
        rows.extend(("expect", suggestion) for suggestion in self.suggestions)
        return rows


def describe(
    dataset: Dataset,
    *,
    reference: Dataset | None = None,
    random_return: float | None = None,
    online_return: float | None = None,
) -> Description:
    """Describes `dataset`.

    TQ and SACo are those of Schweighofer et al. 2022 (arXiv 2111.04714), PSV and the weightings
    those of Hong et al. 2023 (arXiv 2306.13085).

    **Arguments:** `reference`: the replay of a policy trained online on the same task, for SACo;
    `random_return`, `online_return`: mean return of a random policy, and the best mean return
    found online, for TQ (default: the reference returns that normalise scores). Raises `DataError`
    if the reference is of another task or the two returns are equal.
    """
    if reference is not None:
        reason = dataset.spaces.mismatch(reference.spaces)
        if reason is not None:
            raise DataError(f"the reference replay does not fit the dataset: {reason}")
    returns, lengths = dataset.episode_returns(), dataset.episode_lengths()
    last = dataset.episode_starts[1:] - 1
    references = dataset.references()
    quality, basis = _quality(dataset, returns, random_return, online_return)
    coverage = None if reference is None else saco(dataset, reference)
    pairs = unique_pairs(dataset)
    saturated = pairs >= _SATURATED * dataset.size
    upside = positive_sided_variance(scaled_to_unit(returns))
    scores = None if references is None else references.normalise(returns)
    statistics = dataset.spaces.statistics
    assert statistics is not None
    weights = [np.ones(dataset.size)] * 2
    if not lacks_rewards(dataset.metadata):
        weights = [return_weights(dataset), advantage_weights(dataset)]
    shares = [effective_sample_size(weight) / dataset.size for weight in weights]
    terminal = int(np.count_nonzero(dataset.terminals[last]))
    environment = dataset.metadata.get("environment")
    return Description(
        name=str(dataset.metadata.get("name", "unnamed")),
        environment=None if environment is None else str(environment),
        episodes=dataset.episodes,
        transitions=dataset.size,
        observation_size=dataset.spaces.observation_size,
        action_size=dataset.spaces.action_size,
        discrete=dataset.spaces.discrete,
        terminal_episodes=terminal,
        truncated_episodes=dataset.episodes - terminal,
        length_mean=float(lengths.mean()),
        length_quantiles=_quantiles(lengths),
        return_mean=float(returns.mean()),
        return_std=float(returns.std()),
        return_quantiles=_quantiles(returns),
        references=None if references is None else dict(references._asdict()),
        score_mean=None if scores is None else float(scores.mean()),
        score_quantiles=None if scores is None else _quantiles(scores),
        reward_mean=float(dataset.rewards.mean(dtype=np.float64)),
        reward_std=float(dataset.rewards.std(dtype=np.float64)),
        reward_low=float(dataset.rewards.min()),
        reward_high=float(dataset.rewards.max()),
        reward_zero_share=float(np.mean(dataset.rewards == 0)),
        actions=action_support(_with_actions(dataset)),
        observation_low=dataset.observations.min(0).tolist(),
        observation_high=dataset.observations.max(0).tolist(),
        observation_mean=np.asarray(statistics.observation_mean).tolist(),
        observation_std=np.asarray(statistics.observation_std).tolist(),
        unique_pairs=pairs,
        saco=coverage,
        trajectory_quality=quality,
        trajectory_quality_basis=basis,
        positive_sided_variance=positive_sided_variance(returns),
        upside=upside,
        effective_return_weights=shares[0],
        effective_advantage_weights=shares[1],
        duplicate_rows=duplicate_rows(dataset),
        propensities=_propensities(dataset),
        action_confidence=_confidence(dataset),
        inferred_rewards=_inferred_rewards(dataset.metadata),
        fingerprint=dataset.fingerprint(),
        notes=_notes(dataset, saturated),
        reading=reading_rows(dataset.metadata),
        suggestions=_suggestions(
            quality, None if saturated else coverage, upside, dataset.episodes
        ),
    )


def action_support(dataset: Dataset) -> dict[str, Any]:
    """How much of the action space was tried.

    For discrete actions `counts`, `entropy` (nats) and `entropy_share` (of the largest possible);
    for continuous ones, per dimension and canonical, `mean`, `std`, `at_bounds` (share of rows
    within 0.1 % of a bound) and `bins_visited` (share of 20 equal bins with at least one row).
    """
    if dataset.spaces.discrete:
        count = dataset.spaces.action_size
        counts = np.bincount(dataset.actions, minlength=count)
        shares = counts[counts > 0] / dataset.size
        entropy = float(-np.sum(shares * np.log(shares))) + 0.0
        return {
            "counts": counts.tolist(),
            "entropy": entropy,
            "entropy_share": entropy / float(np.log(count)) if count > 1 else 1.0,
        }
    actions = dataset.actions
    bins = np.floor((actions + 1.0) * (0.5 * _ACTION_BINS)).clip(0, _ACTION_BINS - 1).astype(int)
    counts = [np.bincount(column, minlength=_ACTION_BINS) for column in bins.T]
    visited = [np.count_nonzero(count) / _ACTION_BINS for count in counts]
    return {
        "mean": actions.mean(0, dtype=np.float64).tolist(),
        "std": actions.std(0, dtype=np.float64).tolist(),
        "at_bounds": np.mean(np.abs(actions) >= _AT_BOUND, axis=0).tolist(),
        "bins_visited": visited,
    }


def _with_actions(dataset: Dataset) -> Dataset:
    """The rows that have an action, if there are any."""
    known = dataset.known_actions
    return dataset if known.all() or not known.any() else dataset.select_rows(known)


def _inferred_rewards(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """The record that `transform.infer_rewards` left; files may hold anything in its place."""
    found = metadata.get("inferred_rewards")
    return found if isinstance(found, dict) and isinstance(found.get("by"), str) else None


def _inferred_sentence(record: dict[str, Any]) -> str:
    before = "in place of logged ones" if record.get("logged") else "none was logged"
    of = f" from {record['comparisons']}" if record.get("comparisons") else ""
    return f"all inferred by {record['by']}{of}; {before}"


def _confidence(dataset: Dataset) -> dict[str, float] | None:
    """Shares of rows whose action was logged, inferred or is missing, and the median confidence."""
    sure = dataset.action_confidence
    if sure is None:
        return None
    between = sure[(sure > 0) & (sure < 1)]
    return {
        "logged": float(np.mean(sure == 1)),
        "inferred": between.size / sure.size,
        "missing": float(np.mean(sure == 0)),
        "median_inferred": float(np.median(between)) if between.size else 0.0,
    }


def _confidence_sentence(found: dict[str, float]) -> str:
    sentence = f"{found['logged']:.1%} logged, {found['inferred']:.1%} inferred"
    if found["inferred"]:
        sentence += f" (median confidence {found['median_inferred']:.2f})"
    return f"{sentence}, {found['missing']:.1%} missing"


def _propensities(dataset: Dataset) -> dict[str, Any] | None:
    """Smallest, median and largest propensity, if they were logged."""
    logs = dataset.log_propensities
    if logs is None:
        return None
    low, middle, high = (float(value) for value in np.quantile(np.exp(logs), (0.0, 0.5, 1.0)))
    return {"low": low, "median": middle, "high": high}


def _propensity_sentence(found: dict[str, Any] | None, discrete: bool) -> str:
    if found is None:
        return "not logged"
    kind = "probability" if discrete else "density"
    return (
        f"{kind} of the logged action {found['low']:.3g} to {found['high']:.3g}, median "
        f"{found['median']:.3g}"
    )


def _quality(
    dataset: Dataset, returns: np.ndarray, low: float | None, high: float | None
) -> tuple[float | None, str | None]:
    basis = "given returns"
    if low is None or high is None:
        references = dataset.references()
        if references is None:
            return None, None
        low = references.random if low is None else low
        high = references.expert if high is None else high
        basis = f"reference returns, {references.source}"
    if low == high:
        raise DataError(
            f"the returns of the random and the online policy are both {low}: TQ needs two "
            "different ones"
        )
    return float((returns.mean() - low) / (high - low)), basis


def serious_notes(dataset: Dataset) -> list[str]:
    """What makes it doubtful that anything can be learned, one sentence each; often there is none.

    `describe` says so among its notes, and `train` before it begins.
    """
    notes = []
    dropped = dropped_sentence(dataset.metadata)
    if dropped is not None:
        notes.append(dropped)
    broken = discontinuities(dataset)
    if broken.size:
        notes.append(
            f"in {broken.size:,} rows (first: {broken[0]}) the next observation is not that of the "
            "next row of the episode: the ends of some episodes may be missing"
        )
    if not dataset.terminals.any():
        notes.append("no row is terminal: every episode ends by truncation")
    rewarded = not lacks_rewards(dataset.metadata)
    if rewarded and dataset.episodes > 1 and np.ptp(dataset.episode_returns()) == 0:
        notes.append("all episodes have the same return")
    if not rewarded:
        notes.append("the data has no rewards: only imitation, such as BC, learns from it")
    elif not dataset.rewards.any():
        notes.append("all rewards are zero")
    missing = int(np.count_nonzero(~dataset.known_actions))
    if missing:
        notes.append(
            f"{missing:,} of {dataset.size:,} rows have no action: InverseDynamics infers them "
            "from the others, and nothing else learns from these rows"
        )
    inferred = dataset.known_actions & ~dataset.logged_actions
    if inferred.any():
        notes.append(
            f"the actions of {np.count_nonzero(inferred):,} of {dataset.size:,} rows were inferred "
            "and not logged"
        )
    if dataset.spaces.discrete:
        counts = np.bincount(
            dataset.actions[dataset.known_actions], minlength=dataset.spaces.action_size
        )
        never = np.flatnonzero(counts == 0)
        if never.size:
            notes.append(
                f"of {counts.size:,} actions {never.size:,} never occur in the data: "
                f"{_first(np.asarray(dataset.spaces.action.from_canonical(never)))}"
            )
    return notes


def _notes(dataset: Dataset, saturated: bool) -> list[str]:
    notes = serious_notes(dataset)
    if saturated:
        notes.append(
            "nearly every row is a state–action pair of its own, as is usual with many continuous "
            "dimensions: SACo then tells the size of the data, not its coverage"
        )
    constant = np.flatnonzero(np.ptp(dataset.observations, axis=0) == 0)
    if constant.size:
        notes.append(f"observation components {_first(constant)} never change")
    return notes


def _first(numbers: np.ndarray) -> str:
    shown = ", ".join(str(number) for number in numbers[:8])
    return shown + (f" and {numbers.size - 8} more" if numbers.size > 8 else "")


def _suggestions(
    quality: float | None, coverage: float | None, upside: float, episodes: int
) -> list[str]:
    found = []
    if quality is None and coverage is None:
        found.append(
            "without reference returns (for TQ) and a telling SACo nothing can be said of which "
            "family suits: start with a constrained method (IQL, TD3+BC) and compare it with BC"
        )
    good = quality is not None and quality >= _HIGH_QUALITY
    broad = coverage is not None and coverage >= _HIGH_COVERAGE
    if good:
        found.append(
            f"TQ {quality:.2f} is high: behaviour cloning should come close to the best methods"
        )
    if broad:
        found.append(
            f"SACo {coverage:.2f} is high: unconstrained off-policy methods (DQN, SAC-N/EDAC) have "
            "the coverage that they need"
        )
    if good or broad:
        found.append("constrained methods (TD3+BC, IQL, CQL) should work as well")
    elif quality is not None and coverage is not None:
        found.append(
            f"TQ {quality:.2f} and SACo {coverage:.2f} are both low: expect little from any method "
            "without new samples; constrained methods are the safest start for adapting online"
        )
    elif quality is not None:
        found.append(
            f"TQ {quality:.2f} is not high: expect behaviour cloning to stay at that level, and "
            "constrained methods (TD3+BC, IQL, CQL) to need broad data to do better"
        )
    elif coverage is not None:
        found.append(
            f"SACo {coverage:.2f} is low: expect unconstrained off-policy methods to overestimate; "
            "constrained ones (TD3+BC, IQL, CQL) or, if the episodes are good, BC are safer"
        )
    if upside >= _HIGH_UPSIDE and episodes > 1:
        found.append(
            f"some episodes are far better than the mean (PSV {upside:.3f} of returns in [0, 1]): "
            "drawing by RW or AW weights, or BC on the best tenth, is worth a try (where outcomes "
            "are random, this also favours luck)"
        )
    return found


def _quantiles(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(values, QUANTILES)]


def _spread(mean: float, quantiles: list[float]) -> str:
    low, _, lower, middle, upper, _, high = quantiles
    return (
        f"mean {mean:,.5g}; {low:,.5g} to {high:,.5g}, "
        f"quartiles {lower:,.5g}, {middle:,.5g}, {upper:,.5g}"
    )


def _action_rows(actions: dict[str, Any]) -> list[tuple[str, str]]:
    if "counts" in actions:
        counts = ", ".join(f"{count:,}" for count in actions["counts"][:12])
        more = ", …" if len(actions["counts"]) > 12 else ""
        return [
            ("action counts", counts + more),
            ("action entropy", f"{actions['entropy_share']:.0%} of the largest possible"),
        ]
    return [
        (
            "action spread",
            f"standard deviation {min(actions['std']):.3f} to {max(actions['std']):.3f} of a range "
            "of 2",
        ),
        (
            "action support",
            f"{np.mean(actions['bins_visited']):.0%} of bins visited, "
            f"{np.mean(actions['at_bounds']):.1%} at a bound",
        ),
    ]
