"""Hiring agents who are not known: what they tell and what their efforts cost is learned first."""

import itertools
from typing import NamedTuple

import numpy as np

from headwater.analysis.hiring.hiring import (
    Hiring,
    Mechanism,
    best_response,
    checked,
    optimal_mechanism,
    value_to_principal,
)
from headwater.core.errors import SpecificationError


class Hired(NamedTuple):
    """What became of so many rounds.

    **Arguments:** `regret`: by how much the principal's expected utility falls short of the best
    mechanism's, over all rounds; `explored`: rounds before the last mechanism; `mechanism`: that
    one; `obeyed`: whether all agents obey it; `believed`: what was learned.
    """

    regret: float
    explored: int
    mechanism: Mechanism
    obeyed: bool
    believed: Hiring


def hire_unknown_agents(
    hiring: Hiring,
    rounds: int,
    *,
    exploration: float = 1.0,
    slack: float = 1.0,
    margin: float = 0.02,
    payment_cap: float = 5.0,
    seed: int = 0,
) -> Hired:
    r"""Explores for about $T^{2/3}$ of T rounds, and commits to a mechanism.

    For each profile of efforts there is a scoring rule of each agent's own report that is known to
    induce it. The first half of the exploration plays these and counts what is reported in each
    state. In the second half a rule between those of two efforts is bisected until the agent
    changes between them, which his reports tell; the difference in what he is paid there is that
    of the costs. The linear program of what was counted, with a slack of order $T^{-1/3}$, is the
    mechanism from then on. While she explores, the principal is taken to decide as if she knew the
    truth, so that the regret counts less than not knowing it would cost.

    **Arguments:** `hiring`: the truth, by which agents respond, of two efforts each; `rounds`: T;
    `exploration`: multiplies $T^{2/3}$; `slack`: multiplies $T^{-1/3}$; `margin`: by which the
    rules that are known induce their efforts; `payment_cap`; `seed`.

    Raises `SpecificationError` if agents have another number of efforts, or a profile cannot be
    induced by scoring rules, or if there are too few rounds to explore in.
    """
    prior, signals, costs, utility = checked(hiring)
    agents = len(costs)
    if costs.shape[1] != 2:
        raise SpecificationError(
            f"each agent has {costs.shape[1]} efforts: costs are bisected between two of them"
        )
    random = np.random.default_rng(seed)
    budget = exploration * rounds ** (2.0 / 3.0)
    profiles = list(np.ndindex(*(2,) * agents))
    each, steps = int(budget / 2 / len(profiles)), int(np.ceil(np.log2(rounds) / 3.0)) + 1
    tried = int(budget / 2 / (steps * agents))
    if min(each, tried) < 2:
        raise SpecificationError(f"{rounds:,} rounds are too few to explore in: give more")
    rules = {
        profile: optimal_mechanism(
            hiring, payments="own", profile=profile, payment_cap=payment_cap, slack=margin
        )
        for profile in profiles
    }
    joint = signals * prior
    counts = np.full_like(joint, 1e-3)
    earned = 0.0
    for profile in profiles:
        drawn = random.multinomial(each, joint[profile].ravel())
        counts[profile] += drawn.reshape(joint[profile].shape)
        earned += each * value_to_principal(hiring, rules[profile])
    everywhere = counts.sum(axis=tuple(range(2 * agents)))
    of_states = counts.sum(axis=tuple(range(agents, 2 * agents)), keepdims=True)
    believed = Hiring(
        everywhere / everywhere.sum(), counts / of_states, np.zeros_like(costs), utility
    )
    idle, found = (0,) * agents, np.zeros_like(costs)
    for agent in range(agents):
        busy = tuple(int(i == agent) for i in range(agents))
        low, high = 0.0, 1.0
        for _ in range(steps):
            share = 0.5 * (low + high)
            rule = _between(rules[idle], rules[busy], share, idle, busy)
            response = best_response(hiring, rule, agent, 0)
            told = _reports(hiring, rule, agent, idle, response.effort)
            seen = random.multinomial(tried, told.ravel() / told.sum())
            likely = [_likelihood(believed, seen, agent, idle, effort) for effort in (0, 1)]
            earned += tried * value_to_principal(hiring, rule)
            low, high = (low, share) if likely[1] > likely[0] else (share, high)
        rule = _between(rules[idle], rules[busy], 0.5 * (low + high), idle, busy)
        paid = [_pay(believed, rule, agent, idle, effort) for effort in (0, 1)]
        found[agent, 1] = max(paid[1] - paid[0], 0.0)
    believed = believed._replace(costs=found)
    mechanism = optimal_mechanism(
        believed, payment_cap=payment_cap, slack=slack * rounds ** (-1.0 / 3.0)
    )
    explored = each * len(profiles) + tried * steps * agents
    earned += (rounds - explored) * value_to_principal(hiring, mechanism, believed)
    best = optimal_mechanism(hiring, payment_cap=payment_cap).value
    obeyed = all(
        best_response(hiring, mechanism, agent, asked).gain <= 1e-9
        for agent in range(agents)
        for asked in range(2)
    )
    return Hired(rounds * best - earned, explored, mechanism, obeyed, believed)


def _between(
    one: Mechanism, other: Mechanism, share: float, idle: tuple[int, ...], busy: tuple[int, ...]
) -> Mechanism:
    """Recommends `idle`, and pays a share of the other's payments and the rest of the first's."""
    paid = np.zeros_like(one.paid)
    for agent in range(len(paid)):
        mixed = (1.0 - share) * one.paid[(agent, *idle)] + share * other.paid[(agent, *busy)]
        paid[(agent, *idle)] = mixed
    return Mechanism(one.efforts, paid, float("nan"))


def _by_report(hiring: Hiring, rule: Mechanism, agent: int, idle: tuple[int, ...], effort: int):
    """Own signals and states `[signal, state]` after an effort, and what reports bring there."""
    agents = len(idle)
    done = tuple(effort if i == agent else b for i, b in enumerate(idle))
    joint = np.asarray(hiring.signals)[done] * np.asarray(hiring.prior)
    others = tuple(i for i in range(agents) if i != agent)
    # A rule of one's own report pays the same whatever the others say.
    paid = rule.paid[(agent, *idle)][tuple(slice(None) if i == agent else 0 for i in range(agents))]
    return joint.sum(axis=others), paid


def _reports(hiring: Hiring, rule: Mechanism, agent: int, idle: tuple[int, ...], effort: int):
    """How probable reports and states are `[report, state]`, where the best is reported."""
    seen, paid = _by_report(hiring, rule, agent, idle, effort)
    worth = seen @ paid.T
    honest = np.diagonal(worth)
    best = np.where(worth.max(axis=1) > honest + 1e-9, worth.argmax(axis=1), np.arange(len(worth)))
    told = np.zeros_like(seen)
    np.add.at(told, best, seen)
    return told


def _likelihood(
    believed: Hiring, seen: np.ndarray, agent: int, idle: tuple[int, ...], effort: int
) -> float:
    """Of reports and states that were counted `[report · state]`, whatever he makes of his signals.

    An agent who is all but indifferent may report anything, so what he would report is not guessed.
    """
    done = tuple(effort if i == agent else b for i, b in enumerate(idle))
    joint = np.asarray(believed.signals)[done] * np.asarray(believed.prior)
    signals = joint.sum(axis=tuple(i for i in range(len(idle)) if i != agent))
    count, found = len(signals), []
    for reports in itertools.product(range(count), repeat=count):
        told = np.full_like(signals, 1e-9)
        np.add.at(told, list(reports), signals)
        found.append(float(seen @ np.log(told.ravel())))
    return max(found)


def _pay(hiring: Hiring, rule: Mechanism, agent: int, idle: tuple[int, ...], effort: int) -> float:
    """What the best reports after an effort bring."""
    seen, paid = _by_report(hiring, rule, agent, idle, effort)
    return float((seen @ paid.T).max(axis=1).sum())
