"""NetLLM: a language model's body reads trajectories and acts for the return that is asked for."""

from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive
from headwater.core.method import (
    AbstractMethod,
    AbstractPolicy,
    AbstractReturnsToGo,
    AbstractTokenPolicy,
    AbstractWarmStart,
    Agent,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.core.tokens import AbstractTokenNetwork
from headwater.networks.control.trajectories import (
    Training,
    TrajectoryTransformer,
    error_of_actions,
    with_body_of,
)
from headwater.networks.control.trajectory_windows import Layout
from headwater.networks.decoders.architecture import Architecture
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.distributions import Categorical
from headwater.networks.low_rank_adapters import Adapted
from headwater.ops.control.noise import normal
from headwater.parts.fine_tuning import Schedule


class NetLLMState(eqx.Module):
    """The network, moments, updates so far, how observations are laid out, and logged returns."""

    network: TrajectoryTransformer
    optimiser: optax.OptState
    step: Int[Array, ""]
    layout: Layout
    worst: Float[Array, ""]
    best: Float[Array, ""]


class NetLLM(
    AbstractMethod[Spaces, Transitions, NetLLMState],
    AbstractPolicy[NetLLMState],
    AbstractReturnsToGo,
    AbstractWarmStart[Spaces, NetLLMState],
):
    r"""Predicts the logged actions from the return that followed, and asks for a high one.

    A transformer reads $(\hat R_i, s_i, a_i)$ of the last steps, where $\hat R_i$ is the return to
    go, and predicts each $a_i$ from what stands before it: by the cross-entropy of a softmax over
    the valid actions, or the squared error for continuous ones. Acting, $\hat R$ is the return that
    is asked for less what the episode has brought. The body between the maps that read and the head
    that answers is that of a language model, with adapters of low rank (`warm_start` from one);
    without one it is drawn at random, and trained whole it is a decision transformer.

    Windows come from `with_trajectory` and `WithTrajectory`. Otherwise the episode's return so far
    is not known, and the same return to go is asked for at every step.

    **Arguments:**

    - `target_return`: what is asked for: 0 the worst and 1 the best return of the log.
    - `training`: what is trained of the body.
    - `learning_rate`, `warmup_updates` (linear), `weight_decay`, `max_gradient_norm`: of AdamW.
    - `exploration_noise`: deviation of the noise while exploring, of continuous actions.
    - `adapter_rank`: of adapters of queries and values, which count twice.
    - `width`, `layers`, `heads`: of a body that is drawn at random.
    - `normalise_observations`: standardise with the data's mean and deviation.

    **Reference:** Wu et al. (2024), arXiv:2402.02338; Chen et al. (2021), arXiv:2106.01345.

    **Differences from the paper:** an observation is one vector, not one for each part of it; the
    time in the episode has no embedding; returns are in units of the largest logged one; batches
    instead of gradients accumulated over windows; the decision transformer's bound on gradients.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "wu2024netllm",
        summary="a language model's body acts for the return that is asked for",
        parents=("Decision transformer",),
    )

    discount: ClassVar[float] = 1.0
    """Returns are undiscounted, so that what is left of one is known at every step."""

    target_return: float = non_negative(1.0)
    training: Training = choice("adapters")
    learning_rate: float = non_negative(1e-4)
    warmup_updates: float = non_negative(2000.0)
    weight_decay: float = non_negative(1e-4)
    max_gradient_norm: float = positive(0.25, infinite=True)
    exploration_noise: float = non_negative(0.1)
    adapter_rank: int = integer(8)
    width: int = integer(64)
    layers: int = integer(3)
    heads: int = integer(4)
    normalise_observations: bool = flag(True)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> NetLLMState:
        body_key, key = jax.random.split(key)
        if self.width % self.heads or self.width // self.heads % 2:
            raise SpecificationError(
                f"NetLLM: width = {self.width} over heads = {self.heads} must be an even number: "
                "take a width that is a multiple of twice the heads"
            )
        steps = Layout(problem, False).frames.length
        architecture = Architecture(1, 3 * steps, self.width, self.layers, self.heads, tied=True)
        return self.begin_with(Decoder(architecture, key=body_key), problem, key=key)

    def warm_start(
        self, learned: Agent, problem: Spaces, *, key: PRNGKeyArray
    ) -> NetLLMState | None:
        network = learned.network() if isinstance(learned.method, AbstractTokenPolicy) else None
        if not isinstance(network, Decoder | Adapted):
            return None
        return self.begin_with(network, problem, key=key)

    def begin_with(
        self, model: AbstractTokenNetwork, problem: Spaces, *, key: PRNGKeyArray
    ) -> NetLLMState:
        """The state with the body of a language model; raises what `with_body_of` raises."""
        layout = Layout(problem, self.normalise_observations)
        network = with_body_of(
            model, layout, problem.action_size, self.training, self.adapter_rank, key=key
        )
        known = problem.statistics
        step = jnp.zeros((), jnp.int32)
        trained = eqx.filter(network, network.trainable())
        return NetLLMState(
            network=network,
            optimiser=self._schedule.optimiser(step).init(trained),
            step=step,
            layout=layout,
            worst=jnp.zeros(()) if known is None else jnp.asarray(known.return_low),
            best=jnp.ones(()) if known is None else jnp.asarray(known.return_high),
        )

    def update(self, state: NetLLMState, data: Transitions, *, key: PRNGKeyArray):
        if data.return_to_go is None:
            raise SpecificationError(
                "NetLLM is told what followed each action: give it the return_to_go of logged rows "
                "(`Dataset.transitions(1.0)`)"
            )
        window = state.layout(data.observation)
        to_go = data.return_to_go[:, None] + window.so_far[:, -1:]
        returns = jnp.broadcast_to(to_go, window.so_far.shape) - window.so_far
        own, discrete = data.action, state.layout.discrete
        if discrete:
            own = jax.nn.one_hot(own, state.layout.actions)
        # The action in a step is the one before the next.
        actions = jnp.concatenate([window.before[:, 1:], own[:, None]], axis=1)
        trained, fixed = eqx.partition(state.network, state.network.trainable())

        def loss(trained) -> Float[Array, ""]:
            network = eqx.combine(trained, fixed)
            found = network(returns / _unit(state), window.observation, actions, window.present)
            return error_of_actions(found, actions, window.present, discrete)

        value, gradients = jax.value_and_grad(loss)(trained)
        updates, optimiser = self._schedule.optimiser(state.step).update(
            gradients, state.optimiser, trained
        )
        network = eqx.combine(eqx.apply_updates(trained, updates), fixed)
        state = replace(state, network=network, optimiser=optimiser, step=state.step + 1)
        return state, {"actor_loss": value, "gradient_norm": optax.tree.norm(gradients)}

    def act(self, state: NetLLMState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        window = jax.tree.map(lambda x: x[None], state.layout(observation))
        asked = state.worst + self.target_return * (state.best - state.worst)
        returns = (asked - window.so_far) / _unit(state)
        # The action in the last step is looked at by nothing.
        actions = jnp.roll(window.before, -1, axis=1)
        found = state.network(returns, window.observation, actions, window.present)[0, -1]
        if state.layout.discrete:
            chances = Categorical(found)
            return (chances.sample(key)[0] if explore else chances.mode()), ()
        noise = self.exploration_noise * normal(key, found.shape) if explore else 0.0
        return jnp.clip(jnp.tanh(found) + noise, -1.0, 1.0), ()

    @property
    def _schedule(self) -> Schedule:
        rates = self.learning_rate, self.warmup_updates, jnp.inf
        return Schedule(*rates, self.weight_decay, self.max_gradient_norm)


def _unit(state: NetLLMState) -> Float[Array, ""]:
    """What returns are counted in: the largest logged one, whatever its sign."""
    return jnp.maximum(jnp.maximum(jnp.abs(state.worst), jnp.abs(state.best)), 1e-6)
