"""Experts with gates that are learned after them, to be chosen among for each token."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.adapters.gated import Gated
from headwater.networks.decoders.decoder import Decoder
from headwater.networks.low_rank_adapters import Adapted
from headwater.ops.language.tokens import averaged, token_log_probabilities
from headwater.parts.fine_tuning import (
    Decay,
    TuningState,
    begin_tuning,
    schedule_of,
    tune,
)


class PHATGOOSEState(eqx.Module):
    """An expert and its gates, and the moments of both.

    **Arguments:** `expert`; `optimiser`: of the adapters; `gate_optimiser`; `step`.
    """

    expert: Gated
    optimiser: optax.OptState
    gate_optimiser: optax.OptState
    step: Int[Array, ""]


class PHATGOOSE(
    AbstractMethod[TokenProblem, Completions, PHATGOOSEState],
    AbstractTokenPolicy[PHATGOOSEState],
):
    r"""Learns adapters by maximum likelihood, then a gate in front of each of them.

    For the first updates it is `SFT` of adapters. Then these are frozen, and for each a vector $v$
    is learned by the same loss, where a matrix $W$ gives $xW + \sigma(x\cdot v)\,s\,xAB$. Experts
    that learned apart from each other are put together without further training (`routed` in
    `networks/adapters/gated.py`): for each token and matrix the gates say which two are added.
    `network` is the expert alone, whose adapters are then always added whole.

    **Arguments:**

    - `expert_updates`: in which the adapters learn; the gates learn from then on (100 in the
      paper). Adapters that are trained already need none.
    - `expert_rank`: of adapters on all matrices, each counted 1 / rank times, where the network has
      none.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`, which begins anew with the gates; with `None`
      for `decay_updates` the rate reaches zero where `train` or a sweep ends; elsewhere it is
      constant.

    **Reference:** Muqeeth, Liu, Liu, Raffel (2024), arXiv:2402.05859.

    **Differences from the paper:** a decoder in place of an encoder with a decoder; the learning
    rate falls by default, and does not warm up.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "muqeeth2024learning",
        summary="adapters, then gates in front of them that route tokens among experts",
        parents=("SFT",),
    )

    expert_updates: float = non_negative(1_000.0)
    expert_rank: int = integer(16)
    learning_rate: float = non_negative(5e-3)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> PHATGOOSEState:
        network = problem.network
        if isinstance(network, Decoder):
            network = Adapted(network, key=key, rank=self.expert_rank, alpha=1.0, matrices=None)
        if not isinstance(network, Adapted):
            raise SpecificationError(
                f"PHATGOOSE learns adapters of decoders, and {type(network).__name__} is no decoder"
            )
        expert, schedule = Gated(network), schedule_of(self)
        adapters = begin_tuning(network, schedule, reference=False)
        gates = begin_tuning(expert, schedule, reference=False)
        return PHATGOOSEState(expert, adapters.optimiser, gates.optimiser, adapters.step)

    def update(self, state: PHATGOOSEState, data: Completions, *, key: PRNGKeyArray):
        response = jnp.asarray(data.response)

        def loss(network: AbstractTokenNetwork):
            value = -averaged(token_log_probabilities(network, data), response, "token")
            return value, {"loss": value}

        def adapters(state: PHATGOOSEState):
            tuning = TuningState(state.expert.adapted, None, state.optimiser, state.step)
            tuning, metrics = tune(tuning, schedule_of(self), loss)
            expert = eqx.tree_at(lambda e: e.adapted, state.expert, tuning.network)
            changed = PHATGOOSEState(expert, tuning.optimiser, state.gate_optimiser, state.step + 1)
            return changed, metrics

        def gates(state: PHATGOOSEState):
            step = state.step - jnp.ceil(self.expert_updates).astype(jnp.int32)
            tuning = TuningState(state.expert, None, state.gate_optimiser, step)
            tuning, metrics = tune(tuning, schedule_of(self), loss)
            assert isinstance(tuning.network, Gated)
            changed = PHATGOOSEState(
                tuning.network, state.optimiser, tuning.optimiser, state.step + 1
            )
            return changed, metrics

        of_gates = state.step >= self.expert_updates
        state, metrics = jax.lax.cond(of_gates, gates, adapters, state)
        return state, {**metrics, "gates_learn": of_gates.astype(jnp.float32)}

    def network(self, state: PHATGOOSEState) -> AbstractTokenNetwork:
        return state.expert.adapted
