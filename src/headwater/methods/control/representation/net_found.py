"""netFound: what flows look like, learned from traffic without labels, and then from a few."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, share, sizes
from headwater.core.method import (
    AbstractContinual,
    AbstractEncoding,
    AbstractMethod,
    AbstractPolicy,
    Info,
)
from headwater.core.records import TaskLog, Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.encoders import Encoding
from headwater.networks.control.flows import (
    FlowEncoder,
    FlowHeads,
    corrupted,
    packet_normaliser,
)
from headwater.networks.distributions import Categorical
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend


class NetFoundState(eqx.Module):
    """The encoder and its heads, moments, the scale of packets; the task learned and acted in."""

    encoder: FlowEncoder
    heads: FlowHeads
    optimiser: optax.OptState
    normaliser: Normaliser
    task: Int[Array, ""]
    acting: Int[Array, ""]


class NetFound(
    AbstractMethod[Spaces, Transitions, NetFoundState],
    AbstractPolicy[NetFoundState],
    AbstractContinual[Spaces, NetFoundState],
    AbstractEncoding[NetFoundState],
):
    r"""netFound: reads flows of packets, learns from many without labels, and then from a few with.

    The first task is pretraining, in which no action is read: of each flow a share of the fields is
    hidden and told from the rest, and whether one of its bursts was exchanged for one of another
    flow: $L = -E \log p(\text{hidden bucket}) - w\,E \log p(\text{exchanged or not})$. Each later
    task is a log whose actions are the classes of its flows: $L = -E \log p(a \mid \phi(s))$, on
    features that stay as they are, or with `train_encoder` go on learning. So `--data` is the
    traffic, and `--then` the flows with labels. `with_flows` of
    `headwater.datasets.episodes.flows` lays out logs of packets as flows; what is no flow is read
    as one packet. Discrete only. Without a second log what it does is random: its features are for
    `EncodedBC` or `EncodedDQN` then.

    **Arguments:**

    - `num_tasks`: pretraining, and how many tasks with labels there is room for.
    - `mask_share`: of the fields that are to be told.
    - `swap_share`: of the flows of which a burst is exchanged.
    - `swap_weight`: $w$.
    - `train_encoder`: whether features learn from labels, too; several tasks with labels then share
      them, and the earlier ones may be forgotten.
    - `hierarchy`: bursts are read by themselves, and then the flow of bursts; else all packets of a
      flow look at each other, in as many blocks of the same size.
    - `num_buckets`: tokens that a field may be.
    - `embedding_size`: components of φ.
    - `width`: of what is held of each token.
    - `num_layers`, `num_heads`: of attention; a layer is two blocks.
    - `learning_rate`: of Adam.
    - `normalise_observations`: standardise fields by the packets of the first log; else they count
      as they are, and beyond 3 are alike.
    - `hidden_sizes`: hidden layers of what tells the class; none: it is linear in features.

    **Reference:** Guthula et al. (2023), arXiv:2310.17025.

    **Differences from the paper:** a token is a packet, the sum of what is learned of its fields,
    which are buckets of any numbers and not pairs of bytes of the headers of known protocols;
    bursts have no statistics of their own (bytes, packets, gaps, direction) that are hidden and
    told besides, since they follow from fields; places are learned; features are squashed. Small
    networks, Adam at one rate.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "guthula2023netfound",
        summary="reads flows of packets, from many without labels and then a few with",
        parents=("InverseDynamicsPretraining", "BC"),
        rewards=False,
    )

    num_tasks: int = integer(2)
    mask_share: float = share(0.3)
    swap_share: float = share(0.5)
    swap_weight: float = non_negative(1.0)
    train_encoder: bool = flag(False)
    hierarchy: bool = flag(True)
    num_buckets: int = integer(16)
    embedding_size: int = integer(64)
    width: int = integer(64)
    num_layers: int = integer(2)
    num_heads: int = integer(4)
    learning_rate: float = non_negative(1e-3)
    normalise_observations: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes(())

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> NetFoundState:
        problem.require_discrete("NetFound")
        encoder_key, heads_key = jax.random.split(key)
        encoder = FlowEncoder(
            problem,
            self.embedding_size,
            num_buckets=self.num_buckets,
            width=self.width,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            hierarchy=self.hierarchy,
            key=encoder_key,
        )
        heads = FlowHeads(
            encoder, problem.action_size, self.num_tasks, self.hidden_sizes, key=heads_key
        )
        first = jnp.zeros((), jnp.int32)
        moments = begin(optax.adam(self.learning_rate), (encoder, heads))
        scale = packet_normaliser(problem, self.normalise_observations)
        return NetFoundState(encoder, heads, moments, scale, first, first)

    def update(self, state: NetFoundState, data: Transitions, *, key: PRNGKeyArray):
        tokens, present = state.encoder.tokens(state.normaliser(data.observation))
        shares = {"mask_share": self.mask_share, "swap_share": self.swap_share}
        shown = corrupted(tokens, present, self.num_buckets, **shares, key=key)
        pretraining = state.task == 0
        # Read once, whatever for: with something hidden in the first task, as they are later.
        given = jax.tree.map(
            lambda one, other: jnp.where(pretraining, one, other),
            (shown.tokens, shown.present),
            (tokens, present),
        )

        def loss(learned: tuple[FlowEncoder, FlowHeads]):
            encoder, heads = learned
            packets, bursts = encoder.read(*given)
            features = encoder.pool(bursts, given[1])
            if not self.train_encoder:
                kept = jax.lax.stop_gradient(features)
                features = jnp.where(pretraining, features, kept)
            parts = {
                "mask_loss": heads.mask_loss(packets, tokens, shown.chosen),
                "swap_loss": heads.swap_loss(features, shown.swapped),
                "class_loss": -jnp.mean(
                    Categorical(heads.logits(features, state.task)).log_density(data.action)
                ),
            }
            unlabelled = parts["mask_loss"] + self.swap_weight * parts["swap_loss"]
            return jnp.where(pretraining, unlabelled, parts["class_loss"]), parts

        learned = state.encoder, state.heads
        (value, parts), gradients = jax.value_and_grad(loss, has_aux=True)(learned)
        adam = optax.adam(self.learning_rate)
        (encoder, heads), moments = descend(adam, gradients, state.optimiser, learned)
        state = dataclasses.replace(state, encoder=encoder, heads=heads, optimiser=moments)
        return state, {"loss": value, **parts}

    def next_task(
        self, state: NetFoundState, log: TaskLog, problem: Spaces, *, key: PRNGKeyArray
    ) -> NetFoundState:
        # Fresh moments, with which what has no gradient stays exactly where it is.
        moments = begin(optax.adam(self.learning_rate), (state.encoder, state.heads))
        task = state.task + 1
        return dataclasses.replace(state, optimiser=moments, task=task, acting=task)

    def for_task(self, state: NetFoundState, task: Int[Array, ""]) -> NetFoundState:
        return dataclasses.replace(state, acting=jnp.asarray(task, jnp.int32))

    def encoding(self, state: NetFoundState) -> Encoding:
        return Encoding(state.encoder, state.normaliser)

    def act(self, state: NetFoundState, observation: Array, *, key: PRNGKeyArray, explore: bool):
        features = self.encoding(state)(observation)
        chances = Categorical(state.heads.logits(features, state.acting))
        return (chances.sample(key)[0] if explore else chances.mode()), ()
