"""Stream AC(λ)."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, non_negative, share, sizes
from headwater.core.method import AbstractLikelihood, AbstractMethod, AbstractPolicy, Info
from headwater.core.records import Transition
from headwater.core.spaces import Spaces
from headwater.networks.distributions import Categorical, Normal
from headwater.networks.sparse_network import SparseNetwork
from headwater.ops.control.bellman import backup
from headwater.ops.control.traces import accumulated, cleared, no_trace, step_along
from headwater.parts.streaming import Scales, begin_scales, scaled_step, standardised

_SMALLEST_STD = 1e-5


class StreamActor(eqx.Module):
    """Logits of actions, or means and deviations of them, that depend on the observation."""

    network: SparseNetwork
    discrete: bool = eqx.field(static=True)

    def __call__(self, observation: Float[Array, " observation"]) -> Categorical | Normal:
        output = self.network(observation)
        if self.discrete:
            return Categorical(output)
        mean, spread = jnp.split(output, 2)
        return Normal(mean, jnp.log(jax.nn.softplus(spread) + _SMALLEST_STD))


class StreamACState(eqx.Module):
    """Actor and critic, their traces, and the scales of observations and rewards."""

    actor: StreamActor
    critic: SparseNetwork
    actor_trace: Any
    critic_trace: Any
    scales: Scales


class StreamAC(
    AbstractMethod[Spaces, Transition, StreamACState],
    AbstractPolicy[StreamACState],
    AbstractLikelihood[StreamACState],
):
    r"""Actor-critic from one step at a time, with eligibility traces and no replay.

    $\delta = r + \gamma(1-d)V(s') - V(s)$; the critic's trace gathers $\nabla V(s)$, the actor's
    $\nabla[\log\pi(a|s) + \eta\,\mathrm{sign}(\delta)H(\pi(\cdot|s))]$, both decay by γλ and both
    networks go up $\delta z$ by $\alpha / \max(\alpha\kappa\bar\delta\lVert z\rVert_1, 1)$ with
    $\bar\delta = \max(|\delta|, 1)$, so that no step overshoots.

    **Arguments:**

    - `discount`: weight of the next step's value, γ.
    - `trace_decay`: λ, of both traces.
    - `learning_rate`: α, the largest step size.
    - `actor_kappa`, `critic_kappa`: κ; larger keeps steps farther from overshooting.
    - `entropy_weight`: η.
    - `sparsity`: share of the weights that begin at zero.
    - `bounded`: let the step size shrink; if not, it is the learning rate.
    - `normalise_observations`: standardise with mean and deviation of what was seen so far.
    - `scale_rewards`: divide by the deviation of discounted sums of rewards so far.
    - `hidden_sizes`: hidden layers, of both networks.

    **Reference:** Elsayed, Vasan, Mahmood (2024), arXiv:2410.14606.

    **Differences from the paper:** a truncated step is not treated as terminal, so observations
    need no time beside them; observations behind a terminal step are not counted; one input of each
    unit stays, however sparse. Actions are drawn in [-1, 1], and where they were clipped the
    density is that of the edge.
    """

    feed: ClassVar[Feed] = Feed.STREAM
    info: ClassVar[Info] = Info(
        "elsayed2024streaming",
        summary="actor-critic with traces from one step at a time",
        parents=("Actor-critic",),
    )

    discount: float = share(0.99)
    trace_decay: float = share(0.8)
    learning_rate: float = non_negative(1.0)
    actor_kappa: float = non_negative(3.0)
    critic_kappa: float = non_negative(2.0)
    entropy_weight: float = non_negative(0.01)
    sparsity: float = share(0.9)
    bounded: bool = flag(True)
    normalise_observations: bool = flag(True)
    scale_rewards: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((128, 128))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> StreamACState:
        actor_key, critic_key = jax.random.split(key)
        outputs = problem.action_size * (1 if problem.discrete else 2)

        def network(outputs: int, key: PRNGKeyArray) -> SparseNetwork:
            inputs = problem.observation_size
            return SparseNetwork(
                inputs, outputs, self.hidden_sizes, sparsity=self.sparsity, key=key
            )

        actor = StreamActor(network(outputs, actor_key), problem.discrete)
        critic = network(1, critic_key)
        return StreamACState(
            actor, critic, no_trace(actor), no_trace(critic), begin_scales(problem)
        )

    def update(self, state: StreamACState, data: Transition, *, key: PRNGKeyArray):
        scales, data = scaled_step(self, state.scales, data)
        value, up_value = jax.value_and_grad(lambda critic: critic(data.observation)[0])(
            state.critic
        )
        next_value = state.critic(data.next_observation)[0]
        error = backup(data.reward, self.discount, data.terminal, next_value) - value

        def preference(actor: StreamActor):
            policy = actor(data.observation)
            # The trace is multiplied by δ: with its sign entropy is pushed up, never down.
            entropy = _entropy(policy)
            bonus = self.entropy_weight * jnp.sign(error) * entropy
            return policy.log_density(data.action) + bonus, entropy

        up_policy, entropy = jax.grad(preference, has_aux=True)(state.actor)
        over, decay = data.terminal | data.truncated, self.discount * self.trace_decay
        critic_trace = accumulated(state.critic_trace, up_value, decay)
        actor_trace = accumulated(state.actor_trace, up_policy, decay)
        critic, critic_size = self._step(state.critic, critic_trace, error, self.critic_kappa)
        actor, actor_size = self._step(state.actor, actor_trace, error, self.actor_kappa)
        metrics = {
            "td_error": jnp.abs(error),
            "critic_step_size": critic_size,
            "actor_step_size": actor_size,
            "entropy": entropy,
        }
        actor_trace, critic_trace = cleared((actor_trace, critic_trace), over)
        return StreamACState(actor, critic, actor_trace, critic_trace, scales), metrics

    def act(self, state: StreamACState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        policy = self._policy(state, observation, live=explore)
        return (policy.sample(key)[0] if explore else policy.mode()), ()

    def log_probability(self, state: StreamACState, observation: Array, action: Array) -> Array:
        return self._policy(state, observation, live=True).log_density(action)

    def _policy(self, state: StreamACState, observation: Array, live: bool):
        return state.actor(standardised(self, state.scales, observation, live))

    def _step(self, network: Any, trace: Any, error: Array, kappa: Any):
        return step_along(
            network,
            trace,
            error,
            learning_rate=self.learning_rate,
            kappa=kappa,
            bounded=self.bounded,
        )


def _entropy(policy: Categorical | Normal) -> Float[Array, ""]:
    """The entropy, of a normal distribution up to a constant."""
    if isinstance(policy, Normal):
        return jnp.sum(policy.log_std)
    log_probability = jax.nn.log_softmax(policy.logits)
    return -jnp.sum(jnp.exp(log_probability) * log_probability)
