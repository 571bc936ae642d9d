"""Learning to actively learn: a way to find the best arm, trained against an adversary."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import between, integer, non_negative, share, sizes
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, AbstractUpdateRule, Info
from headwater.networks.meta.sampler import Sampler
from headwater.ops.control.gradient_steps import begin, descend
from headwater.parts.meta.campaigns import recommended, slopes
from headwater.parts.meta.difficulty import within_class

_EDGE = 1e-3
"""How far the means that an adversary moves stay away from 0 and 1."""


class ActiveLearnerState(eqx.Module):
    """A policy for each class of instances, the specialists, and last one for all classes.

    **Arguments:** `samplers`, `optimisers`: stacked; `means`: of the arms of each particle, against
    the specialists (first) and against the last; `losses`: running averages of how probably the
    policy is wrong there; `policies`: what the last recommends in the tasks that were given last.
    """

    samplers: Sampler
    optimisers: optax.OptState
    means: Float[Array, "2 class particle arm"]
    losses: Float[Array, "2 class particle"]
    step: Int[Array, ""]
    policies: Float[Array, "task horizon state action"]


class LearningToActivelyLearn(
    AbstractMethod[FiniteProblem, FiniteProcess, ActiveLearnerState],
    AbstractTablePolicy[ActiveLearnerState],
    AbstractUpdateRule[ActiveLearnerState],
):
    r"""Learns which arms to pull, and which to recommend, as well as can be at every difficulty.

    The difficulty of an instance is the mean of $\Delta_a^{-2}$ over the arms that are not the
    best, whose gaps are $\Delta_a$; the class $\Theta_k$ holds all instances up to $r_k$. With
    $\ell(\pi, \theta)$, the probability that the arm recommended after the budget is not the best,
    the policy minimises

    $$\max_k \Bigl[\max_{\theta \in \Theta_k} \ell(\pi, \theta)
        - \min_{\pi'} \max_{\theta \in \Theta_k} \ell(\pi', \theta)\Bigr].$$

    The inner minima are those of specialists, one for each class, which are trained beside it. An
    adversary has particles for every policy: instances in $\Theta_k$, which move up the gradient of
    the loss (by the score function) and are weighed by $p \propto e^{\kappa \bar\ell}$, with
    running averages $\bar\ell$ of losses, less those of the specialists; the policy moves down the
    gradient of the weighted loss. In each update a few particles, of the smallest losses, begin
    anew at tasks that were given. Each step and state of a task is a bandit of its own, whose
    transitions are not looked at and whose rewards are zero or one.

    **Arguments:**

    - `budget`: pulls before an arm is recommended.
    - `easiest_class`, `hardest_class`: $r_1$ and $r_K$; those between are spaced geometrically.
    - `num_classes`: $K$.
    - `num_particles`: instances for each class.
    - `episodes_per_particle`: times that a policy meets each instance in an update.
    - `adversary_weight`: $\kappa$.
    - `loss_memory`: share of the running averages that an update keeps.
    - `particle_learning_rate`: of the logits of the particles' means.
    - `restarts`: share of the particles of a class that begin anew in an update.
    - `hidden_sizes`: of the policies' networks.
    - `learning_rate`: of Adam, for the policies.

    **Reference:** Zhang, Jain, Jamieson (2020), arXiv:2010.15382.

    **Differences from the paper:** specialists are trained beside the robust policy, and not before
    it; classes are given, not found by bisection; particles stay in their class by moving towards
    the easiest instance and not by a barrier; weights are a soft maximum of running averages and
    not learned; networks are blind to the order of arms.
    """

    feed: ClassVar[Feed] = Feed.TASKS
    info: ClassVar[Info] = Info(
        "zhang2020learning",
        summary="learns to find the best arm, against the worst instance of every difficulty",
    )

    budget: int = integer(20)
    easiest_class: float = between(1.0, math.inf, 1.5)
    hardest_class: float = between(1.0, math.inf, 24.0)
    num_classes: int = integer(3)
    num_particles: int = integer(64)
    episodes_per_particle: int = integer(4)
    adversary_weight: float = non_negative(20.0)
    loss_memory: float = share(0.95)
    particle_learning_rate: float = non_negative(1.0)
    restarts: float = share(0.05)
    hidden_sizes: tuple[int, ...] = sizes((32, 32))
    learning_rate: float = non_negative(0.01)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> ActiveLearnerState:
        tasks = problem.require_tasks("LearningToActivelyLearn")
        if problem.reward_range is not None:
            raise SpecificationError(
                "LearningToActivelyLearn needs arms whose rewards are zero or one: give expected "
                "rewards between 0 and 1"
            )
        sampler_key, means_key = jax.random.split(key)
        keys = jax.random.split(sampler_key, self.num_classes + 1)
        samplers = jax.vmap(lambda key: Sampler(self.hidden_sizes, key=key))(keys)
        shape = (2, self.num_classes, self.num_particles)
        return ActiveLearnerState(
            samplers,
            jax.vmap(lambda sampler: begin(optax.adam(self.learning_rate), sampler))(samplers),
            within_class(jax.random.uniform(means_key, (*shape, problem.actions)), self._limits()),
            jnp.full(shape, 1.0 - 1.0 / problem.actions, jnp.float32),
            jnp.zeros((), jnp.int32),
            jnp.full((tasks, *problem.sizes), 1.0 / problem.actions, jnp.float32),
        )

    def update(self, state: ActiveLearnerState, data: FiniteProcess, *, key: PRNGKeyArray):
        given = data.reward.reshape(-1, data.actions)
        rows, classes = 2 * self.num_classes, self.num_classes
        each = self.num_particles * self.episodes_per_particle
        # All at once: to compile the drawing of random numbers is slow.
        drawn = jax.random.uniform(key, (rows * each + len(given), self.budget, 2))
        against = drawn[: rows * each].reshape(rows, each, self.budget, 2)

        alone, together = state.losses
        excess = (together - self._worst(alone)[:, None]).reshape(-1)
        weights = jnp.stack([self._weights(alone), self._weights(excess).reshape(alone.shape)])

        def by_row(x):  # Who plays against each class: its specialist, then the last.
            return jnp.concatenate([x[:-1], jnp.repeat(x[-1:], classes, axis=0)])

        players = jax.tree.map(by_row, state.samplers)
        flat = [x.reshape(rows, *x.shape[2:]) for x in (state.means, state.losses, weights)]
        gradients, wrong, scores = jax.vmap(slopes)(players, flat[0], flat[1], flat[2], against)
        gradients = jax.tree.map(
            lambda x: jnp.concatenate([x[:classes], jnp.sum(x[classes:], axis=0, keepdims=True)]),
            gradients,
        )
        step = jax.vmap(lambda *x: descend(optax.adam(self.learning_rate), *x))
        samplers, optimisers = step(gradients, state.optimisers, state.samplers)
        means, losses = self._moved(state, wrong, scores, given)

        last = jax.tree.map(lambda x: x[-1], samplers)
        policies = recommended(last, given, drawn[rows * each :])[-1].reshape(state.policies.shape)
        worst = self._worst(losses)
        metrics = {"specialist_loss": jnp.mean(worst[0]), "excess": jnp.max(worst[1] - worst[0])}
        state = ActiveLearnerState(samplers, optimisers, means, losses, state.step + 1, policies)
        return state, metrics

    def policy(self, state: ActiveLearnerState, *, explore: bool) -> Array:
        return state.policies

    def apply_rule(
        self, state: ActiveLearnerState, process: FiniteProcess, lifetime: int, *, key: PRNGKeyArray
    ) -> Float[Array, "update horizon state action"]:
        means = process.reward.reshape(-1, process.actions)
        drawn = jax.random.uniform(key, (len(means), lifetime, 2))
        last = jax.tree.map(lambda x: x[-1], state.samplers)
        found = recommended(last, means, drawn)[1:]
        return found.reshape(lifetime, *process.reward.shape[-3:])

    def _moved(self, state: ActiveLearnerState, wrong: Array, scores: Array, given: Array):
        """Particles after a step up the loss, the least dangerous anew, and their losses."""
        logits = jax.scipy.special.logit(jnp.clip(state.means, _EDGE, 1.0 - _EDGE))
        moves = self.particle_learning_rate * scores.reshape(logits.shape)
        running = wrong.reshape(state.losses.shape)
        running = running + self.loss_memory * (state.losses - running)
        # Place of each particle in its class, the least loss first; to compile a sort is slow.
        mine, other = running[..., :, None], running[..., None, :]
        number = jnp.arange(self.num_particles)
        earlier = jnp.broadcast_to(number[:, None] > number[None], (*running.shape, len(number)))
        place = jnp.sum((other < mine) | ((other == mine) & earlier), axis=-1)
        anew = place < jnp.round(self.restarts * self.num_particles)
        rows = (state.step * running.size + jnp.arange(running.size)) % len(given)
        begun = given[rows].reshape(logits.shape)
        means = jnp.where(anew[..., None], begun, jax.nn.sigmoid(logits + moves))
        typical = jnp.broadcast_to(jnp.mean(running, axis=-1, keepdims=True), running.shape)
        return within_class(means, self._limits()), jnp.where(anew, typical, running)

    def _limits(self) -> Float[Array, "2 class particle"]:
        """The largest difficulty of each particle."""
        limits = jnp.geomspace(self.easiest_class, self.hardest_class, self.num_classes)
        return jnp.broadcast_to(limits[:, None], (2, self.num_classes, self.num_particles))

    def _weights(self, losses: Float[Array, "*class particle"]) -> Float[Array, "*class particle"]:
        return jax.nn.softmax(self.adversary_weight * losses)

    def _worst(self, losses: Float[Array, "*class particle"]) -> Float[Array, "*class"]:
        return jnp.sum(self._weights(losses) * losses, axis=-1)
