"""Unlearning in one expert."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractTokenPolicy, Info, Metrics
from headwater.core.records import LabelledCompletions
from headwater.core.tokens import AbstractTokenNetwork, TokenProblem
from headwater.networks.decoders.decoder import Decoder
from headwater.ops.language.log_ratios import log_ratio
from headwater.ops.language.tokens import lengths
from headwater.parts.fine_tuning import Decay, TuningState, begin_tuning, schedule_of, tune
from headwater.parts.language.experts import (
    decoder_of,
    expert_decoder,
    routed_log_probabilities,
    tokens_of,
)


class Unlearning(eqx.Module):
    """A decoder in training, and how much each expert has to do with what is to be forgotten."""

    tuned: TuningState
    affinity: Float[Array, "layer expert"]


class SEUF(
    AbstractMethod[TokenProblem, LabelledCompletions, Unlearning],
    AbstractTokenPolicy[Unlearning],
):
    r"""Forgets undesirable texts by changing the one expert that has most to do with them.

    At first the affinity of every expert of every layer is measured: its average probability on the
    texts to be forgotten. Then the expert $(l, e)$ with the highest one, and the router of its
    layer, learn from
    $L = L_{forget} + \lambda L_{retain} + \alpha\,\overline{\lVert g_l - 1_e\rVert^2}$.
    $L_{forget}$ is gradient ascent on the texts' likelihood, or NPO's
    $-\tfrac{2}{\beta}\log\sigma(-\beta\rho)$ with $\rho$ the log-ratio to the first network;
    $L_{retain}$ is `SFT`'s loss on desirable texts; and the anchor keeps the router, whose
    probabilities are $g_l$, from going round the expert.

    **Arguments:**

    - `num_experts`: copies made of every feed-forward part where the decoder has no experts.
    - `unlearning`: what $L_{forget}$ is.
    - `beta`: β of NPO, how soon what is forgotten stops counting.
    - `retain_weight`: λ.
    - `anchor_weight`: α.
    - `attribution_updates`: updates in which affinities are measured and nothing is learned.
    - `affinity_rank`: place of the expert in the order of affinities; 0 is the highest.
    - `only_expert`: if false, all weights learn.
    - `learning_rate`, `warmup_updates`, `decay_updates`, `decay`, `weight_decay`,
      `max_gradient_norm`: of AdamW, see `Schedule`; with `None` for `decay_updates` the rate
      reaches zero where `train` or a sweep ends; elsewhere it is constant.

    **Reference:** Zhuang, Zhang, Guo, Jia, Liu, Liu, Zhang (2025), arXiv:2411.18797.

    **Differences from the paper:** weights that do not learn are not decayed either; losses are
    averaged over the rows of either kind in the batch.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "zhuang2025seuf",
        summary="forgets texts by changing one expert, to which the router is held",
        parents=("KTO",),
    )

    num_experts: int = integer(4)
    unlearning: Literal["npo", "gradient_ascent"] = choice("npo")
    beta: float = positive(0.1)
    retain_weight: float = non_negative(1.0)
    anchor_weight: float = non_negative(1.0)
    attribution_updates: int = integer(1)
    affinity_rank: int = integer(0, low=0)
    only_expert: bool = flag(True)
    learning_rate: float = non_negative(1e-5)
    warmup_updates: float = non_negative(0.0)
    decay_updates: float | None = positive(None, infinite=True)
    weight_decay: float = non_negative(0.0)
    max_gradient_norm: float = positive(1.0, infinite=True)
    decay: Decay = choice("linear")

    def init(self, problem: TokenProblem, *, key: PRNGKeyArray) -> Unlearning:
        network = expert_decoder(problem, "SEUF", self.num_experts, key=key)
        a = network.architecture
        tuned = begin_tuning(network, schedule_of(self), reference=True)
        return Unlearning(tuned, jnp.zeros((a.layers, a.experts)))

    def update(self, state: Unlearning, data: LabelledCompletions, *, key: PRNGKeyArray):
        before, texts = state.tuned, data.completions
        # Tokens that belong to texts to be forgotten.
        read = tokens_of(texts).reshape(texts.tokens.shape)
        read = read & jnp.broadcast_to(~jnp.asarray(data.desirable)[:, None], read.shape)
        learning = before.step >= self.attribution_updates
        _, routing = routed_log_probabilities(before.network, texts)
        seen = _average(routing.probabilities, read)
        affinity = jnp.where(learning, state.affinity, state.affinity + seen)
        layer, expert = _place(affinity, self.affinity_rank)
        allowed = _learns(decoder_of(before.network), layer, expert, not self.only_expert)

        def loss(network: AbstractTokenNetwork):
            network = _where(allowed, network, jax.lax.stop_gradient(network))
            own, routing = routed_log_probabilities(network, texts)
            probability = routing.probabilities[layer]
            target = jax.nn.one_hot(expert, probability.shape[-1])[None]
            off = jnp.sum((probability - jnp.broadcast_to(target, probability.shape)) ** 2, axis=-1)
            anchor = _mean(off, read.reshape(-1))
            value, metrics = self._loss(network, before.reference, data, jnp.sum(own, axis=-1))
            total = value + self.anchor_weight * anchor
            return total, {"loss": total, "anchor_loss": anchor, **metrics}

        tuned, metrics = tune(before, schedule_of(self), loss)
        network = _where(allowed, tuned.network, before.network)
        changed = TuningState(network, before.frozen, tuned.optimiser, tuned.step)
        kept = TuningState(before.network, before.frozen, before.optimiser, tuned.step)
        tuned = jax.tree.map(lambda new, old: jnp.where(learning, new, old), changed, kept)
        return Unlearning(tuned, affinity), metrics

    def network(self, state: Unlearning) -> AbstractTokenNetwork:
        return state.tuned.network

    def _loss(
        self,
        network: AbstractTokenNetwork,
        reference: AbstractTokenNetwork,
        data: LabelledCompletions,
        log_probability: Float[Array, " row"],
    ) -> tuple[Float[Array, ""], Metrics]:
        """Of forgetting and of retaining."""
        desirable = jnp.asarray(data.desirable)
        away = log_probability
        if self.unlearning == "npo":
            ratio = log_ratio(network, reference, data.completions).ratio
            away = -2.0 / self.beta * jax.nn.log_sigmoid(-self.beta * ratio)
        per_token = -log_probability / jnp.maximum(lengths(data.completions), 1)
        retained = _mean(per_token, desirable)
        value = _mean(away, ~desirable) + self.retain_weight * retained
        forgotten = _mean(log_probability, ~desirable)
        return value, {"retain_loss": retained, "forget_log_probability": forgotten}


def _where(allowed, new, old):
    """The numbers of `new` where they may change, the others of `old`."""
    numbers, rest = eqx.partition(new, eqx.is_inexact_array)
    former = eqx.filter(old, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(jnp.where, allowed, numbers, former), rest)


def _average(probabilities: Float[Array, "layer token expert"], read: Bool[Array, "row position"]):
    """Of each expert, first over the tokens of a text, then over texts."""
    rows = probabilities.reshape(probabilities.shape[0], *read.shape, -1)
    sums = jnp.sum(jnp.where(read[None, ..., None], rows, 0.0), axis=2)
    count = jnp.sum(read, axis=-1)
    each = sums / jnp.maximum(count, 1)[None, :, None]
    return jnp.sum(each, axis=1) / jnp.maximum(jnp.sum(count > 0), 1)


def _place(
    affinity: Float[Array, "layer expert"], rank: int
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Layer and expert of this rank, the last one if there are not so many."""
    order = jnp.argsort(-affinity.reshape(-1), stable=True)
    found = order[min(rank, affinity.size - 1)]
    return found // affinity.shape[1], found % affinity.shape[1]


def _learns(decoder: Decoder, layer, expert, everything: bool):
    """For each number, whether it may change."""
    a = decoder.architecture
    in_layer = jnp.arange(a.layers) == layer
    here = in_layer[:, None] & (jnp.arange(a.experts) == expert)[None]

    def mask(found, x):
        found = found | everything
        return jnp.broadcast_to(found.reshape(*found.shape, *(1,) * (x.ndim - found.ndim)), x.shape)

    numbers = eqx.filter(decoder, eqx.is_inexact_array)
    allowed = jax.tree.map(lambda x: mask(jnp.zeros((), bool), x), numbers)
    parts = lambda d: [d.blocks.gate, d.blocks.up, d.blocks.down]
    parts_here = jax.tree.map(lambda x: mask(here, x), parts(numbers))
    router = mask(in_layer, numbers.blocks.router.weight)
    # A gate that is not there is `None` on both sides.
    allowed = eqx.tree_at(parts, allowed, parts_here, is_leaf=lambda x: x is None)
    return eqx.tree_at(lambda d: d.blocks.router.weight, allowed, router)


def _mean(values: Float[Array, " row"], mask: Bool[Array, " row"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
