"""What to pay several agents who gather information at a cost that nobody else sees."""

import itertools
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from headwater.analysis.registry import analysis
from headwater.core.errors import DataError, SpecificationError
from headwater.core.fields import check_choice

Payments = Literal["joint", "own"]
"""By all recommendations and reports and the state, or by one's own report and the state alone."""


class Hiring(NamedTuple):
    """A principal who decides under uncertainty, and agents who may find out more.

    **Arguments:** `prior`: of each state of the world `[state]`; `signals`: how probable the
    signals of all agents are, given the efforts of all and the state
    `[*effort of each agent, *signal of each agent, state]`; `costs`: of each effort to each agent
    `[agent, effort]`; `utility`: of the principal `[decision, state]`.
    """

    prior: Any
    signals: Any
    costs: Any
    utility: Any


class Mechanism(NamedTuple):
    """Which efforts are recommended how often, and what is paid for reports.

    **Arguments:** `efforts`: how often each profile is recommended `[*effort]`; `paid`: to each
    agent `[agent, *effort, *signal, state]`, times how often that profile is recommended; `value`:
    the principal's utility less what she pays, where all obey and report what they saw.
    """

    efforts: Float[np.ndarray, "*effort"]
    paid: Float[np.ndarray, "agent *rest"]
    value: float


class Response(NamedTuple):
    """What an agent does who is recommended an effort: exerts this one, and reports `report[s]`
    after signal s; `gain`: what he has of it over obeying, times how often he is asked."""

    effort: int
    report: np.ndarray
    gain: float


@analysis(paper="cacciamani2024online")
def optimal_mechanism(
    hiring: Hiring,
    *,
    payments: str = "joint",
    profile: Any = None,
    payment_cap: float = 5.0,
    slack: float = 0.0,
) -> Mechanism:
    r"""The mechanism that is worth most to the principal among those in which agents obey.

    A linear program in how often each profile is recommended, $\mu(b)$, and in the products of that
    and the payments. The product of agent $i$ who is recommended $b_i$ must be at least what he
    gets by any other effort followed by the best report after each signal. An agent sees his own
    recommendation alone, while payments may depend on all of them and on all reports: agents are
    played off against each other, which no fixed profile can.

    **Arguments:** `hiring`; `payments`: one of `Payments`; `profile`: recommend only this one, an
    effort for each agent; `payment_cap`: of one payment, since the best may be reached in the limit
    only; `slack`: by how much an effort other than the cheapest has to be better than what the
    agent might do instead, and an honest report after it than another one.

    Raises `DataError` for what is no such problem, and `SpecificationError` where no mechanism
    makes agents obey.
    """
    from scipy import sparse
    from scipy.optimize import linprog

    check_choice(payments, Payments, "payments")
    prior, signals, costs, utility = checked(hiring)
    agents, joint = len(costs), signals * prior
    efforts = joint.shape[:agents]
    mixed = np.arange(np.prod(efforts)).reshape(efforts)
    size, paid = mixed.size, []
    for agent in range(agents):
        column = _columns(joint.shape, agents, agent if payments == "own" else None)
        paid.append(size + column)
        size += int(column.max()) + 1
    bounds: list[tuple[float | None, float | None]] = [(0.0, 1.0)] * mixed.size
    if profile is not None:
        bounds = [(0.0, float(at == mixed[tuple(profile)])) for at in range(mixed.size)]
    bounds += [(0.0, None)] * (size - mixed.size)
    constraints = _Constraints()
    for agent in range(agents):
        own = agents - 1 + agent
        for asked, done in itertools.product(range(efforts[agent]), repeat=2):
            columns, often = (np.take(c, asked, axis=agent) for c in (paid[agent], mixed))
            kinds = joint.shape[agents + agent]
            best = size + np.arange(kinds)
            size += kinds
            bounds += [(None, None)] * kinds
            margin = slack if asked > 0 else 0.0
            more = costs[agent, asked] - costs[agent, done] + (margin if done != asked else 0.0)
            constraints.at_most_zero(
                (columns, -np.take(joint, asked, axis=agent)), (best, 1.0), (often, more)
            )
            seen = np.take(joint, done, axis=agent)
            for signal, report in itertools.product(range(kinds), repeat=2):
                lied = margin / kinds if done == asked and signal != report else 0.0
                constraints.at_most_zero(
                    (np.take(columns, report, axis=own), np.take(seen, signal, axis=own)),
                    (best[signal], -1.0),
                    (often, lied),
                )
        # A product of a payment and how often it may be due is at most the cap times the latter.
        profiles = np.broadcast_to(mixed.reshape(*efforts, *[1] * (agents + 1)), joint.shape)
        columns, first = np.unique(paid[agent], return_index=True)
        for column, often in zip(columns, profiles.ravel()[first]):
            constraints.at_most_zero((column, 1.0), (often, -payment_cap))
    objective = np.zeros(size)
    objective[: mixed.size] = -_worth(joint, utility, agents).ravel()
    for columns in paid:
        np.add.at(objective, columns.ravel(), joint.ravel())
    rows, columns, values = constraints.entries()
    matrix = sparse.csr_array((values, (rows, columns)), shape=(constraints.count, size))
    whole = np.zeros((1, size))
    whole[0, : mixed.size] = 1.0
    zeros = np.zeros(constraints.count)
    found = linprog(objective, matrix, zeros, whole, [1.0], bounds, method="highs")
    if found.status != 0:
        raise SpecificationError(
            "no mechanism makes the agents obey: raise payment_cap, or lower slack"
        )
    products = np.stack([np.maximum(found.x[columns], 0.0) for columns in paid])
    return Mechanism(found.x[mixed], products, -float(found.fun))


class _Constraints:
    """Rows of a sparse matrix whose products with the variables are at most zero."""

    def __init__(self):
        self.count = 0
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def at_most_zero(self, *terms: tuple[Any, Any]) -> None:
        """Adds a row: columns of variables with their factors, which add up where they repeat."""
        for columns, factors in terms:
            at = np.ravel(columns)
            factor = np.broadcast_to(np.asarray(factors, float), np.shape(columns)).ravel()
            self._parts.append((np.full(len(at), self.count), at, factor))
        self.count += 1

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, columns and values."""
        rows, columns, values = (np.concatenate(parts) for parts in zip(*self._parts))
        return rows, columns, values


def _columns(shape: tuple[int, ...], agents: int, own: int | None) -> np.ndarray:
    """Which payment is due in each cell: the same where only one agent's report counts."""
    if own is None:
        return np.arange(np.prod(shape)).reshape(shape)
    counted = [*range(agents), agents + own, 2 * agents]
    kept = [size if axis in counted else 1 for axis, size in enumerate(shape)]
    return np.broadcast_to(np.arange(np.prod(kept)).reshape(kept), shape)


def best_response(hiring: Hiring, mechanism: Mechanism, agent: int, asked: int) -> Response:
    """What is best for one agent while the others obey and say what they saw.

    Where another effort or report is better by no more than 1e-9 he obeys.

    **Arguments:** `agent`; `asked`: the effort that is recommended to him.
    """
    prior, signals, costs, _ = checked(hiring)
    joint, agents = signals * prior, len(costs)
    own = agents - 1 + agent
    paid = np.take(mechanism.paid[agent], asked, axis=agent)
    often = float(np.take(mechanism.efforts, asked, axis=agent).sum())
    worths, reports, obeying = [], [], 0.0
    for done in range(costs.shape[1]):
        seen = np.moveaxis(np.take(joint, done, axis=agent), own, 0)
        seen = seen.reshape(seen.shape[0], -1)
        got = np.moveaxis(paid, own, 0).reshape(seen.shape)
        by_report = seen @ got.T
        honest = np.diagonal(by_report)
        better = by_report.max(axis=1) > honest + 1e-9
        reports.append(np.where(better, by_report.argmax(axis=1), np.arange(len(honest))))
        worths.append(np.where(better, by_report.max(axis=1), honest).sum())
        worths[-1] -= costs[agent, done] * often
        if done == asked:
            obeying = honest.sum() - costs[agent, done] * often
    gains = np.asarray(worths) - obeying
    done = int(gains.argmax()) if gains.max() > 1e-9 else asked
    return Response(done, reports[done], float(gains[done]))


def value_to_principal(
    hiring: Hiring, mechanism: Mechanism, believed: Hiring | None = None
) -> float:
    """Her utility less payments in each round, where every agent responds as is best for him.

    **Arguments:** `believed`: by which she decides (default: the truth).
    """
    prior, signals, costs, utility = checked(hiring)
    agents = len(costs)
    kinds = signals.shape[agents : 2 * agents]
    beliefs = checked(believed or hiring)
    assumed = beliefs[1] * beliefs[0]
    responses = [
        [best_response(hiring, mechanism, agent, asked) for asked in range(costs.shape[1])]
        for agent in range(agents)
    ]
    total = 0.0
    for asked in zip(*np.nonzero(mechanism.efforts > 1e-12)):
        often = float(mechanism.efforts[asked])
        chosen = [responses[i][b] for i, b in enumerate(asked)]
        seen = signals[tuple(r.effort for r in chosen)] * prior
        reported = np.zeros((*kinds, len(prior)))
        for signal in np.ndindex(*kinds):
            said = tuple(int(r.report[s]) for r, s in zip(chosen, signal))
            reported[said] += seen[signal]
        decision = (assumed[asked] @ utility.T).argmax(axis=-1)
        total += often * float(np.sum(reported * utility[decision]))
        paid = sum(mechanism.paid[(agent, *asked)] for agent in range(agents))
        total -= float(np.sum(reported * paid))
    return total


def checked(hiring: Hiring) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arrays of a problem in double precision. Raises `DataError` for what is none."""
    prior, signals, costs, utility = (np.asarray(part, np.float64) for part in hiring)
    if costs.ndim != 2 or prior.ndim != 1:
        raise DataError(
            f"costs have shape {costs.shape} and the prior {prior.shape}: costs of each agent and "
            "effort, and a probability of each state, are needed"
        )
    agents, efforts = costs.shape
    if signals.ndim != 2 * agents + 1 or signals.shape[:agents] != (efforts,) * agents:
        raise DataError(
            f"signals have shape {signals.shape}: with {agents} agents of {efforts} efforts an "
            "axis for the effort of each agent, then one for the signal of each, then the states "
            "are needed"
        )
    if signals.shape[-1] != len(prior) or utility.ndim != 2 or utility.shape[1] != len(prior):
        raise DataError(
            f"the prior is of {len(prior)} states, signals of {signals.shape[-1]} and the utility "
            f"has shape {utility.shape}: they must agree, and utilities be of decisions and states"
        )
    sums = signals.sum(axis=tuple(range(agents, 2 * agents)))
    proper = prior.min() >= 0.0 and signals.min() >= 0.0 and abs(prior.sum() - 1.0) < 1e-6
    if not (proper and np.abs(sums - 1.0).max() < 1e-6):
        raise DataError(
            "the prior, or the signals given efforts and state, are no probabilities that sum to 1"
        )
    return prior, signals, costs, utility


def _worth(joint: np.ndarray, utility: np.ndarray, agents: int) -> np.ndarray:
    """Her expected utility `[*effort]` where the signals are seen."""
    best = (joint @ utility.T).max(axis=-1)
    return best.sum(axis=tuple(range(agents, 2 * agents)))
