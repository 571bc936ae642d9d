"""Exploration that has to be deep."""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from headwater.core.feed import Feed
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.environments.tabular.finite import deep_sea
from headwater.evaluation.statistics import frequency
from headwater.evidence.claim import Claim, Criterion, Finding
from headwater.evidence.finite_regret import GRID, compare, curves, learn_each, numbers
from headwater.methods.tabular.offline.pessimistic_value_iteration import PessimisticValueIteration
from headwater.methods.tabular.online.posterior_sampling import PosteriorSampling
from headwater.methods.tabular.online.ucbvi import UCBVI


class EpsilonGreedy(
    AbstractMethod[FiniteProblem, Episodes, Any],
    AbstractTablePolicy[Any],
):
    """The baseline without directed exploration: best in the empirical model, at times random."""

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "a baseline, not of a paper", "epsilon-greedy certainty equivalence"
    )

    random_share: float = 0.1
    planner: PessimisticValueIteration = PessimisticValueIteration(penalty_scale=0.0)

    def init(self, problem: FiniteProblem, *, key: Any) -> Any:
        return self.planner.init(problem, key=key)

    def update(self, state: Any, data: Episodes, *, key: Any) -> Any:
        return self.planner.update(state, data, key=key)

    def policy(self, state: Any, *, explore: bool) -> Float[Array, "horizon state action"]:
        greedy = self.planner.policy(state, explore=False)
        if not explore:
            return greedy
        return (1.0 - self.random_share) * greedy + self.random_share / greedy.shape[-1]


def _deep_sea(seed: int, *, size: int, episodes: int, runs: int, grid: Sequence[float]) -> Finding:
    budget = float(episodes)
    optimistic = {
        "UCBVI": UCBVI(num_episodes=budget, value_cap="remaining"),
        "posterior sampling": PosteriorSampling(),
    }
    make = lambda i: deep_sea(size=size, key=jax.random.key(i))
    found, chosen = compare(optimistic, make, seed=seed, episodes=episodes, runs=runs, grid=grid)
    seas = [make(seed * runs + i) for i in range(runs)]
    for share in (0.1, 0.3, 1.0):
        found[f"{share:g} random"] = learn_each(
            eqx.tree_at(lambda m: m.random_share, EpsilonGreedy(), jnp.asarray(share)),
            seas,
            episodes=episodes,
            seed=seed,
        )
    # All but the treasure is worth at most 0.01.
    dived = {name: int(np.sum(x.final < 0.5)) for name, x in found.items()}
    random = max(count for name, count in dived.items() if name not in optimistic)
    what = "share of seas in which the treasure is known at last, "
    criteria = [
        Criterion(what + name, frequency(dived[name], runs), at_least=0.7) for name in optimistic
    ]
    best = Criterion(what + "best random share", frequency(random, runs), at_most=0.5)
    kept = {**numbers(found, chosen), "found": dived}
    return Finding((*criteria, best), kept, curves(found), "episodes", "regret")


CLAIMS = (
    Claim(
        name="optimism-dives-deep",
        statement="In a deep sea, where random actions reach the treasure once in 2^size episodes, "
        "optimism and posterior sampling find it in at least 0.7 of the runs, and epsilon-greedy "
        "exploration in at most half, whatever its share of random actions.",
        methods=("UCBVI", "PosteriorSampling"),
        paper="osband2019deep",
        where="section 4 (the task), and a consequence of the regret bounds of these methods",
        scales={
            "smoke": {"size": 7, "episodes": 100, "runs": 6, "grid": GRID[3:]},
            "small": {
                "size": 11,
                "episodes": 500,
                "runs": 12,
                "grid": GRID[2:],
            },
        },
        experiment=_deep_sea,
    ),
)
