"""Supervised learning of decoders whose routers keep the loads of their experts even."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import Completions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.experts import balance_loss
from headwater.ops.language.tokens import averaged
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune
from headwater.parts.language.experts import expert_decoder, routed_log_probabilities, tokens_of


class Switch(
    AbstractMethod[TokenProblem, Completions, TuningState],
    AbstractTokenPolicy[TuningState],
):
    r"""Maximum likelihood with experts, and a loss of uneven loads beside it.

    $L = L_{SFT} + \alpha E\sum_e f_e P_e$, averaged over layers, with $f_e$ the share of choices
    that fall on expert $e$ and $P_e$ its average probability. How many experts work on a token, how
    they are weighted and how many tokens one has room for are the decoder's (`Architecture`).

    **Arguments:**

    - `num_experts`: copies made of every feed-forward part where the decoder has no experts.
    - `balance_weight`: α, of the loss of uneven loads.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Fedus, Zoph, Shazeer (2022), arXiv:2101.03961.

    **Differences from the paper:** AdamW and not Adafactor; no noise on what the router reads;
    every layer has experts; a decoder without begins with equal copies, one of which works on a
    token with the weight of its probability.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "fedus2022switch",
        summary="maximum likelihood with experts whose loads are kept even",
        parents=("SFT",),
    )

    num_experts: int = integer(4)
    balance_weight: float = non_negative(0.01)
    learning_rate: float = non_negative(2e-5)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> TuningState:
        network = expert_decoder(problem, "Switch", self.num_experts, key=key, expert_weights="all")
        return begin_tuning(network, schedule_of(self), reference=False)

    def update(self, state: TuningState, data: Completions, *, key: PRNGKeyArray):
        response = jnp.asarray(data.response)

        def loss(network: AbstractTokenNetwork):
            own, routing = routed_log_probabilities(network, data)
            value = -averaged(own, response, "token")
            uneven = balance_loss(routing, tokens_of(data))
            kept = jnp.sum(routing.kept) / jnp.sum(routing.chosen)
            metrics = {"loss": value, "balance_loss": uneven, "dropped_share": 1.0 - kept}
            return value + self.balance_weight * uneven, metrics

        return tune(state, schedule_of(self), loss)

    def network(self, state: TuningState) -> AbstractTokenNetwork:
        return state.network
