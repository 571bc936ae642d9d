"""Stream Q(λ)."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, non_negative, positive, share, sizes
from headwater.core.method import (
    AbstractLikelihood,
    AbstractMethod,
    AbstractPolicy,
    AbstractValue,
    Info,
)
from headwater.core.records import Transition
from headwater.core.spaces import Spaces
from headwater.networks.sparse_network import SparseNetwork
from headwater.ops.control.bellman import backup
from headwater.ops.control.exploration import (
    epsilon_greedy,
    epsilon_greedy_log_probability,
    falling_exploration,
    greedy,
)
from headwater.ops.control.traces import accumulated, cleared, no_trace, step_along
from headwater.parts.streaming import (
    Scales,
    begin_scales,
    reward_scale,
    scaled_step,
    standardised,
)


class StreamQState(eqx.Module):
    """Action values, their trace, and the scales of observations and rewards."""

    network: SparseNetwork
    trace: Any
    scales: Scales


class StreamQ(
    AbstractMethod[Spaces, Transition, StreamQState],
    AbstractPolicy[StreamQState],
    AbstractValue[StreamQState],
    AbstractLikelihood[StreamQState],
):
    r"""Q-learning from one step at a time, with eligibility traces and no replay. Discrete only.

    $\delta = r + \gamma(1-d)\max_{a'} Q(s',a') - Q(s,a)$, $z \leftarrow \gamma\lambda z +
    \nabla Q(s,a)$ and $w \leftarrow w + \alpha\,\delta z / \max(\alpha\kappa\bar\delta
    \lVert z\rVert_1, 1)$ with $\bar\delta = \max(|\delta|, 1)$, so that no step overshoots. The
    trace is cleared after the last step of an episode and after an action that was not greedy
    (Watkins). Explores by taking a uniformly random action with a probability ε that falls linearly
    with the number of steps.

    **Arguments:**

    - `discount`: weight of the next step's value, γ.
    - `trace_decay`: λ.
    - `learning_rate`: α, the largest step size.
    - `kappa`: κ; larger keeps steps farther from overshooting.
    - `initial_exploration_rate`, `final_exploration_rate`: ε before the first update and
      in the end.
    - `exploration_decay_updates`: updates over which ε falls.
    - `sparsity`: share of the weights that begin at zero.
    - `bounded`: let the step size shrink; if not, it is the learning rate.
    - `normalise_observations`: standardise with mean and deviation of what was seen so far.
    - `scale_rewards`: divide by the deviation of discounted sums of rewards so far.
    - `hidden_sizes`: hidden layers.

    **Reference:** Elsayed, Vasan, Mahmood (2024), arXiv:2410.14606.

    **Differences from the paper:** a truncated step is not treated as terminal, so observations
    need no time beside them; observations behind a terminal step are not counted; one input of each
    unit stays, however sparse; ε falls within 10,000 steps, a tenth of 100,000.
    """

    feed: ClassVar[Feed] = Feed.STREAM
    info: ClassVar[Info] = Info(
        "elsayed2024streaming",
        summary="Q-learning with traces from one step at a time, with steps that do not overshoot",
        parents=("Q-learning",),
    )

    discount: float = share(0.99)
    trace_decay: float = share(0.8)
    learning_rate: float = non_negative(1.0)
    kappa: float = non_negative(2.0)
    initial_exploration_rate: float = share(1.0)
    final_exploration_rate: float = share(0.01)
    exploration_decay_updates: float = positive(10_000.0)
    sparsity: float = share(0.9)
    bounded: bool = flag(True)
    normalise_observations: bool = flag(True)
    scale_rewards: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((32, 32))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> StreamQState:
        problem.require_discrete("StreamQ")
        network = SparseNetwork(
            problem.observation_size,
            problem.action_size,
            self.hidden_sizes,
            sparsity=self.sparsity,
            key=key,
        )
        return StreamQState(network, no_trace(network), begin_scales(problem))

    def update(self, state: StreamQState, data: Transition, *, key: PRNGKeyArray):
        scales, data = scaled_step(self, state.scales, data)

        def value(network: SparseNetwork):
            values = network(data.observation)
            return values[data.action], jnp.max(values)

        (prediction, highest), gradient = jax.value_and_grad(value, has_aux=True)(state.network)
        next_value = jnp.max(state.network(data.next_observation))
        error = backup(data.reward, self.discount, data.terminal, next_value) - prediction
        trace = accumulated(state.trace, gradient, self.discount * self.trace_decay)
        network, size = step_along(
            state.network,
            trace,
            error,
            learning_rate=self.learning_rate,
            kappa=self.kappa,
            bounded=self.bounded,
        )
        # What was done is off the path whose return the trace would hand back.
        trace = cleared(trace, data.terminal | data.truncated | (prediction < highest))
        metrics = {
            "td_error": jnp.abs(error),
            "step_size": size,
            "exploration": self._epsilon(state),
        }
        return StreamQState(network, trace, scales), metrics

    def act(self, state: StreamQState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        values = self._values(state, observation, explore)
        if not explore:
            return greedy(values), ()
        return epsilon_greedy(values, self._epsilon(state), key=key), ()

    def value(self, state: StreamQState, observation: Array, action: Array) -> Array:
        values = self._values(state, observation, live=False)
        return values[action] * reward_scale(self, state.scales)

    def log_probability(self, state: StreamQState, observation: Array, action: Array) -> Array:
        values = self._values(state, observation, live=True)
        return epsilon_greedy_log_probability(values, action, self._epsilon(state))

    def _values(self, state: StreamQState, observation: Array, live: bool) -> Array:
        return state.network(standardised(self, state.scales, observation, live))

    def _epsilon(self, state: StreamQState) -> Float[Array, ""]:
        rates = self.initial_exploration_rate, self.final_exploration_rate
        return falling_exploration(state.scales.step, *rates, self.exploration_decay_updates)
