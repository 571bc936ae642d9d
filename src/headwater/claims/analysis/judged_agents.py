"""BASALT's protocol: agents of tasks without a reward, ranked by what a judge says of episodes."""

import numpy as np

from headwater.analysis.rankings.bradley_terry import bradley_terry
from headwater.analysis.rankings.judges import (
    Performance,
    SimulatedJudge,
    check_length,
    compare_agents,
)
from headwater.analysis.rankings.true_skill import true_skill
from headwater.evidence.claim import Claim, Criterion, Finding, mean_of

_SIZE, _LONGEST = 6, 40
_TASKS = {
    "reach the far corner": ((5, 5),),
    "visit two corners": ((0, 5), (5, 0)),
    "visit three places": ((2, 3), (5, 1), (1, 5)),
}
"""Cells of a grid to visit in this order before stopping, which no agent is told."""
_AGENTS = {"random": 0.0, "poor": 0.35, "fair": 0.6, "good": 0.85}
"""How often the demonstrator whom an agent clones takes a step that leads on."""
_MOVES = np.asarray([(1, 0), (-1, 0), (0, 1), (0, -1), (0, 0)])
_STOP = 4


_ERRORS, _LENGTH_WEIGHT, _CONTROLS = 0.1, 0.05, 40
"""Of the judges: share of errors, what a step is worth to one who goes by length, and how many
pairs are shown to find that out."""


def _score(performance: Performance) -> float:
    """What the judges go by, and nobody else knows."""
    assert isinstance(performance.shown, float)
    return performance.shown


def _wanted(place: np.ndarray, visited: int, targets: tuple) -> int:
    """The move that leads on: along the first axis first, and to stop when all is visited."""
    if visited == len(targets):
        return _STOP
    along = np.asarray(targets[visited]) - place
    if along[0]:
        return 0 if along[0] > 0 else 1
    return 2 if along[1] > 0 else 3


def _episode(policy, targets: tuple, random: np.random.Generator):
    """What was done in each state, and what is to be judged: how much was achieved in how long."""
    place, visited, taken = np.zeros(2, int), 0, []
    for _ in range(_LONGEST):
        action = policy(place, visited)
        taken.append((*place, visited, action))
        if action == _STOP:
            break
        place = np.clip(place + _MOVES[action], 0, _SIZE - 1)
        if visited < len(targets) and tuple(place) == targets[visited]:
            visited += 1
    stopped = taken[-1][-1] == _STOP and visited == len(targets)
    return taken, Performance(len(taken), float(visited + stopped - 0.01 * len(taken)))


def _agent(skill: float, targets: tuple, demonstrations: int, random: np.random.Generator):
    """A policy: random, or cloned from demonstrations of this skill by counting."""
    counts = np.full((_SIZE, _SIZE, len(targets) + 1, 5), 0.05)

    def demonstrate(place, visited):
        if random.random() < skill:
            return _wanted(place, visited, targets)
        return int(random.integers(4))

    for _ in range(demonstrations if skill else 0):
        for x, y, visited, action in _episode(demonstrate, targets, random)[0]:
            counts[x, y, visited, action] += 1.0
    chances = np.cumsum(counts / counts.sum(-1, keepdims=True), axis=-1)
    return lambda place, visited: min(
        int(np.searchsorted(chances[*place, visited], random.random())), _STOP
    )


def _judged_agents(
    seed: int, *, repeats: int, comparisons: int, episodes: int, demonstrations: int
) -> Finding:
    random = np.random.default_rng(seed)
    same = {"Bradley and Terry": [], "TrueSkill": []}
    found_out, by_fit = {"fair": [], "by length": []}, {"fair": [], "by length": []}
    apart, within, agents = [], [], len(_AGENTS)
    for _ in range(repeats):
        for targets in _TASKS.values():
            performances = []
            for skill in _AGENTS.values():
                agent = _agent(skill, targets, demonstrations, random)
                performances.append([_episode(agent, targets, random)[1] for _ in range(episodes)])
            hidden = [np.mean([_score(p) for p in found]) for found in performances]
            order = np.argsort(-np.asarray(hidden)).tolist()

            fair = SimulatedJudge(_score, _ERRORS, random)
            taken_in = SimulatedJudge(_score, _ERRORS, random, length_weight=_LENGTH_WEIGHT)
            judged = compare_agents(performances, fair, comparisons, random=random)
            ranking, skills = bradley_terry(judged, agents), true_skill(judged, agents)
            same["Bradley and Terry"].append(ranking.order.tolist() == order)
            same["TrueSkill"].append(skills.order.tolist() == order)
            apart.append(ranking.difference(order[0], order[-1])[1] > 0.0)
            # What the strengths come to with very many comparisons of the same episodes.
            limit = compare_agents(performances, fair, 30 * comparisons, random=random)
            known = bradley_terry(limit, agents).strength
            within.append((ranking.low <= known) & (known <= ranking.high))
            biased = compare_agents(performances, taken_in, comparisons, random=random)
            for judge, said, name in ((fair, judged, "fair"), (taken_in, biased, "by length")):
                check = check_length(performances, judge, _CONTROLS, longer_by=10, random=random)
                found_out[name].append(check.low > 0.5)
                bias = bradley_terry(said, agents, by_length=True).bias
                by_fit[name].append(bias is not None and bias[1] > 0.0)
    share = {name: mean_of(np.asarray(found, float)) for name, found in same.items()}
    return Finding(
        (
            Criterion("share of rankings that are the hidden one (Bradley and Terry)",
                      share["Bradley and Terry"], at_least=0.9),
            Criterion("share of rankings that are the hidden one (TrueSkill)",
                      share["TrueSkill"], at_least=0.9),
            Criterion("share of intervals of strengths that hold",
                      mean_of(np.asarray(within, float).mean(1)), at_least=0.9),
            Criterion("share of tournaments in which best and worst are told apart",
                      mean_of(np.asarray(apart, float)), at_least=0.9),
            Criterion("share of judges of length that are found out",
                      mean_of(np.asarray(found_out["by length"], float)), at_least=0.9),
            Criterion("share of fair judges called judges of length",
                      mean_of(np.asarray(found_out["fair"], float)), at_most=0.1),
        ),
        {
            f"called so by a term of length in the fit: {name}": mean_of(np.asarray(found, float))
            for name, found in by_fit.items()
        },
    )  # fmt: skip


CLAIMS = (
    Claim(
        "judged-agents-are-ranked-as-they-are",
        "In three tasks on a grid whose success no agent is told, four agents (random, and cloned "
        "from demonstrators of three skills) are ranked as their hidden scores rank them in at "
        "least nine tenths of the tournaments of 200 comparisons of their episodes by a judge who "
        "errs one time in ten, by Bradley and Terry and by TrueSkill; intervals of 95 % hold in at "
        "least nine tenths of the cases; and a judge who prefers longer episodes is found out in "
        "nine tenths, a fair one in at most a tenth, by 40 pairs that differ in idle steps alone. "
        "No people and no Minecraft: this is about the protocol alone.",
        (),
        "shah2021minerl",
        "its evaluation, with simulated judges and agents",
        {
            "smoke": {"repeats": 1, "comparisons": 30, "episodes": 10, "demonstrations": 5},
            "small": {"repeats": 50, "comparisons": 200, "episodes": 60, "demonstrations": 50},
        },
        _judged_agents,
    ),
)
