"""Planning with a learned model: sequences of actions, improved by the cross-entropy method."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, positive, share
from headwater.core.method import AbstractMethod, AbstractPolicy, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.ops.control.noise import normal
from headwater.parts.model_based import dynamics_method, dynamics_of


class PETSState(eqx.Module):
    """The state of the method that learns the model, and the action about which plans begin."""

    model: Any
    middle: Float[Array, " action"]


class PETS(AbstractMethod[Spaces, Transitions, PETSState], AbstractPolicy[PETSState]):
    r"""Learns a model of the process, and plans with it anew before every action. Continuous only.

    The cross-entropy method: sequences of `planning_steps` actions are drawn from a normal
    distribution, each is tried in the model, and the distribution is fitted to the best of them,
    `planning_rounds` times; the first action of its mean is taken. What a sequence is worth is the
    discounted sum of the rewards that the model predicts up to a terminal step, the mean over
    `num_particles` rollouts, each of which draws its steps from the members of the ensemble.

    **Arguments:**

    - `planning_steps`: that a plan looks ahead.
    - `num_plans`: sequences drawn in one round.
    - `best_share`: of them, which the distribution is fitted to.
    - `planning_rounds`: of drawing and fitting.
    - `num_particles`: rollouts of each sequence.
    - `initial_spread`: standard deviation of actions in the first round.
    - `plan_smoothing`: what is kept of the old mean and deviation in each round.
    - `discount`: weight of the next step's reward.
    - `dynamics`: the method that learns the model.

    **Reference:** Chua, Calandra, McAllister, Levine (2018), arXiv:1805.12114.

    **Differences from the paper:** rewards are learned, and not known beforehand; each plan begins
    from nothing, not from what remains of the last, as a policy remembers nothing; a rollout may
    change members from step to step (TS1).
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "chua2018deep",
        summary="plans with a learned model, anew before every action",
        parents=("DynamicsEnsemble",),
    )

    planning_steps: int = integer(25)
    num_plans: int = integer(400)
    best_share: float = share(0.1)
    planning_rounds: int = integer(5)
    num_particles: int = integer(20)
    initial_spread: float = positive(0.5)
    plan_smoothing: float = share(0.1)
    discount: float = share(1.0)
    dynamics: AbstractMethod = dynamics_method()

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> PETSState:
        problem.require_continuous("PETS")
        dynamics_of(self)
        model = self.dynamics.init(problem, key=key)
        return PETSState(model, jnp.zeros(problem.action_size))

    def update(self, state: PETSState, data: Transitions, *, key: PRNGKeyArray):
        model, metrics = self.dynamics.update(state.model, data, key=key)
        return PETSState(model, state.middle), metrics

    def act(self, state: PETSState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        # The same random numbers before every action, so that the greedy policy is a function.
        plan_key = key if explore else jax.random.key(0)
        draw_key, try_key = jax.random.split(plan_key)
        shape = (self.planning_steps, state.middle.shape[0])

        def improve(plan, round_key):
            mean, spread = plan
            noise = normal(round_key, (self.num_plans, *shape))
            plans = jnp.clip(mean[None] + spread[None] * noise, -1.0, 1.0)
            worth = jax.vmap(lambda p: self._worth(state, observation, p, key=try_key))(plans)
            order = jnp.argsort(-worth)
            # A share that may be swept picks rows by their rank, not by a size.
            best = jnp.arange(self.num_plans) < jnp.maximum(self.best_share * self.num_plans, 1.0)
            weight = best.astype(jnp.float32)[:, None, None] / jnp.sum(best)
            chosen = plans[order]
            fitted = jnp.sum(weight * chosen, axis=0)
            deviation = jnp.sqrt(jnp.sum(weight * (chosen - fitted[None]) ** 2, axis=0))
            kept = self.plan_smoothing
            return (
                kept * mean + (1.0 - kept) * fitted,
                kept * spread + (1.0 - kept) * deviation,
            ), None

        start = (
            jnp.broadcast_to(state.middle, shape),
            jnp.full(shape, jnp.asarray(self.initial_spread, jnp.float32)),
        )
        keys = jax.random.split(draw_key, self.planning_rounds)
        (mean, _), _ = jax.lax.scan(improve, start, keys)
        # Weights that add up to one but for rounding may leave the range by as much.
        return jnp.clip(mean[0], -1.0, 1.0), ()

    def _worth(
        self,
        state: PETSState,
        observation: Float[Array, " observation"],
        plan: Float[Array, "step action"],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        """What the model says that a sequence of actions brings."""
        dynamics = dynamics_of(self)

        def step(carry, given):
            observation, weight = carry
            action, key = given
            found = dynamics.step(state.model, observation, action, key=key)
            following = weight * self.discount * jnp.where(found.terminal, 0.0, 1.0)
            return (found.next_observation, following), weight * found.reward

        def rollout(key: PRNGKeyArray) -> Float[Array, ""]:
            keys = jax.random.split(key, self.planning_steps)
            rewards = jax.lax.scan(step, (observation, jnp.ones(())), (plan, keys))[1]
            total = jnp.sum(rewards)
            # A model asked far from its data may answer with anything.
            return jnp.where(jnp.isfinite(total), total, -jnp.inf)

        return jnp.mean(jax.vmap(rollout)(jax.random.split(key, self.num_particles)))
