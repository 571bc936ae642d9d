"""N2N: policies that remove and shrink the layers of a network, learned by policy gradients."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, share
from headwater.core.method import AbstractMethod, AbstractProposer, AbstractWarmStart, Agent, Info
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.networks.layer_policies import Layers, Remover, Shrinker
from headwater.ops.control.gradient_steps import begin, descend


class N2NState(eqx.Module):
    """Both policies, what their rewards are compared with, and the best architecture so far.

    **Arguments:** `remover`, `shrinker`: with the moments of Adam; `baseline`: of the present one;
    `step`: of either; `kept`: the layers that are shrunk: those of the best architecture when the
    last step of removal was made.
    """

    space: SearchSpace
    remover: tuple[Remover, optax.OptState]
    shrinker: tuple[Shrinker, optax.OptState]
    baseline: Float[Array, ""]
    step: Int[Array, ""]
    kept: Bool[Array, " layer"]
    best: Float[Array, " layer"]
    best_value: Float[Array, ""]


class N2N(
    AbstractMethod[SearchSpace, Queries, N2NState],
    AbstractProposer[N2NState],
    AbstractWarmStart[SearchSpace, N2NState],
):
    r"""Compresses a network: one policy removes layers, then another shrinks those that are left.

    A point holds the width of each layer, 0 for one that is removed (`hw.Compression`); a layer
    whose width may not be 0 stays. For `removal_updates` steps a bidirectional LSTM keeps or
    removes each layer, at its full width; from then on an LSTM goes through the layers of the best
    architecture so far and multiplies each width by one of 0.25, 0.5, 0.6, …, 1. Both climb
    $E[(R - b)\,\nabla\log\pi]$, $b$ being a moving mean of earlier rewards. What it recommends is
    the best architecture so far.

    Policies read layers one by one, so that those of another network can be gone on with:
    `warm_start`.

    **Arguments:**

    - `removal_learning_rate`, `shrinkage_learning_rate`: of Adam, of each policy.
    - `removal_updates`: steps in which layers are removed, before they are shrunk.
    - `rollouts_per_step`: architectures that one step learns from; give it as `batch_size`, too.
    - `baseline_decay`: what of $b$ is left after a step.
    - `recurrent_size`: units of each LSTM.

    **Reference:** Ashok, Rhinehart, Beainy and Kitani (2018), arXiv:1709.06030.

    **Differences from the paper:** layers are described by their width, alone and beside the
    widest, and by whether they may be removed, as layers that are fully connected have no kernels;
    each has one factor. Every architecture is compared with $b$ by itself; in the authors' code
    the mean of a batch stands for all of it, and only the last one's gradient is applied. There a
    factor of 0.5 is listed five times.
    """

    feed: ClassVar[Feed] = Feed.QUERIES
    info: ClassVar[Info] = Info(
        "ashok2018n2n",
        summary="policies that remove and shrink the layers of a network",
        parents=("REINFORCE",),
    )

    removal_learning_rate: float = non_negative(0.003)
    shrinkage_learning_rate: float = non_negative(0.1)
    removal_updates: int = integer(20, low=0)
    rollouts_per_step: int = integer(5)
    baseline_decay: float = share(0.9)
    recurrent_size: int = integer(30)

    def init(self, problem: SearchSpace, *, key: PRNGKeyArray) -> N2NState:
        problem.require_one_fidelity("N2N")
        if problem.candidates is not None or not (problem.whole and all(problem.whole)):
            raise SpecificationError(
                "N2N chooses the widths of layers: make all components whole numbers, and give no "
                "candidates"
            )
        if min(problem.low) < 0.0:
            raise SpecificationError(
                f"N2N chooses the widths of layers, and one may be {min(problem.low):g}: it must "
                "be at least 0, which removes the layer"
            )
        remover_key, shrinker_key = jax.random.split(key)
        return self._begun(
            problem,
            Remover(self.recurrent_size, key=remover_key),
            Shrinker(self.recurrent_size, key=shrinker_key),
        )

    def warm_start(self, learned: Agent, problem: SearchSpace, *, key: PRNGKeyArray):
        if not isinstance(learned.method, N2N) or (
            learned.method.recurrent_size != self.recurrent_size
        ):
            return None
        return self._begun(problem, learned.state.remover[0], learned.state.shrinker[0])

    def _begun(self, problem: SearchSpace, remover: Remover, shrinker: Shrinker) -> N2NState:
        return N2NState(
            problem,
            (remover, begin(optax.adam(self.removal_learning_rate), remover)),
            (shrinker, begin(optax.adam(self.shrinkage_learning_rate), shrinker)),
            jnp.zeros(()),
            jnp.zeros((), jnp.int32),
            jnp.ones(problem.size, bool),
            jnp.asarray(problem.high, jnp.float32),
            jnp.asarray(jnp.finfo(jnp.float32).min),
        )

    def update(self, state: N2NState, data: Queries, *, key: PRNGKeyArray):
        size = min(self.rollouts_per_step, len(data.value))
        steps = -(-len(data.value) // size)
        room = size * steps - len(data.value)
        point = jnp.pad(jnp.asarray(state.space.from_unit(data.point)), ((0, room), (0, 0)))
        value = jnp.pad(data.value, (0, room), constant_values=jnp.nan)
        batches = point.reshape(steps, size, -1), value.reshape(steps, size)
        state, _ = jax.lax.scan(lambda s, batch: (self._step(s, *batch), None), state, batches)
        layers = jnp.sum(state.best > 0.0).astype(jnp.float32)
        found = {"best_value": state.best_value, "layers": layers}
        return state, {"baseline": state.baseline, **found}

    def _step(
        self, state: N2NState, widths: Float[Array, "row layer"], value: Float[Array, " row"]
    ) -> N2NState:
        """One step of the present policy; rows whose value is no number count for nothing."""
        good = jnp.isfinite(value)
        value = jnp.where(good, value, 0.0)
        learns, mean = jnp.any(good), jnp.sum(value) / jnp.maximum(jnp.sum(good), 1)
        removing = state.step < self.removal_updates
        begins = (state.step == 0) | (state.step == self.removal_updates)
        baseline = jnp.where(begins, mean, state.baseline)
        layers, old = Layers.of(state.space), state

        def climbed(rate, policy, moments, *kept):
            def loss(policy):
                score = lambda row: policy.log_probability(layers, *kept, row)
                log_probability, possible = jax.vmap(score)(widths)
                # Of architectures of others it learns nothing that it could not have done itself.
                counts = good & possible
                gain = jnp.where(counts, (value - baseline) * log_probability, 0.0)
                return -jnp.sum(gain) / jnp.maximum(jnp.sum(counts), 1)

            after = descend(optax.adam(rate), jax.grad(loss)(policy), moments, policy)
            return jax.tree.map(lambda a, b: jnp.where(learns, a, b), after, (policy, moments))

        remover, shrinker = jax.lax.cond(
            removing,
            lambda: (climbed(self.removal_learning_rate, *old.remover), old.shrinker),
            lambda: (
                old.remover,
                climbed(self.shrinkage_learning_rate, *old.shrinker, old.kept),
            ),
        )
        ranked = jnp.where(good, value, -jnp.inf)
        better = jnp.max(ranked) > state.best_value
        best = jnp.where(better, widths[jnp.argmax(ranked)], state.best)
        moved = self.baseline_decay * baseline + (1.0 - self.baseline_decay) * mean
        return N2NState(
            state.space,
            remover,
            shrinker,
            jnp.where(learns, moved, state.baseline),
            state.step + learns.astype(jnp.int32),
            jnp.where(removing, best > 0.0, state.kept),
            best,
            jnp.where(better, jnp.max(ranked), state.best_value),
        )

    def propose(self, state: N2NState, *, key: PRNGKeyArray):
        layers = Layers.of(state.space)
        widths = jax.lax.cond(
            state.step < self.removal_updates,
            lambda: state.remover[0].draw(layers, key=key),
            lambda: state.shrinker[0].draw(layers, state.kept, key=key),
        )
        return jnp.asarray(state.space.to_unit(widths)), jnp.asarray(0, jnp.int32)

    def expect(self, state: N2NState, point: Float[Array, " component"], fidelity) -> N2NState:
        return state

    def recommend(self, state: N2NState, *, key: PRNGKeyArray) -> Float[Array, " component"]:
        return jnp.asarray(state.space.to_unit(state.best))
