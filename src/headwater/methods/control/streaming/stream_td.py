"""Stream TD(λ)."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, non_negative, share, sizes
from headwater.core.method import AbstractMethod, Info, Observation
from headwater.core.records import Transition
from headwater.core.spaces import Spaces
from headwater.networks.sparse_network import SparseNetwork
from headwater.ops.control.bellman import backup
from headwater.ops.control.traces import accumulated, cleared, no_trace, step_along
from headwater.parts.streaming import (
    Scales,
    begin_scales,
    reward_scale,
    scaled_step,
    standardised,
)


class StreamTDState(eqx.Module):
    """State values, their trace, and the scales of observations and rewards."""

    network: SparseNetwork
    trace: Any
    scales: Scales


class StreamTD(AbstractMethod[Spaces, Transition, StreamTDState]):
    r"""Predicts the return of whoever acts, from one step at a time, with eligibility traces.

    $\delta = r + \gamma(1-d)V(s') - V(s)$, $z \leftarrow \gamma\lambda z + \nabla V(s)$ and
    $w \leftarrow w + \alpha\,\delta z / \max(\alpha\kappa\bar\delta\lVert z\rVert_1, 1)$ with
    $\bar\delta = \max(|\delta|, 1)$, so that no step overshoots. Actions are never read.

    **Arguments:**

    - `discount`: weight of the next step's value, γ.
    - `trace_decay`: λ; 0 bootstraps at every step, 1 in the end only.
    - `learning_rate`: α, the largest step size.
    - `kappa`: κ; larger keeps steps farther from overshooting.
    - `sparsity`: share of the weights that begin at zero.
    - `bounded`: let the step size shrink; if not, it is the learning rate.
    - `normalise_observations`: standardise with mean and deviation of what was seen so far.
    - `scale_rewards`: divide by the deviation of discounted sums of rewards so far.
    - `hidden_sizes`: hidden layers; without any the value is linear.

    **Reference:** Elsayed, Vasan, Mahmood (2024), arXiv:2410.14606; Sutton (1988).

    **Differences from the paper:** a truncated step is not treated as terminal; observations behind
    a terminal step are not counted; one input of each unit stays, however sparse.
    """

    feed: ClassVar[Feed] = Feed.STREAM
    info: ClassVar[Info] = Info(
        "elsayed2024streaming",
        summary="prediction of returns with traces from one step at a time",
    )

    discount: float = share(0.99)
    trace_decay: float = share(0.8)
    learning_rate: float = non_negative(1.0)
    kappa: float = non_negative(2.0)
    sparsity: float = share(0.9)
    bounded: bool = flag(True)
    normalise_observations: bool = flag(True)
    scale_rewards: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((128, 128))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> StreamTDState:
        network = SparseNetwork(
            problem.observation_size, 1, self.hidden_sizes, sparsity=self.sparsity, key=key
        )
        return StreamTDState(network, no_trace(network), begin_scales(problem))

    def update(self, state: StreamTDState, data: Transition, *, key: PRNGKeyArray):
        scales, data = scaled_step(self, state.scales, data)
        value, gradient = jax.value_and_grad(lambda network: network(data.observation)[0])(
            state.network
        )
        next_value = state.network(data.next_observation)[0]
        error = backup(data.reward, self.discount, data.terminal, next_value) - value
        trace = accumulated(state.trace, gradient, self.discount * self.trace_decay)
        network, size = step_along(
            state.network,
            trace,
            error,
            learning_rate=self.learning_rate,
            kappa=self.kappa,
            bounded=self.bounded,
        )
        trace = cleared(trace, data.terminal | data.truncated)
        metrics = {"td_error": jnp.abs(error), "step_size": size}
        return StreamTDState(network, trace, scales), metrics

    def predict(self, state: StreamTDState, observation: Observation) -> Float[Array, ""]:
        """The discounted return expected from `observation` on, in units of the reward."""
        seen: Array = standardised(self, state.scales, observation, live=False)
        return state.network(seen)[0] * reward_scale(self, state.scales)
