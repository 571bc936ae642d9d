"""Proximal policy optimisation, from scratch or near a policy that was learned before."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, positive, share, sizes
from headwater.core.method import (
    AbstractLikelihood,
    AbstractMethod,
    AbstractPolicy,
    AbstractWarmStart,
    Agent,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import choose
from headwater.networks.distributions import divergence_from
from headwater.networks.mlp import MLP
from headwater.ops.control.advantages import generalised_advantages
from headwater.ops.control.gradient_steps import descend
from headwater.ops.language.rollouts import clipped_loss, whitened
from headwater.parts.clipped_policy import minibatch_epochs
from headwater.parts.on_policy.actor_and_value import ActorAndValue, begin_on_policy
from headwater.parts.soft_actor_critic import Actor


class PPO(
    AbstractMethod[Spaces, Transitions, ActorAndValue],
    AbstractPolicy[ActorAndValue],
    AbstractLikelihood[ActorAndValue],
    AbstractWarmStart[Spaces, ActorAndValue],
):
    r"""Clipped policy gradient with a value of every observation, on what the policy just did.

    Each update learns from one rollout, of `[step, copy]` or `[step]`. Generalised advantages $A$,
    standardised, and returns $G = A + V$ are held fixed for `num_epochs`; with $w$ the ratio of the
    probabilities of an action now and when it was taken, the loss is
    $-\min(wA, \mathrm{clip}(w, 1-\epsilon, 1+\epsilon)A) + c\,(V - G)^2 - \eta H(\pi)
    + \beta_k\,\mathrm{KL}(\pi_0 \| \pi)$, where $\pi_0$ is the policy that it began with and
    $\beta_k = \beta\rho^k$ in update $k$. Begun with a clone of demonstrators, the last term is
    VPT's. Language models have `TokenPPO`.

    **Arguments:**

    - `discount`, `gae_lambda`: γ and λ of generalised advantages.
    - `clip_range`: ε.
    - `value_weight`, `entropy_weight`: c and η.
    - `kl_weight`, `kl_decay`: β and ρ; VPT takes 0.2 and 0.9995.
    - `learning_rate`, `max_gradient_norm`: of Adam.
    - `num_epochs`, `num_minibatches`: passes over each rollout, and parts of it.
    - `normalise_returns`: count values in deviations of all returns so far, about their mean.
    - `normalise_observations`: standardise with the mean and deviation of a log, where one was
      learned from before.
    - `hidden_sizes`: hidden layers of policy and value.

    **Reference:** Schulman, Wolski, Dhariwal, Radford, Klimov (2017), arXiv:1707.06347; the
    divergence from the policy that it began with: Baker et al. (2022), arXiv:2206.11795.

    **Differences from the paper:** defaults are those of Stable-Baselines3; but advantages are
    standardised over the rollout, not over each part, values are counted in deviations of
    returns, continuous actions are drawn from a squashed normal whose deviation depends on the
    observation, and where an episode is cut, the value of the state reached is counted on (as in
    the equations, but in few implementations). VPT uses a phasic variant of this method.
    """

    feed: ClassVar[Feed] = Feed.ROLLOUT
    info: ClassVar[Info] = Info(
        "schulman2017proximal",
        summary="clipped policy gradient on what it just did, near the policy it began with",
        parents=("TRPO", "Actor-critic"),
    )

    discount: float = share(0.99)
    gae_lambda: float = share(0.95)
    clip_range: float = non_negative(0.2)
    value_weight: float = non_negative(0.5)
    entropy_weight: float = non_negative(0.0)
    kl_weight: float = non_negative(0.0)
    kl_decay: float = share(0.9995)
    learning_rate: float = non_negative(3e-4)
    max_gradient_norm: float = positive(0.5, infinite=True)
    num_epochs: int = integer(10)
    num_minibatches: int = integer(16)
    normalise_returns: bool = flag(True)
    normalise_observations: bool = flag(False)
    hidden_sizes: tuple[int, ...] = sizes((64, 64))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> ActorAndValue:
        begun = self._begin(problem, None, key)
        assert begun is not None
        return begun

    def warm_start(
        self, learned: Agent, problem: Spaces, *, key: PRNGKeyArray
    ) -> ActorAndValue | None:
        return self._begin(problem, learned, key)

    def update(self, state: ActorAndValue, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        if data.reward.ndim == 1:
            data = jax.tree.map(lambda x: x[:, None], data)
        value = state.value(data.observation)
        following = jnp.where(data.terminal, 0.0, state.value(data.next_observation))
        advantage = generalised_advantages(
            data.reward + self.discount * following - value,
            ~(data.terminal | data.truncated),
            self.discount * self.gae_lambda,
        )
        target, returns = advantage + value, state.returns
        if self.normalise_returns:
            returns = returns.with_many(target.reshape(-1))
        rows = (
            data.observation,
            data.action,
            state.actor(data.observation).log_density(data.action),
            whitened(advantage, jnp.ones(advantage.shape, bool)),
            returns.standardised(target),
        )
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
        shuffle_key, entropy_key = jax.random.split(key)
        (state, _), metrics = minibatch_epochs(
            lambda carry, rows: self._step(carry, rows),
            (dataclasses.replace(state, returns=returns), entropy_key),
            rows,
            num_epochs=self.num_epochs,
            num_minibatches=self.num_minibatches,
            key=shuffle_key,
        )
        return dataclasses.replace(state, updates=state.updates + 1), metrics

    def act(self, state: ActorAndValue, observation: Array, *, key: PRNGKeyArray, explore: bool):
        return choose(state.actor, state.normaliser(observation), key=key, explore=explore), ()

    def log_probability(self, state: ActorAndValue, observation: Array, action: Array) -> Array:
        return state.actor(state.normaliser(observation)).log_density(action)

    @property
    def _adam(self) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.max_gradient_norm),  # pyright: ignore[reportArgumentType]
            optax.adam(self.learning_rate, eps=1e-5),
        )

    def _begin(self, problem: Spaces, learned: Agent | None, key) -> ActorAndValue | None:
        given = problem, self.hidden_sizes, self._adam, self.normalise_observations
        return begin_on_policy(*given, learned=learned, key=key)

    def _step(self, carry: tuple[ActorAndValue, PRNGKeyArray], rows):
        (state, key), (observation, action, old, advantage, target) = carry, rows
        key, entropy_key = jax.random.split(key)
        kl_weight = self.kl_weight * self.kl_decay ** state.updates.astype(jnp.float32)
        prior = state.prior(observation)

        def loss(networks: tuple[Actor, MLP]):
            actor, critic = networks
            policy = actor(observation)
            losses, bounded = clipped_loss(
                policy.log_density(action) - old, advantage, self.clip_range, self.clip_range
            )
            _, log_density, weight = policy.expectation(entropy_key)
            found = {
                "policy_loss": jnp.mean(losses),
                "value_loss": jnp.mean((critic(observation)[..., 0] - target) ** 2),
                "entropy": -jnp.mean(jnp.sum(weight * log_density, axis=0)),
                "divergence": jnp.mean(divergence_from(prior, policy)),
                "clipped": jnp.mean(bounded.astype(jnp.float32)),
            }
            total = found["policy_loss"] + self.value_weight * found["value_loss"]
            total = total - self.entropy_weight * found["entropy"]
            return total + kl_weight * found["divergence"], found

        networks = state.actor, state.critic
        gradients, metrics = jax.grad(loss, has_aux=True)(networks)
        (actor, critic), optimiser = descend(self._adam, gradients, state.optimiser, networks)
        changed = dataclasses.replace(state, actor=actor, critic=critic, optimiser=optimiser)
        return (changed, key), metrics
