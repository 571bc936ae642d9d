"""What Q-learning with optimism costs beside planning."""

from typing import Any

from headwater.evidence.claim import Claim, Criterion, Finding
from headwater.evidence.finite_regret import (
    SMALL,
    SMOKE,
    compare,
    curves,
    numbers,
    ratio,
    sparse_process,
)
from headwater.methods.tabular.online.optimistic_q_learning import OptimisticQLearning
from headwater.methods.tabular.online.ucbvi import UCBVI


def _planning_beats_q_learning(seed: int, *, sizes: Any, episodes: int, **scale: Any) -> Finding:
    budget = float(episodes)
    methods = {
        "UCBVI": UCBVI(num_episodes=budget, value_cap="remaining"),
        "UCB-H": OptimisticQLearning(num_episodes=budget, value_cap="remaining"),
        "UCB-B": OptimisticQLearning("bernstein", num_episodes=budget, value_cap="remaining"),
    }
    found, chosen = compare(
        methods, lambda i: sparse_process(i, **sizes), seed=seed, episodes=episodes, **scale
    )
    criteria = [
        Criterion(f"regret of {name} over UCBVI's", ratio(found, name, "UCBVI"), at_least=1.0)
        for name in ("UCB-H", "UCB-B")
    ]
    return Finding(tuple(criteria), numbers(found, chosen), curves(found), "episodes", "regret")


CLAIMS = (
    Claim(
        name="planning-beats-q-learning",
        statement="Optimistic planning has less regret than optimistic Q-learning with either of "
        "its bonuses, all multipliers of the bonus tuned by the same rule.",
        methods=("UCBVI", "OptimisticQLearning"),
        paper="jin2018q",
        where="a consequence of table 1: its bounds exceed UCBVI's by factors of the horizon",
        scales={"smoke": SMOKE, "small": SMALL},
        experiment=_planning_beats_q_learning,
    ),
)
