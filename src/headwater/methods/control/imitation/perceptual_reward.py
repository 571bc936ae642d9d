"""A reward from a few demonstrations: their stages, and what tells each stage from the others."""

from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive, sizes
from headwater.core.method import AbstractMethod, AbstractRewardModel, AbstractStages, Info
from headwater.core.records import Demonstrations
from headwater.core.spaces import Spaces
from headwater.networks.control.stage_model import StageModel, moments
from headwater.networks.mlp import MLP
from headwater.networks.normaliser import Normaliser

_NEVER = 1e9
"""What a stage costs that is too short: more than any other, and finite."""
_SMALLEST = 1e-6


class PerceptualRewardState(eqx.Module):
    """The features, which are never trained, their scale in the demonstrations, and the stages."""

    network: MLP | None
    normaliser: Normaliser
    centre: Float[Array, " feature"]
    scale: Float[Array, " feature"]
    stages: StageModel


class PerceptualReward(
    AbstractMethod[Spaces, Demonstrations, PerceptualRewardState],
    AbstractRewardModel[PerceptualRewardState],
    AbstractStages,
):
    r"""Learns a dense reward from a few demonstrations, of which it reads only what was seen.

    Each demonstration is cut into $n$ stages of frames that are alike, by dynamic programming. A
    stage $i$ is told by the features with the largest
    $\alpha\,|\mu_i^+ - \mu_i^-| - (\sigma_i^+ + \sigma_i^-)$, of its frames and of all others; the
    mean over these of $(f - \mu_i^+)^2 / (\sigma_i^+)^2$ is how far a frame is from it, and $R_i$
    one as near as its own frames are, zero as far as others. The reward of an observation is
    $\sum_{i=2}^n 2^{i-1} R_i$: with it the rewards of a log are filled in (`hw.label`), or a task
    is acted in (`hw.rewarded`).

    **Arguments:**

    - `num_stages`: $n$; each demonstration goes through all of them, in the same order.
    - `shortest_stage`: frames that a stage has at least.
    - `stage_cost`: what cuts make small: minus the log-`likelihood` of frames under a normal
      distribution of each feature in each stage; their `variance`, summed over frames; or their
      mean `deviation`, of every stage alike.
    - `feature_source`: `random`: a network that is drawn and never trained; `observed`: the
      observations are features already, of a pretrained network, say.
    - `num_features`: of the random network.
    - `hidden_sizes`: its hidden layers.
    - `num_chosen`: features that tell a stage.
    - `contrast_weight`: $\alpha$.
    - `smallest_deviation`: lower bound of deviations within a stage, of standardised features.
    - `normalise_observations`: standardise with the data's mean and deviation.

    **Reference:** Sermanet, Xu, Levine (2017), arXiv:1612.06699.

    **Differences from the paper:** features are random, or any that are logged, and not those of
    Inception; cuts are those of the likelihood that the paper's text speaks of, by dynamic
    programming, where its Algorithm 1 goes through all cuts for the mean deviation; squares are
    over variances, as in the density, where the paper prints deviations; $R_i$ is linear in the
    logarithm of the distance, between its means over demonstrated frames.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "sermanet2017unsupervised",
        summary="a reward from the stages of a few demonstrations, for any method",
        rewards=False,
    )

    num_stages: int = integer(3, low=2)
    shortest_stage: int = integer(2)
    stage_cost: Literal["likelihood", "variance", "deviation"] = choice("likelihood")
    feature_source: Literal["random", "observed"] = choice("random")
    num_features: int = integer(64)
    hidden_sizes: tuple[int, ...] = sizes(())
    num_chosen: int = integer(32)
    contrast_weight: float = non_negative(5.0)
    smallest_deviation: float = positive(0.1)
    normalise_observations: bool = flag(False)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> PerceptualRewardState:
        network, size = None, problem.observation_size
        if self.feature_source == "random":
            shape = (problem.observation_size, self.num_features, self.hidden_sizes)
            network, size = MLP(*shape, key=key), self.num_features
        normaliser = Normaliser(problem, self.normalise_observations)
        zeros, none = jnp.zeros((self.num_stages, size)), jnp.zeros(self.num_stages)
        stages = StageModel(zeros, zeros + 1.0, zeros, none, none)
        return PerceptualRewardState(network, normaliser, jnp.zeros(size), jnp.ones(size), stages)

    def update(self, state: PerceptualRewardState, data: Demonstrations, *, key: PRNGKeyArray):
        found, known = self._features(state, data.observation), self._known(data)
        centre, scale = moments(found, known)
        # What never changes has no scale: it must not count a million times where it does.
        scale = jnp.where(scale > _SMALLEST, scale, 1.0)
        state = eqx.tree_at(lambda s: (s.centre, s.scale), state, (centre, scale))
        standard, stage = self._standardised(state, found), self.stages(state, data)

        def told_by(number):
            own, others = known & (stage == number), known & (stage != number)
            mean, deviation = moments(standard, own)
            mean_elsewhere, deviation_elsewhere = moments(standard, others)
            difference = jnp.abs(mean - mean_elsewhere)
            score = self.contrast_weight * difference - (deviation + deviation_elsewhere)
            chosen = (jnp.argsort(jnp.argsort(-score)) < self.num_chosen).astype(jnp.float32)
            deviation = jnp.maximum(deviation, self.smallest_deviation)
            contrast = jnp.sum(difference * chosen) / jnp.sum(chosen)
            model = StageModel(mean, deviation, chosen, jnp.zeros(()), jnp.zeros(()))
            distance = model.distance(standard)[..., None]
            near, far = (moments(distance, rows)[0][0] for rows in (own, others))
            return StageModel(mean, deviation, chosen, near, far), contrast, jnp.sum(own)

        stages, contrast, frames = jax.vmap(told_by)(jnp.arange(self.num_stages))
        state = eqx.tree_at(lambda s: s.stages, state, stages)
        total = jnp.sum(known)
        shortest = jnp.min(frames) / jnp.maximum(total, 1)
        metrics = {"frames": total.astype(jnp.float32), "share_of_shortest_stage": shortest}
        return state, {"contrast": jnp.mean(contrast), **metrics}

    def stages(
        self, state: PerceptualRewardState, data: Demonstrations
    ) -> Int[Array, "demonstration frame"]:
        """The stage of each frame, from 0; behind the end of a demonstration it is the last."""
        standard = self._standardised(state, self._features(state, data.observation))
        cuts = jax.lax.map(lambda one: self._cuts(*one), (standard, data.length))
        frames = jnp.arange(data.observation.shape[1])[None, :, None]
        return jnp.sum(jnp.where(frames >= cuts[:, None, :], 1, 0), axis=-1)

    def rewards(self, state: PerceptualRewardState, observation: Array, action: Array):
        standard = self._standardised(state, self._features(state, observation))
        # The first stage brings nothing: everything begins in it.
        reward = variance = jnp.zeros(standard.shape[:-1])
        for i in range(1, self.num_stages):
            stage = jax.tree.map(lambda x, i=i: x[i], state.stages)
            near, apart = stage.nearness(standard)
            reward, variance = reward + 2.0**i * near, variance + 4.0**i * apart
        return reward, jnp.sqrt(variance)

    @property
    def fewest_frames(self) -> int:
        return self.num_stages * self.shortest_stage

    def _known(self, data: Demonstrations) -> Bool[Array, "demonstration frame"]:
        """The frames that there are, of the demonstrations that are long enough for all stages."""
        length = jnp.where(data.length >= self.fewest_frames, data.length, 0)
        return jnp.arange(data.observation.shape[1])[None, :] < length[:, None]

    def _features(self, state: PerceptualRewardState, observation: Array) -> Array:
        standard = state.normaliser(observation)
        return standard if state.network is None else jax.nn.relu(state.network(standard))

    @staticmethod
    def _standardised(state: PerceptualRewardState, found: Array) -> Array:
        centre = jnp.broadcast_to(state.centre, found.shape)
        return (found - centre) / jnp.broadcast_to(state.scale, found.shape)

    def _cuts(self, standard: Float[Array, "frame feature"], length: Array) -> Int[Array, " cut"]:
        """The first frame of each stage but the first, of one demonstration."""
        frames = standard.shape[0]
        zero = jnp.zeros((1, standard.shape[1]))
        sums = jnp.concatenate([zero, jnp.cumsum(standard, axis=0)])
        squares = jnp.concatenate([zero, jnp.cumsum(standard**2, axis=0)])
        ends = jnp.arange(frames + 1)

        def costs(start: Array) -> Float[Array, " end"]:
            """Of a stage from this frame to before each."""
            count = jnp.maximum(ends - start, 1).astype(jnp.float32)[:, None]
            variance = (squares - squares[start][None]) / count
            variance = jnp.maximum(variance - ((sums - sums[start][None]) / count) ** 2, 0.0)
            if self.stage_cost == "variance":
                cost = count[:, 0] * jnp.mean(variance, axis=1)
            elif self.stage_cost == "likelihood":
                floor = self.smallest_deviation**2
                cost = 0.5 * count[:, 0] * jnp.mean(jnp.log(variance + floor), axis=1)
            else:
                cost = jnp.mean(jnp.sqrt(variance), axis=1)
            return jnp.where(ends - start >= self.shortest_stage, cost, _NEVER)

        cost = jax.lax.map(costs, ends)

        def add_stage(best: Array, _):
            total = best[:, None] + cost
            return jnp.min(total, axis=0), jnp.argmin(total, axis=0)

        _, begins = jax.lax.scan(add_stage, cost[0], None, length=self.num_stages - 1)

        go_back = lambda end, begin: (begin[end], begin[end])
        return jax.lax.scan(go_back, length, begins, reverse=True)[1]
