"""Learning several partially observed processes that share how their hidden states move."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.linear.low_rank import exploring_policies
from headwater.ops.tabular.counts import Counts, count, mean_reward, no_counts
from headwater.ops.tabular.latent_models import (
    Sequences,
    TiedModels,
    likeliest_models,
    memoryless_policy,
    most_disputed_plan,
    no_sequences,
    random_models,
    remember,
)

_MOST_SEQUENCES = 2_000_000
"""Probabilities of one model's law that planning can hold, one for each sequence of both."""


class UMTPSRState(eqx.Module):
    """The last episodes of each task, models of each restart, and where to explore."""

    data: Sequences
    counts: Counts
    episodes: Int[Array, ""]
    models: TiedModels
    likelihood: Float[Array, " restart"]
    frozen: Bool[Array, ""]
    explorer: Float[Array, "task horizon observation action"]
    problem: FiniteProblem

    @property
    def best(self) -> TiedModels:
        """The likeliest models."""
        return jax.tree.map(lambda x: x[jnp.argmax(self.likelihood)], self.models)


class UMTPSR(
    AbstractMethod[FiniteProblem, Episodes, UMTPSRState], AbstractTablePolicy[UMTPSRState]
):
    r"""Learns the laws of several partially observed tasks together, and explores where unsure.

    What the problem calls states are observations. Of models of all tasks with common transitions
    of a hidden state and emissions of each task's own, those within $\beta$ of the best
    log-likelihood are kept. The two that differ most, by the sum over tasks of the largest total
    variation distance of their laws under a sequence of actions, choose each task's sequence: it is
    followed for $h - 2$ steps and then actions are uniform, once for every step $h$. Where a single
    model is left, all actions are uniform. A process alone is one task.

    The judged policy acts by the last observation alone, for the problem's rewards or the means of
    those seen: no step of it can be improved in the likeliest model.

    `with_transition` begins with transitions that an earlier stage learned from other tasks, and
    fits emissions only.

    **Arguments:**

    - `rank`: hidden states.
    - `num_restarts`: of the search for the likeliest models, with that from the last update; at
      most so many models are kept.
    - `fit_steps`: of expectation maximisation in each.
    - `smoothing`: added to all expected counts.
    - `confidence_radius`: $\beta$.
    - `exploration`: `uniform` never plans (a control).
    - `episodes_per_step`: episodes of each task for each step of the horizon in one update.
    - `memory_size`: episodes of each task that are kept, the last ones.

    **Reference:** Huang, Cheng, Yang, Tan and Liang (2024), arXiv:2310.13550: the class of
    tasks with a common transition kernel.

    **Differences from the paper:** nobody can search the set of all likely models, or all policies:
    local maxima of the likelihood stand for the one and sequences of actions for the other, and
    without a promise; the policy that is judged need not be the best one. After `with_transition`
    exploration is the same, not by optimism.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "huang2024provable",
        summary="learns partially observed tasks that share their hidden transitions",
        parents=("REFUEL",),
    )

    rank: int = integer(4)
    num_restarts: int = integer(8)
    fit_steps: int = integer(100)
    smoothing: float = non_negative(0.01)
    confidence_radius: float = non_negative(5.0)
    exploration: Literal["planned", "uniform"] = choice("planned")
    episodes_per_step: int = integer(8)
    memory_size: int = integer(1000)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> UMTPSRState:
        tasks, (horizon, observations, actions) = problem.tasks or 1, problem.sizes
        sequences = (observations * actions) ** horizon * observations
        if self.exploration == "planned" and sequences > _MOST_SEQUENCES:
            raise SpecificationError(
                f"UMTPSR compares the laws of all sequences of {horizon} steps with {observations} "
                f"observations and {actions} actions, which are more than {_MOST_SEQUENCES}: take "
                "a shorter horizon, or exploration='uniform'"
            )
        return UMTPSRState(
            no_sequences(tasks, self.memory_size, horizon),
            jax.tree.map(lambda x: jnp.zeros((tasks, *x.shape), x.dtype), no_counts(problem)),
            jnp.zeros((), jnp.int32),
            self._random(problem, tasks, key),
            jnp.zeros(self.num_restarts),
            jnp.zeros((), bool),
            jnp.full((tasks, *problem.sizes), 1.0 / actions, jnp.float32),
            problem,
        )

    def with_transition(
        self,
        problem: FiniteProblem,
        initial: Float[Array, " hidden"],
        transition: Float[Array, "hidden action hidden"],
        *,
        key: PRNGKeyArray,
    ) -> UMTPSRState:
        """Begins with first states and transitions that stay as they are.

        Raises `SpecificationError` if these do not fit the rank and the problem.
        """
        state = self.init(problem, key=key)
        expected = (self.rank, problem.actions, self.rank)
        if transition.shape != expected or initial.shape != expected[:1]:
            raise SpecificationError(
                f"transition has shape {transition.shape} and initial {initial.shape}: for rank "
                f"{self.rank} they must be {expected} and {expected[:1]}"
            )
        repeat = lambda x: jnp.broadcast_to(x, (self.num_restarts, *x.shape))
        models = TiedModels(repeat(initial), repeat(transition), state.models.emission)
        return eqx.tree_at(lambda s: (s.models, s.frozen), state, (models, jnp.ones((), bool)))

    def update(self, state: UMTPSRState, data: Episodes, *, key: PRNGKeyArray):
        problem, tasks = state.problem, state.explorer.shape[0]
        if problem.tasks is None:
            data = jax.tree.map(lambda x: x[None], data)
        counts = jax.vmap(lambda c, d: count(c, d, problem))(state.counts, data)
        seen, done = (x.reshape(tasks, -1, x.shape[-1]) for x in (data.state, data.action))
        kept = remember(state.data, state.episodes, seen, done)
        models, likelihood = self._fit(state, kept, key)
        explorer, disagreement = state.explorer, jnp.zeros(tasks)
        if self.exploration == "planned":
            likely = likelihood >= jnp.max(likelihood) - self.confidence_radius
            plan, disagreement = most_disputed_plan(models, likely, steps=problem.horizon)
            chosen = jax.nn.one_hot(plan, problem.actions)
            # Nothing is planned where nothing is disputed.
            chosen = jnp.where(disagreement[:, None, None] > 0.0, chosen, 1.0 / problem.actions)
            explorer = jnp.broadcast_to(chosen[:, :, None], explorer.shape)
        episodes, frozen = state.episodes + done.shape[1], state.frozen
        state = UMTPSRState(kept, counts, episodes, models, likelihood, frozen, explorer, problem)
        return state, {
            "return": jnp.mean(jnp.sum(data.reward, axis=-1)),
            "log_likelihood": jnp.max(likelihood) / jnp.sum(kept.weight),
            "disagreement": jnp.mean(disagreement),
        }

    def policy(self, state: UMTPSRState, *, explore: bool):
        models, problem = state.best, state.problem
        if explore:
            plan = lambda policy: exploring_policies(policy, episodes=self.episodes_per_step)
            found = jax.vmap(plan)(state.explorer)
        else:
            reward = jax.vmap(lambda c: mean_reward(c, problem))(state.counts)
            if problem.reward is not None:
                reward = problem.reward.reshape(reward.shape)
            plan = lambda e, r: memoryless_policy(models.initial, models.transition, e, r)
            found = jax.vmap(plan)(models.emission, reward)
        return found[0] if problem.tasks is None else found

    def _fit(self, state: UMTPSRState, data: Sequences, key: PRNGKeyArray):
        """Models of every restart, and their log-likelihoods."""
        fresh = self._random(state.problem, data.weight.shape[0], key)
        # The first goes on from the best so far.
        start = jax.tree.map(lambda new, old: new.at[0].set(old), fresh, state.best)
        given = TiedModels(state.models.initial, state.models.transition, start.emission)
        start = jax.tree.map(lambda a, b: jnp.where(state.frozen, a, b), given, start)
        settings = {"iterations": self.fit_steps, "smoothing": self.smoothing}
        fit = lambda models: likeliest_models(data, models, **settings, frozen=state.frozen)
        return jax.vmap(fit)(start)

    def _random(self, problem: FiniteProblem, tasks: int, key: PRNGKeyArray) -> TiedModels:
        """A beginning for every restart."""
        one = lambda k: random_models(tasks, self.rank, problem.actions, problem.states, key=k)
        return jax.vmap(one)(jax.random.split(key, self.num_restarts))
