"""What is in a log of decisions: how often and how probably each arm was chosen, what it earned."""

import dataclasses
from typing import Any

import numpy as np

from headwater.core.problems.arms import Arms
from headwater.core.records import Pulls

_SHOWN = 12
"""Arms that a table lists."""


@dataclasses.dataclass(frozen=True)
class PullsDescription:
    """What `describe_pulls` found; plain values only.

    **Arguments:** `rounds`; `arms`: that there are; `context_size`, `feature_size`: numbers of a
    round and of an arm; `pulls`, `rewards`: of each arm, how often it was chosen and what it earned
    in the mean (`None` where it never was); `reward_mean`, `reward_low`, `reward_high`;
    `propensity_low`, `propensity_median`, `propensity_high`: of the arms that were chosen;
    `effective_rounds`: as many as say as much of the policy that takes all arms alike; `uniform`,
    `uniform_error`: what that policy earns, by self-normalised importance sampling, and its
    standard error; `reading`: which columns were used for what, as names and values; `notes`: what
    looks odd; `suggestions`: what to do with it.
    """

    name: str
    rounds: int
    arms: int
    context_size: int
    feature_size: int
    pulls: list[int]
    rewards: list[float | None]
    reward_mean: float
    reward_low: float
    reward_high: float
    propensity_low: float
    propensity_median: float
    propensity_high: float
    effective_rounds: float
    uniform: float
    uniform_error: float
    reading: list[tuple[str, str]]
    notes: list[str]
    suggestions: list[str]

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table, in reading order."""
        rows = [
            ("log of decisions", self.name),
            ("rounds / arms", f"{self.rounds:,} / {self.arms:,}"),
            ("context / features of an arm", f"{self.context_size} / {self.feature_size}"),
            (
                "reward",
                f"mean {self.reward_mean:.4g}, {self.reward_low:.4g} to {self.reward_high:.4g}",
            ),
        ]
        often = np.argsort(-np.asarray(self.pulls), kind="stable")[:_SHOWN]
        for arm in often:
            earned = self.rewards[arm]
            mean = "never chosen" if earned is None else f"mean reward {earned:.4g}"
            rows.append((f"arm {arm}", f"{self.pulls[arm] / self.rounds:.1%} of rounds, {mean}"))
        if self.arms > _SHOWN:
            rows.append(("", f"and {self.arms - _SHOWN:,} more arms, chosen less often"))
        rows.append(
            (
                "propensities",
                f"{self.propensity_low:.4g} to {self.propensity_high:.4g}, median "
                f"{self.propensity_median:.4g}",
            )
        )
        rows.append(
            (
                "all arms alike would earn",
                f"{self.uniform:.4g} ± {self.uniform_error:.2g}, as {self.effective_rounds:,.0f} "
                "rounds of its own would say",
            )
        )
        rows.extend(self.reading)
        rows.extend(("note", note) for note in self.notes)
        rows.extend(("expect", suggestion) for suggestion in self.suggestions)
        return rows


def describe_pulls(
    data: Pulls,
    problem: Arms,
    *,
    name: str = "",
    used: dict[str, list[str]] | None = None,
    unused: list[str] | None = None,
) -> PullsDescription:
    """Describes logged rounds of a bandit.

    **Arguments:** `used`: names of the columns that played each role, and `unused` of the others,
    where the log was read from a file.
    """
    arm, reward, propensity = (np.asarray(x) for x in (data.arm, data.reward, data.propensity))
    reward, propensity = reward.astype(np.float64), propensity.astype(np.float64)
    pulls = np.bincount(arm, minlength=problem.arms)
    total = np.bincount(arm, weights=reward, minlength=problem.arms)
    weight = 1.0 / (problem.arms * propensity)
    uniform = float(np.sum(weight * reward) / np.sum(weight))
    error = float(np.sqrt(np.sum((weight * (reward - uniform)) ** 2)) / np.sum(weight))
    effective = float(np.sum(weight) ** 2 / np.sum(weight**2))
    notes = _notes(pulls, reward, propensity, weight, problem)
    reading = [(f"read as {role}", _listed(names)) for role, names in (used or {}).items()]
    if unused:
        reading.append(("not used", _listed(unused)))
    contextual = problem.context_size or problem.feature_size
    live = "LinUCB" if contextual else "UCB1"
    suggestions = [
        "`headwater train CRM` learns a policy from these rounds as a whole, and `headwater "
        "evaluate RUN --data` judges it on others",
        f"`headwater train {live}` goes through them in their order, and learns on from new ones",
    ]
    return PullsDescription(
        name=name,
        rounds=len(arm),
        arms=problem.arms,
        context_size=problem.context_size,
        feature_size=problem.feature_size,
        pulls=pulls.tolist(),
        rewards=[float(t / n) if n else None for t, n in zip(total, pulls)],
        reward_mean=float(reward.mean()),
        reward_low=float(reward.min()),
        reward_high=float(reward.max()),
        propensity_low=float(propensity.min()),
        propensity_median=float(np.median(propensity)),
        propensity_high=float(propensity.max()),
        effective_rounds=effective,
        uniform=uniform,
        uniform_error=error,
        reading=reading,
        notes=notes,
        suggestions=suggestions,
    )


def _notes(pulls, reward, propensity, weight, problem: Arms) -> list[str]:
    notes = []
    never = np.flatnonzero(pulls == 0)
    if len(never):
        which = ", ".join(map(str, never[:8])) + (" …" if len(never) > 8 else "")
        notes.append(f"never chosen, so that nothing is known of them: arms {which}")
    if np.all(reward == reward[0]):
        notes.append(f"every reward is {reward[0]:g}: there is nothing to learn from")
    if np.all(propensity == 1.0):
        notes.append(
            "every propensity is 1: the logged policy never tried another arm, so that no other "
            "policy can be judged from this log"
        )
    # Weights of arms drawn by these propensities are 1 in the mean, whatever the propensities.
    mean, deviation = float(weight.mean()), float(weight.std() / np.sqrt(len(weight)))
    if not len(never) and abs(mean - 1.0) > 5.0 * deviation + 1e-3:
        notes.append(
            f"the propensities do not fit how often arms were chosen: 1 / (arms × propensity) is "
            f"{mean:.3g} ± {deviation:.1g} in the mean instead of 1; is it the probability of the "
            "arm that was chosen?"
        )
    if weight.max() > 0.05 * weight.sum() and len(weight) > 100:
        notes.append(
            f"one round counts for {weight.max() / weight.sum():.0%} of all when arms are taken "
            "alike: clip the weights (`--max-weight`)"
        )
    return notes


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
