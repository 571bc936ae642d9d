"""Optimistic planning under constraints on what episodes use up."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, probability
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.tabular.approachability import response
from headwater.ops.tabular.counts import at_least_once, mean_unit_reward
from headwater.ops.tabular.experience import (
    Experience,
    for_every_step,
    gather,
    mean_cost,
    no_experience,
    require_budgets,
    require_costs,
    resting_transition,
)
from headwater.parts.priced_planning import Constraint, Objective, price_costs


class ConRLState(eqx.Module):
    """What was seen, prices of the limits, the next policy and the cheapest one, and use so far."""

    experience: Experience
    price: Float[Array, " limit"]
    policy: Float[Array, "horizon state action"]
    cheapest: Float[Array, "horizon state action"]
    spent: Float[Array, " constraint"]
    played: Float[Array, ""]
    problem: FiniteProblem


class ConRL(AbstractMethod[FiniteProblem, Episodes, ConRLState], AbstractTablePolicy[ConRLState]):
    r"""Believes the best of rewards and costs alike, and plans for the constraints in that model.

    Before episode k the model has transitions $\hat P$, rewards $\hat r + b$ and costs
    $\hat c - b$, $b = \min\{2H, H\sqrt{2 \ln(8SAH(d + 1)k^2/\delta) / N}\}$. The policy maximises
    $f(E R)$ subject to $g(E C) \le 0$ in it: by default the reward within the problem's budgets, by
    other f and g the concave-convex setting. Prices $\lambda \ge 0$ of the constraints go from
    episode to episode and rise with what would be overspent, `num_multiplier_updates` times before
    each.

    **Arguments:**

    - `stationary`: the process is the same at every step, as in the paper; if not, each step has
      counts of its own.
    - `bonus_scale`: multiplies b. With 1 optimism is promised; about 1e-5 is practical.
    - `failure_probability`: δ.
    - `num_multiplier_updates`, `multiplier_learning_rate`: how often and how fast prices move
      before each episode; the shares of a mixture are as coarse as the first is small.
    - `solution`: play the `mixture` of the rounds' policies, which may use up part of a budget, or
      what is best for the `average` price: deterministic, so that where the best policy is not, it
      earns too little or spends too much.
    - `tightening`: ε; what is planned with is the budgets times 1 - ε.
    - `hard_budget`: when the use of all episodes reaches `num_episodes` times the budget of any
      resource, play the cheapest policy for good (the knapsack setting).
    - `num_episodes`: K, for which the budgets of all episodes together are meant.
    - `objective`, `constraint`: f and g, functions of the expected reward and of the expected costs
      that do not fall; f concave, g convex. With them `solution` must be `mixture`.

    **Reference:** Brantley, Dudík, Lykouris, Miryoosefi, Simchowitz, Slivkins, Sun (2020),
    arXiv:2006.05051.

    **Differences from the paper:** plans by prices (as the authors' code does) instead of a linear
    or convex program, which `optimistic` and `ops.constrained` make on the host; f and g must not
    fall, so that optimism means high rewards and low costs; an action that was never taken stays in
    its state at a reward of one and a cost of minus one, as in the code.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "brantley2020constrained",
        summary="optimistic about rewards and costs, plans within budgets by prices",
        parents=("UCBVI",),
    )

    stationary: bool = flag(True)
    bonus_scale: float = non_negative(1.0)
    failure_probability: float = probability(0.1)
    num_multiplier_updates: int = integer(20)
    multiplier_learning_rate: float = non_negative(0.2)
    solution: Literal["average", "mixture"] = choice("mixture")
    tightening: float = non_negative(0.0)
    hard_budget: bool = flag(False)
    num_episodes: float = non_negative(10_000.0)
    objective: Objective | None = eqx.field(static=True, default=None)
    constraint: Constraint | None = eqx.field(static=True, default=None)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> ConRLState:
        problem.require_one_task("ConRL")
        budgets = require_budgets(problem, "ConRL")
        if problem.initial is None:
            raise SpecificationError("ConRL needs to know where episodes start: give `initial`")
        if (self.objective or self.constraint) and self.solution != "mixture":
            raise SpecificationError(
                "ConRL with an objective or constraint of its own needs solution = 'mixture': the "
                "best policy for one price is no answer there"
            )
        experience = no_experience(
            problem, constraints=budgets.shape[0], stationary=self.stationary
        )
        price = jnp.zeros_like(self._excess(budgets)(jnp.zeros_like(budgets)))
        uniform = jnp.full(problem.sizes, 1.0 / problem.actions, jnp.float32)
        zero = jnp.zeros((), jnp.float32)
        spent = jnp.zeros_like(budgets)
        return ConRLState(experience, price, uniform, uniform, spent, zero, problem)

    def update(self, state: ConRLState, data: Episodes, *, key: PRNGKeyArray):
        problem, budgets = state.problem, require_budgets(state.problem, "ConRL")
        experience = gather(state.experience, data, problem, "ConRL")
        costs = require_costs(data, budgets.shape[0], "ConRL")
        each = jnp.sum(costs, axis=-2).reshape(-1, budgets.shape[0])
        spent, played = state.spent + jnp.sum(each, axis=0), state.played + each.shape[0]
        planned = (1.0 - self.tightening) * budgets
        model = self._optimistic(experience, problem, played)
        plan = price_costs(
            model,
            state.price,
            objective=self.objective or (lambda reward: reward),
            constraint=self._excess(planned),
            rounds=self.num_multiplier_updates,
            rate=self.multiplier_learning_rate,
        )
        assert model.cost is not None
        cheapest = (
            response(model, -jnp.sum(model.cost, axis=-1)) if self.hard_budget else state.cheapest
        )
        policy = plan.mixture if self.solution == "mixture" else plan.average
        state = ConRLState(experience, plan.price, policy, cheapest, spent, played, problem)
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "cost": jnp.mean(each),
            "over_budget": jnp.max(jnp.mean(each, axis=0) - planned),
            "price": jnp.mean(plan.price),
            "budget_left": self._left(state),
        }
        return state, metrics

    def policy(self, state: ConRLState, *, explore: bool):
        if not (explore and self.hard_budget):
            return state.policy
        return jnp.where(self._left(state) > 0.0, state.policy, state.cheapest)

    def optimistic(self, state: ConRLState) -> FiniteProcess:
        """The model that the next policy is planned in, with its costs."""
        return self._optimistic(state.experience, state.problem, state.played)

    def _optimistic(self, experience: Experience, problem: FiniteProblem, played):
        counts, horizon = experience.counts, problem.horizon
        states, actions, constraints = experience.cost.total.shape[1:]
        cases = 8.0 * states * actions * horizon * (constraints + 1)
        log = jnp.log(cases / self.failure_probability) + 2.0 * jnp.log1p(played)
        bonus = horizon * jnp.sqrt(2.0 * log / at_least_once(counts.visits))
        bonus = self.bonus_scale * jnp.minimum(bonus, 2.0 * horizon)
        bonus = jnp.where(counts.visits > 0.0, bonus, 1.0)
        optimistic = problem.from_unit(mean_unit_reward(counts) + bonus, 1)
        reward = for_every_step(optimistic, horizon)
        cost = for_every_step(mean_cost(experience) - bonus[..., None], horizon)
        transition = for_every_step(resting_transition(counts), horizon)
        assert problem.initial is not None
        return FiniteProcess(transition, reward, problem.initial, cost)

    def _excess(self, budgets: Float[Array, " constraint"]) -> Constraint:
        return self.constraint or (lambda spent: spent - budgets)

    def _left(self, state: ConRLState) -> Float[Array, ""]:
        """Share of the scarcest total budget that is not used up."""
        total = self.num_episodes * state.problem.require_budgets("ConRL")
        return 1.0 - jnp.max(state.spent / jnp.where(total == 0.0, 1e-12, total))
