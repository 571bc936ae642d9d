"""How a policy stands to the behaviour that logged what it learned from, by that log alone."""

import dataclasses
from typing import Any, Literal

import numpy as np

from headwater.api.compare import select
from headwater.api.run import Run
from headwater.core.method import AbstractPolicy
from headwater.datasets.dataset import Dataset
from headwater.datasets.metadata import lacks_rewards
from headwater.evaluation.estimators.selection import Candidate
from headwater.evaluation.statistics import short

Verdict = Literal["better", "below", "not told apart", "not judged"]

_ESTIMATOR = "mis"
"""It needs no probabilities and fits no network, so that a line after training costs seconds."""
_MOST_ROWS = 50_000


@dataclasses.dataclass(frozen=True)
class Standing:
    """A policy beside the behaviour, in discounted return from the logged first observations.

    **Arguments:** `policy`, `behaviour`: what is estimated of each; `episodes`: that it is judged
    from.
    """

    policy: Candidate
    behaviour: Candidate
    episodes: int

    @property
    def verdict(self) -> Verdict:
        """By the interval of the advantage on the same episodes, at 95 %."""
        if self.policy.refused is not None:
            return "not judged"
        low, high = self.policy.advantage_low, self.policy.advantage_high
        if low is not None and low > 0.0:
            return "better"
        return "below" if high is not None and high < 0.0 else "not told apart"

    @property
    def sentence(self) -> str:
        """One line for whoever has just trained."""
        policy, name = self.policy, "the behaviour that logged the data"
        if policy.refused is not None:
            return f"beside {name}: not judged, {policy.refused}"
        own, logged, more = policy.value, self.behaviour.value, policy.advantage
        assert own is not None and logged is not None and more is not None
        relation = {
            "better": f"better than {name}",
            "below": f"below {name}",
            "not told apart": f"not told apart from {name}",
        }[self.verdict]
        low, high = policy.advantage_low, policy.advantage_high
        between = ""
        if low is not None and high is not None:
            between = f" [{short(low)}, {short(high)}]"
        return (
            f"{relation}: {short(own)} against {short(logged)} discounted, "
            f"a difference of {short(more)}{between} "
            f"({_ESTIMATOR} over {self.episodes:,} episodes of its own log, without acting)"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return {
            "verdict": self.verdict,
            "estimator": _ESTIMATOR,
            "episodes": self.episodes,
            "policy": dataclasses.asdict(self.policy),
            "behaviour": dataclasses.asdict(self.behaviour),
            "sentence": self.sentence,
        }


def beside_behaviour(run: Run, data: Dataset | None = None, *, seed: int = 0) -> Standing | None:
    """How the policies of a run stand to the behaviour of its log, averaged over seeds.

    The estimate is of the rows that were learned from, which flatters; `hw.evaluate` and
    `hw.select` judge from other rows, with other estimators. Of a large log, random episodes of
    about 50,000 rows are taken.

    **Arguments:** `run`; `data`: the log (default: what the run was just trained on); `seed`: of
    the episodes taken and of everything resampled.

    `None` where there is nothing to compare: no log, no policy on observations, or a log in which
    rewards or actions are missing, or actions were inferred.
    """
    data = run.log if data is None else data
    if not isinstance(data, Dataset) or not isinstance(run.method, AbstractPolicy):
        return None
    if lacks_rewards(data.metadata) or not data.logged_actions.all():
        return None
    if data.size > _MOST_ROWS:
        order = np.random.default_rng(seed).permutation(data.episodes)
        rows = np.cumsum(data.episode_lengths()[order])
        data = data.select_episodes(order[: max(1, int(np.searchsorted(rows, _MOST_ROWS)))])
    found = select([run], data, estimator=_ESTIMATOR, seed=seed, progress=False)
    policy, behaviour = found.candidates
    return Standing(policy, behaviour, found.episodes)
