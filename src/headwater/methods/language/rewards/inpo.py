"""Iterative Nash policy optimisation."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info
from headwater.core.records import CompletionComparisons
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.ops.language.log_ratios import comparison_metrics, log_ratios
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune


class NashTuned(eqx.Module):
    """A network in training against its former self.

    **Arguments:** `tuned`: the network and its reference; `iterate`: the network when this round
    began, which writes the responses of the round.
    """

    tuned: TuningState
    iterate: AbstractTokenNetwork


class INPO(
    AbstractMethod[TokenProblem, CompletionComparisons, NashTuned],
    AbstractTokenPolicy[NashTuned],
):
    r"""Plays against itself to a policy that no other one is preferred to.

    No reward is assumed: preferences may go round in circles. In round t responses of $\pi_t$ are
    compared, and $\pi$ learns by $L = (h - 1/(2\eta))^2$ with
    $h = \log\frac{\pi(y^+)}{\pi(y^-)} - \frac\tau\eta\log\frac{\pi_{ref}(y^+)}{\pi_{ref}(y^-)}
    - (1 - \frac\tau\eta)\log\frac{\pi_t(y^+)}{\pi_t(y^-)}$, whose optimum is one step of
    mirror descent: $\pi_{t+1} \propto \pi_{ref}^{\tau/\eta}\pi_t^{1-\tau/\eta}
    \exp(P(\cdot\succ\pi_t)/\eta)$. The last iterate approaches the equilibrium of the game
    that costs each player τ times the divergence from the reference.

    Its `exploring_network` is $\pi_t$: sources of comparisons should write with that.

    **Arguments:**

    - `kl_weight`: τ, how strongly the policy is held to the reference.
    - `iterate_weight`: η, larger than τ: how strongly a round is held to what came before.
    - `updates_per_round`: after so many the iterate is replaced and the optimiser starts afresh.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Zhang, Yu, Peng, Song, Tian, Huo, Jiang, Mi, Yu (2024), arXiv:2407.00617.

    **Differences from the paper:** a round is 20,000 pairs in batches of 128.
    """

    feed: ClassVar[Feed] = Feed.JUDGED
    info: ClassVar[Info] = Info(
        "zhang2024iterative",
        summary="self-play by a squared loss on log-ratios to the reference and the last iterate",
        parents=("IPO",),
    )

    kl_weight: float = non_negative(2.5e-3)
    iterate_weight: float = non_negative(7.5e-3)
    updates_per_round: int = integer(156, static=False)
    learning_rate: float = non_negative(1e-6)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> NashTuned:
        tuned = begin_tuning(problem.network, schedule_of(self), reference=True)
        return NashTuned(tuned, jax.tree.map(jnp.copy, problem.network))

    def update(self, state: NashTuned, data: CompletionComparisons, *, key: PRNGKeyArray):
        reference, iterate = state.tuned.reference, state.iterate
        share = self.kl_weight / self.iterate_weight

        def loss(network: AbstractTokenNetwork):
            chosen, rejected = log_ratios(network, reference, data)
            before, behind = log_ratios(iterate, reference, data)
            # Log-ratios to the reference: of it, all of π counts and 1 - share of the iterate.
            moved = chosen.ratio - rejected.ratio
            held = (1.0 - share) * (before.ratio - behind.ratio)
            missed = jnp.mean((moved - held - 0.5 / self.iterate_weight) ** 2)
            return missed, {"loss": missed, **comparison_metrics(chosen, rejected)}

        schedule = schedule_of(self)
        tuned, metrics = tune(state.tuned, schedule, loss)
        over = tuned.step % self.updates_per_round == 0
        trained = eqx.filter(tuned.network, tuned.network.trainable())
        fresh = schedule.optimiser(tuned.step).init(trained)
        optimiser = jax.tree.map(lambda a, b: jnp.where(over, a, b), fresh, tuned.optimiser)
        iterate = jax.tree.map(lambda a, b: jnp.where(over, a, b), tuned.network, iterate)
        tuned = TuningState(tuned.network, tuned.frozen, optimiser, tuned.step)
        return NashTuned(tuned, iterate), metrics

    def network(self, state: NashTuned) -> AbstractTokenNetwork:
        return state.tuned.network

    def exploring_network(self, state: NashTuned) -> AbstractTokenNetwork:
        return state.iterate
