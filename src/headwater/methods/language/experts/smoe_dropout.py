"""Random routers that ask more and more experts."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.decoders.changes import with_router
from headwater.ops.language.tokens import averaged
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune
from headwater.parts.language.experts import decoder_of, expert_decoder, routed_log_probabilities


class SMoEDropout(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Maximum likelihood with random routers that ask more and more experts, up to all.

    The routers stay as they were drawn. At update $t$ they ask
    $k(t) = k_0 + \mathrm{round}((E - k_0)\min(t / T, 1))$ of the $E$ experts, which are weighted by
    their probabilities among those asked. What is learned can then be used with any number of
    experts (`with_router(decoder, active=k)`), and is better the more there are.

    **Arguments:**

    - `num_experts`: equal pieces made of every feed-forward part where the decoder has no experts.
    - `first_active`: $k_0$, experts that are asked at first.
    - `ramp_updates`: $T$, updates until all are asked.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Chen, Zhang, Jaiswal, Liu, Wang (2023), arXiv:2303.01610.

    **Differences from the paper:** pieces of a trained feed-forward part are multiplied by their
    number, so that all of them with equal weights are the part again.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "chen2023sparse",
        summary="random routers that ask more and more experts, for use with any number of them",
        parents=("SFT",),
    )

    num_experts: int = integer(8)
    first_active: int = integer(2)
    ramp_updates: float = positive(1_000.0)
    learning_rate: float = non_negative(2e-5)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        network = expert_decoder(problem, "SMoEDropout", self.num_experts, key=key, made_of="parts")
        experts = network.architecture.experts
        if self.first_active > experts:
            raise SpecificationError(
                f"first_active = {self.first_active} of {experts} experts cannot be asked: take "
                "at most all"
            )
        network = with_router(network, learned=False, weighting="chosen", active=self.first_active)
        return begin_tuning(network, schedule_of(self), reference=False)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        active = self._active(state.step, decoder_of(state.network).architecture.experts)
        response = jnp.asarray(data.response)

        def loss(network: AbstractTokenNetwork):
            own, _ = routed_log_probabilities(network, data)
            value = -averaged(own, response, "token")
            return value, {"loss": value, "active_experts": active.astype(jnp.float32)}

        network = with_router(decoder_of(state.network), active=active)
        state = TuningState(network, None, state.optimiser, state.step)
        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network

    def _active(self, step: Int[Array, ""], experts: int) -> Int[Array, ""]:
        done: Float[Array, ""] = jnp.minimum(step / self.ramp_updates, 1.0)
        more = jnp.round((experts - self.first_active) * done)
        return self.first_active + more.astype(jnp.int32)
