"""TD3 with behavioural cloning."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, share, sizes
from headwater.core.method import AbstractMethod, AbstractPolicy, AbstractValue, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.actors import DeterministicActor, choose_near
from headwater.networks.critics import critics
from headwater.networks.mlp import Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.bellman import backup, ensemble_error
from headwater.ops.control.descend import begin, descend, polyak
from headwater.ops.control.exploration import smoothed_action
from headwater.ops.control.improvement import unit_scale


class TD3BCState(eqx.Module):
    """Networks, targets, optimiser moments and the scale of observations taken from the data.

    `actor_loss` is that of the last step of the actor, so that it can be logged between them.
    """

    actor: DeterministicActor
    critics: Ensemble
    target_actor: DeterministicActor
    target_critics: Ensemble
    actor_optimiser: optax.OptState
    critic_optimiser: optax.OptState
    normaliser: Normaliser
    actor_loss: Float[Array, ""]
    step: Int[Array, ""]


class TD3BC(
    AbstractMethod[Spaces, Transitions, TD3BCState],
    AbstractPolicy[TD3BCState],
    AbstractValue[TD3BCState],
):
    r"""TD3+BC: an actor that climbs the critic and is held to the logged actions. Continuous only.

    $y = r + \gamma(1-d)\min_i \bar Q_i(s', \bar\pi(s') + \epsilon)$ with
    $\epsilon = \mathrm{clip}(N(0,\sigma^2), \pm c)$; $L_Q = \sum_i E(y - Q_i(s,a))^2$. Every
    second update, $L_\pi = -\lambda E Q_1(s,\pi(s)) + E\,\mathrm{mean}_j(\pi_j(s) - a_j)^2$ with
    $\lambda = \alpha / E|Q_1(s,\pi(s))|$ held constant, and both targets move.

    **Arguments:**

    - `discount`: weight of the next step's value.
    - `alpha`: α; 0 is behavioural cloning, larger trusts the critic more.
    - `target_noise`, `target_noise_bound`: σ and c of the noise on the target's action.
    - `learning_rate`: of Adam, for actor and critics.
    - `target_rate`: Polyak rate of the targets.
    - `exploration_noise`: deviation of the noise when acting to explore.
    - `policy_delay`: updates of the critics for each of the actor and the targets.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `widths`: hidden layers of every network.

    **Reference:** Fujimoto, Gu (2021), arXiv:2106.06860.

    **Differences from the paper:** λ is bounded, so that values of zero do not divide by zero.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "fujimoto2021minimalist",
        summary="TD3 whose actor is also regressed on the logged actions",
        parents=("BC",),
    )

    discount: float = share(0.99)
    alpha: float = non_negative(2.5)
    target_noise: float = non_negative(0.2)
    target_noise_bound: float = non_negative(0.5)
    learning_rate: float = non_negative(3e-4)
    target_rate: float = share(0.005)
    exploration_noise: float = non_negative(0.1)
    policy_delay: int = integer(2, static=False)
    normalise_observations: bool = flag(True)
    widths: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> TD3BCState:
        problem.require_continuous("TD3BC")
        actor_key, critic_key = jax.random.split(key)
        actor = DeterministicActor(problem, self.widths, key=actor_key)
        twins = critics(problem, self.widths, 2, key=critic_key)
        optimiser = optax.adam(self.learning_rate)
        return TD3BCState(
            actor=actor,
            critics=twins,
            target_actor=actor,
            target_critics=twins,
            actor_optimiser=begin(optimiser, actor),
            critic_optimiser=begin(optimiser, twins),
            normaliser=Normaliser(problem, self.normalise_observations),
            actor_loss=jnp.zeros(()),
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: TD3BCState, data: Transitions, *, key: PRNGKeyArray):
        data = state.normaliser.transitions(data)
        target = self._target(state, data, key)
        optimiser = optax.adam(self.learning_rate)

        def critic_loss(twins: Ensemble):
            prediction = twins(data.observation, data.action)
            return ensemble_error(prediction, target), jnp.mean(prediction)

        (loss, q), gradients = jax.value_and_grad(critic_loss, has_aux=True)(state.critics)
        twins, critic_optimiser = descend(
            optimiser, gradients, state.critic_optimiser, state.critics
        )
        first = jax.tree.map(lambda leaf: leaf[0], twins.stacked)

        def actor_loss(actor: DeterministicActor) -> Float[Array, ""]:
            action = actor(data.observation)
            gain = jnp.mean(unit_scale(first(data.observation, action)))
            return jnp.mean((action - data.action) ** 2) - self.alpha * gain

        def improve():
            loss, gradients = jax.value_and_grad(actor_loss)(state.actor)
            actor, moments = descend(optimiser, gradients, state.actor_optimiser, state.actor)
            target_actor = polyak(state.target_actor, actor, self.target_rate)
            target_critics = polyak(state.target_critics, twins, self.target_rate)
            return actor, target_actor, target_critics, moments, loss

        def wait():
            targets = state.target_actor, state.target_critics
            return state.actor, *targets, state.actor_optimiser, state.actor_loss

        step = state.step + 1
        actor, target_actor, target_critics, moments, last_loss = jax.lax.cond(
            step % self.policy_delay == 0, improve, wait
        )
        state = TD3BCState(
            actor=actor,
            critics=twins,
            target_actor=target_actor,
            target_critics=target_critics,
            actor_optimiser=moments,
            critic_optimiser=critic_optimiser,
            normaliser=state.normaliser,
            actor_loss=last_loss,
            step=step,
        )
        return state, {"critic_loss": loss, "actor_loss": last_loss, "q": q}

    def _target(self, state: TD3BCState, data: Transitions, key: PRNGKeyArray):
        next_action = smoothed_action(
            state.target_actor(data.next_observation),
            key=key,
            noise=self.target_noise,
            largest=self.target_noise_bound,
        )
        value = jnp.min(state.target_critics(data.next_observation, next_action), axis=0)
        return backup(data.reward, self.discount, data.terminal, value)

    def act(self, state: TD3BCState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        observation, noise = state.normaliser(observation), self.exploration_noise
        return choose_near(state.actor, observation, key=key, explore=explore, noise=noise), ()

    def value(self, state: TD3BCState, observation: Array, action: Array) -> Array:
        return jnp.min(state.critics(state.normaliser(observation), action), axis=0)
