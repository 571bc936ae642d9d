"""A reward of steps under which the preferred segments come out higher."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import between, flag, integer, non_negative, sizes
from headwater.core.method import AbstractMethod, AbstractRewardModel, Info
from headwater.core.records import SegmentComparisons, Segments
from headwater.core.spaces import Spaces
from headwater.networks.control.critics import critics
from headwater.networks.mlp import Ensemble
from headwater.networks.normaliser import Normaliser
from headwater.ops.control.gradient_steps import begin, descend


class PreferenceRewardState(eqx.Module):
    """The ensemble of rewards, optimiser moments and the scale of observations."""

    ensemble: Ensemble
    optimiser: optax.OptState
    normaliser: Normaliser


class PreferenceReward(
    AbstractMethod[Spaces, SegmentComparisons, PreferenceRewardState],
    AbstractRewardModel[PreferenceRewardState],
):
    r"""Learns a reward of steps from comparisons of segments, by the model of Bradley and Terry.

    $L = -E[y \log p + (1 - y) \log(1 - p)]$ with
    $p = (1-\epsilon)\,\sigma(\sum_t r(s^1_t, a^1_t) - \sum_t r(s^2_t, a^2_t)) + \epsilon/2$, for
    each member of an ensemble; the reward is the members' mean. With it the rewards of a log are
    filled in (`hw.label`), from which any method for logs learns. Answers have to be about the
    segments alone: what a segment leads to would count again in the values of its steps.

    **Arguments:**

    - `num_members`: of the ensemble, which differ in where they begin.
    - `error_share`: $\epsilon$, the share of answers that are given at random.
    - `learning_rate`: of AdamW.
    - `weight_decay`: of AdamW.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `hidden_sizes`: hidden layers of each member.

    **Reference:** Christiano et al. (2017), arXiv:1706.03741.

    **Differences from the paper:** from a fixed set of comparisons instead of ones asked for while
    a policy learns; all members see all comparisons; weights decay where the paper tunes an L2
    penalty on held-out comparisons; rewards keep the unit in which a difference of one makes the
    odds e to one, and are not standardised.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "christiano2017deep",
        summary="a reward of steps from comparisons of segments, for any method for logs",
        rewards=False,
    )

    num_members: int = integer(3)
    error_share: float = between(0.0, 0.99, 0.1)
    learning_rate: float = non_negative(3e-4)
    weight_decay: float = non_negative(1e-2)
    normalise_observations: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> PreferenceRewardState:
        ensemble = critics(problem, self.hidden_sizes, self.num_members, key=key)
        return PreferenceRewardState(
            ensemble=ensemble,
            optimiser=begin(self._optimiser, ensemble),
            normaliser=Normaliser(problem, self.normalise_observations),
        )

    def update(self, state: PreferenceRewardState, data: SegmentComparisons, *, key: PRNGKeyArray):
        def loss(ensemble: Ensemble):
            totals = [
                self._totals(state, ensemble, segments) for segments in (data.first, data.second)
            ]
            margin = totals[0] - totals[1]
            preference = jnp.broadcast_to(data.preference, margin.shape)
            found = -preference * self._log_chance(margin)
            found = found - (1.0 - preference) * self._log_chance(-margin)
            right = (jnp.mean(margin, axis=0) > 0.0) == (data.preference > 0.5)
            # A row that says "as good" is neither right nor wrong.
            told = data.preference != 0.5
            share = jnp.sum(right & told) / jnp.maximum(jnp.sum(told), 1)
            return jnp.mean(found), {"accuracy": share, "margin": jnp.mean(jnp.abs(margin))}

        (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.ensemble)
        ensemble, moments = descend(self._optimiser, gradients, state.optimiser, state.ensemble)
        state = PreferenceRewardState(ensemble, moments, state.normaliser)
        return state, {"loss": value, **metrics}

    def rewards(self, state: PreferenceRewardState, observation: Array, action: Array):
        found = state.ensemble(state.normaliser(observation), action)
        return jnp.mean(found, axis=0), jnp.std(found, axis=0)

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay)  # pyright: ignore[reportArgumentType]

    def _totals(
        self, state: PreferenceRewardState, ensemble: Ensemble, segments: Segments
    ) -> Float[Array, "member *batch"]:
        """The sum of each member's rewards over the steps of each segment."""
        found = ensemble(state.normaliser(segments.observation), segments.action)
        return jnp.sum(found, axis=-1)

    def _log_chance(self, margin: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """How probable it is, in logarithms, that what is better by `margin` is preferred."""
        considered = jnp.log1p(-self.error_share) + jax.nn.log_sigmoid(margin)
        at_random = jnp.broadcast_to(jnp.log(0.5 * self.error_share), margin.shape)
        return jnp.logaddexp(considered, at_random)
