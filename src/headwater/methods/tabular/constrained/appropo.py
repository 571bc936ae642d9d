"""Approachability-based policy optimisation."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, real
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.tabular.approachability import mixed_policy, response
from headwater.ops.tabular.convex import (
    AbstractConvexSet,
    distance,
    into_unit_polar,
    within_budgets,
)
from headwater.ops.tabular.counts import at_least_once, mean_reward
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
from headwater.ops.tabular.planning import occupancy


class Response(eqx.Module):
    """A policy that was played.

    **Arguments:** `returns`, `visited`: in the model of that time.
    """

    returns: Float[Array, "*cached measure"]
    visited: Float[Array, "*cached horizon state action"]


class ApproPOState(eqx.Module):
    """Experience, the direction played against, the next policy, old ones, and the mixture."""

    experience: Experience
    direction: Float[Array, " lifted"]
    policy: Float[Array, "horizon state action"]
    cache: Response
    cached: Int[Array, ""]
    mixture: Response
    rounds: Float[Array, ""]
    problem: FiniteProblem


class ApproPO(
    AbstractMethod[FiniteProblem, Episodes, ApproPOState], AbstractTablePolicy[ApproPOState]
):
    r"""Mixes best responses to directions that no-regret play chooses, to approach a convex set.

    Measured are reward and costs, $V = (R, C)$. The set is lifted to the cone over $C \times
    \{\kappa\}$, and Λ is the cone's polar within the unit ball. Policy $\pi_t$ responds to
    $\lambda_t$ with the reward $-\lambda_t \cdot (r, c)$, is played, and $\lambda_{t+1} =
    \Pi_\Lambda(\lambda_t + \eta_t (\hat V_t, \kappa)/\kappa)$ with $\eta_t = \text{rate}/\sqrt t$.
    A response with $\lambda_t \cdot (\hat V, \kappa) \le 0$ is good enough: as long as one is among
    the old ones, it is used again without new episodes. The uniform mixture of all is the answer.

    **Arguments:**

    - `reward_threshold`: the set has at least this reward, and costs within the budgets, if no
      `target` is given.
    - `target`: another set of (reward, costs).
    - `episodes_per_response`: how many episodes each policy plays.
    - `cone_height`: κ.
    - `learning_rate`: of the direction.
    - `cache_size`: how many of the last policies may be used again, and how often without playing.
    - `bonus_scale`: the responses' bonus is `exploration / √N`.
    - `stationary`: the process is the same at every step.

    **Reference:** Miryoosefi, Brantley, Daumé III, Dudík, Schapire (2019), arXiv:1906.09323.

    **Differences from the paper:** the oracle is optimistic planning in the model of all episodes
    so far, instead of an actor-critic, which makes it need fewer of them; an action that was never
    taken stays in its state at the best measure of one. Returns are those in the model, too: chosen
    from the cache by means of their own few episodes, the luckiest would be chosen. No momentum (it
    is in the code alone). Where the model is known, `ops.approachability` does the same exactly.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "miryoosefi2019reinforcement",
        summary="approaches a convex set of returns by a mixture of best responses",
    )

    reward_threshold: float = real(0.0)
    target: AbstractConvexSet | None = None
    episodes_per_response: int = integer(20)
    cone_height: float = non_negative(20.0)
    learning_rate: float = non_negative(1.0)
    cache_size: int = integer(20, low=0)
    bonus_scale: float = non_negative(0.01)
    stationary: bool = flag(True)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> ApproPOState:
        problem.require_one_task("ApproPO")
        budgets = require_budgets(problem, "ApproPO")
        if problem.initial is None:
            raise SpecificationError("ApproPO needs to know where episodes start: give `initial`")
        if self.cache_size < 1 or self.episodes_per_response < 1:
            raise SpecificationError("ApproPO needs a cache and episodes_per_response of 1 or more")
        sizes, measures = problem.sizes, budgets.shape[0] + 1
        experience = no_experience(problem, constraints=measures - 1, stationary=self.stationary)
        empty = Response(
            jnp.zeros((self.cache_size, measures)), jnp.zeros((self.cache_size, *sizes))
        )
        none = Response(jnp.zeros(measures), jnp.zeros(sizes))
        direction = jnp.zeros(measures + 1)
        policy = jnp.full(sizes, 1.0 / problem.actions, jnp.float32)
        zeros = jnp.zeros((), jnp.int32), none, jnp.zeros((), jnp.float32)
        return ApproPOState(experience, direction, policy, empty, *zeros, problem)

    def update(self, state: ApproPOState, data: Episodes, *, key: PRNGKeyArray):
        problem, budgets = state.problem, require_budgets(state.problem, "ApproPO")
        experience = gather(state.experience, data, problem, "ApproPO")
        costs = require_costs(data, budgets.shape[0], "ApproPO")
        visited = occupancy(self._model(experience, problem), state.policy)
        played = Response(self._returns(experience, problem, visited), visited)
        cache = jax.tree.map(
            lambda all_, new: all_.at[state.cached % self.cache_size].set(new), state.cache, played
        )
        cached, target = state.cached + 1, self._target(problem)
        direction, rounds, mixture = self._add(
            target, played, state.direction, state.rounds, state.mixture
        )

        def reuse(_, carry):
            direction = carry[0]
            scores = cache.returns @ direction[:-1] + direction[-1] * self.cone_height
            scores = jnp.where(jnp.arange(self.cache_size) < cached, scores, jnp.inf)
            best = jnp.argmin(scores)
            again = self._add(target, jax.tree.map(lambda x: x[best], cache), *carry)
            return jax.tree.map(
                lambda new, old: jnp.where(scores[best] <= 0.0, new, old), again, carry
            )

        direction, rounds, mixture = jax.lax.fori_loop(
            0, self.cache_size, reuse, (direction, rounds, mixture)
        )
        policy = self._respond(experience, problem, direction)
        metrics = {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "cost": jnp.mean(jnp.sum(costs, axis=-2)),
            "distance": distance(target, mixture.returns / rounds),
            "rounds": rounds,
        }
        play = direction, policy, cache, cached, mixture, rounds
        return ApproPOState(experience, *play, problem), metrics

    def policy(self, state: ApproPOState, *, explore: bool):
        policy = state.policy if explore else mixed_policy(state.mixture.visited)
        lead = (self.episodes_per_response,) if explore else ()
        return jnp.broadcast_to(policy, (*lead, *policy.shape))

    def _add(self, target, response: Response, direction, rounds, mixture: Response):
        """One round of play against a response."""
        rounds += 1.0
        lifted = jnp.append(response.returns, self.cone_height) / self.cone_height
        ascended = direction + self.learning_rate * lifted / jnp.sqrt(rounds)
        mixture = jax.tree.map(jnp.add, mixture, response)
        return into_unit_polar(target, ascended, self.cone_height), rounds, mixture

    def _returns(
        self, experience: Experience, problem: FiniteProblem, visited
    ) -> Float[Array, " measure"]:
        reward = mean_reward(experience.counts, problem)[..., None]
        measured = jnp.concatenate([reward, mean_cost(experience)], axis=-1)
        return jnp.einsum("hsa,hsam->m", visited, for_every_step(measured, visited.shape[0]))

    def _respond(self, experience: Experience, problem: FiniteProblem, direction):
        counts = experience.counts
        weights = -direction[:-1]
        value = weights[0] * mean_reward(counts, problem) + mean_cost(experience) @ weights[1:]
        bonus = self.bonus_scale / jnp.sqrt(at_least_once(counts.visits))
        size = jnp.linalg.norm(weights)
        value = jnp.where(counts.visits > 0.0, value + size * bonus, size)
        model = self._model(experience, problem)
        return response(model, for_every_step(value, problem.horizon))

    def _model(self, experience: Experience, problem: FiniteProblem) -> FiniteProcess:
        assert problem.initial is not None
        transition = for_every_step(resting_transition(experience.counts), problem.horizon)
        return FiniteProcess(transition, jnp.zeros(problem.sizes), problem.initial)

    def _target(self, problem: FiniteProblem) -> AbstractConvexSet:
        budgets = require_budgets(problem, "ApproPO")
        return self.target or within_budgets(self.reward_threshold, jnp.inf, budgets)
