"""Learning while acting, from demonstrations and a reward that is learned on the way."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive, real, share, sizes
from headwater.core.method import (
    AbstractMethod,
    AbstractOwnJudge,
    AbstractPolicy,
    AbstractSeveralBatches,
    AbstractValue,
    Info,
)
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.control.actors import choose
from headwater.ops.control.ensemble import Reduction, reduce_members
from headwater.ops.control.pieces import step_on_pieces
from headwater.parts.judging.success_classifier import Judged, begin_judged, improve_classifier
from headwater.parts.soft_actor_critic import (
    LayerNorm,
    check_target_members,
    improve_policy,
    regress_critics,
    soft_target,
)


class SERL(
    AbstractMethod[Spaces, Transitions, Judged],
    AbstractPolicy[Judged],
    AbstractValue[Judged],
    AbstractOwnJudge,
    AbstractSeveralBatches,
):
    r"""SERL: RLPD with a reward that a classifier learns, and one policy to do and one to undo.

    A classifier $c$ of next observations (of a terminal row: of its observation) learns to tell the
    successes of the log, its rows with a reward above zero, from its other rows and from all that
    the method does itself, whose reward is not known (NaN), as VICE does:
    $L_c = E_{+}[\ell(c, 1-\epsilon)] + E_{-}[\ell(c, \epsilon)]$ with the logistic loss $\ell$. A
    step of RLPD follows with $r = 1[c(s') > 0]$ for every row, logged or not. On each of the
    `num_critic_updates` pieces of a batch the classifier learns first, then the critics.

    With `num_policies` above 1 there are as many actors, critics and classifiers, and the last
    component of an observation says which of them is asked for, counted from 0. In `DoneAndUndone`
    (`environments/reset_free.py`) the second brings the task back to its start, so that nobody
    resets it. All learn from every row, as if each had been asked for; logged rewards count only
    for the one that was.

    **Arguments:**

    - `num_policies`: what can be asked for, see above.
    - `online_negatives`: whether it takes what the method does for failures; without, its only
      failures are logged, and the policy may find what it wrongly calls a success.
    - `classifier_learning_rate`: of Adam.
    - `label_smoothing`: $\epsilon$, the share of labels believed to be the wrong way round.
    - `discount`: weight of the next step's value.
    - `initial_temperature`: α at first, in units of reward per nat.
    - `target_entropy`: H̄ in nats; `None`: minus half the number of components of a continuous
      action, or half of log|A| for |A| discrete ones.
    - `backup_entropy`: the share of the entropy bonus that the critics see.
    - `actor_learning_rate`, `critic_learning_rate`, `temperature_learning_rate`: of Adam.
    - `polyak_rate`: Polyak rate of the target critics.
    - `num_critics`: number of critics.
    - `num_target_critics`: how many of them, drawn for each step, the target is the lowest of.
    - `num_critic_updates`: steps of the critics before one of the actor; the rows are shared out.
    - `actor_reduction`: whether the actor climbs the lowest of the critics or their mean.
    - `layer_norm`: which networks normalise their hidden layers.
    - `normalise_observations`: standardise with the data's mean and deviation.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Luo et al. (2024), arXiv:2401.16013; of the classifier Fu et al. (2018),
    arXiv:1805.11686; of the learning step Ball et al. (2023), arXiv:2302.02948.

    **Differences from the paper:** vectors and no pixels, so neither random crops nor pre-trained
    encoders, nor the mixtures of embeddings and the penalty of their gradients; ReLU instead of
    tanh, no dropout; the classifier learns in every step, with the critics; the policies share
    their rows, where each has a buffer in the paper; a success does not end the episode.
    """

    feed: ClassVar[Feed] = Feed.BOTH
    info: ClassVar[Info] = Info(
        "luo2024serl",
        summary="RLPD from demonstrations, rewarded by a classifier of success; resets itself",
        parents=("RLPD",),
    )

    num_policies: int = integer(1)
    online_negatives: bool = flag(True)
    classifier_learning_rate: float = non_negative(3e-4)
    label_smoothing: float = share(0.1)
    discount: float = share(0.96)
    initial_temperature: float = positive(0.01)
    target_entropy: float | None = real(None)
    backup_entropy: float = non_negative(0.0)
    actor_learning_rate: float = non_negative(3e-4)
    critic_learning_rate: float = non_negative(3e-4)
    temperature_learning_rate: float = non_negative(3e-4)
    polyak_rate: float = share(0.005)
    num_critics: int = integer(10)
    num_target_critics: int = integer(2)
    num_critic_updates: int = integer(4)
    actor_reduction: Reduction = choice("mean")
    layer_norm: LayerNorm = choice("both")
    normalise_observations: bool = flag(True)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def __check_init__(self):
        check_target_members("SERL", self.num_critics, self.num_target_critics)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> Judged:
        keys = jax.random.split(key, self.num_policies)
        return jax.vmap(lambda key: begin_judged(self, problem, key=key))(keys)

    def update(self, state: Judged, data: Transitions, *, key: PRNGKeyArray):
        # What follows a terminal row means nothing: there it is seen where the step began.
        over = jnp.broadcast_to(data.terminal[:, None], data.observation.shape)
        seen = jnp.where(over, data.observation, data.next_observation)
        data = dataclasses.replace(data, whole_log=None)
        asked = self._asked(data.observation)
        told = ~jnp.isnan(data.reward)

        def one(state: Judged, number: Int[Array, ""], key: PRNGKeyArray):
            ask = lambda seen: seen if self.num_policies == 1 else seen.at[:, -1].set(number)
            rows = dataclasses.replace(
                data, observation=ask(data.observation), next_observation=ask(seen)
            )
            rows = state.soft.normaliser.transitions(rows)
            own = told & (asked == number)
            success, failure = own & (data.reward > 0.0), own & (data.reward <= 0.0)
            failure = failure | (~told & self.online_negatives)
            critic_key, actor_key = jax.random.split(key)
            state, learned, last = step_on_pieces(
                self._learn_values, state, (rows, success, failure), self.num_critic_updates,
                key=critic_key,
            )  # fmt: skip
            soft, improved = improve_policy(
                self,
                state.soft,
                last[0].observation,
                reduction=self.actor_reduction,
                entropy_per_component=-0.5,
                key=actor_key,
            )
            return dataclasses.replace(state, soft=soft), {**learned, **improved}

        numbers = jnp.arange(self.num_policies)
        state, metrics = jax.vmap(one)(state, numbers, jax.random.split(key, self.num_policies))
        return state, jax.tree.map(jnp.mean, metrics)

    def act(self, state: Judged, observation: Array, *, key: PRNGKeyArray, explore: bool):
        soft = jax.tree.map(lambda x: x[self._asked(observation)], state.soft)
        return choose(soft.actor, soft.normaliser(observation), key=key, explore=explore), ()

    def value(self, state: Judged, observation: Array, action: Array) -> Array:
        each = jax.vmap(lambda soft: soft.critics(soft.normaliser(observation), action))(state.soft)
        q = jax.vmap(lambda q: reduce_members(q, self.actor_reduction))(each)
        return self._of_asked(q, observation)

    def success(
        self, state: Judged, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch"]:
        """How likely the classifier takes what is seen for a success of what is asked for."""
        each = jax.vmap(lambda judged: judged.success(observation))(state)
        return self._of_asked(each, observation)

    def _learn_values(
        self,
        state: Judged,
        piece: tuple[Transitions, Bool[Array, " row"], Bool[Array, " row"]],
        key: PRNGKeyArray,
    ):
        rows, success, failure = piece
        state, judged = improve_classifier(self, state, rows.next_observation, success, failure)
        reward = (state.classifier(rows.next_observation)[..., 0] > 0.0).astype(jnp.float32)
        rows = dataclasses.replace(rows, reward=reward)
        target = soft_target(self, state.soft, rows, members=self.num_target_critics, key=key)
        soft, learned = regress_critics(self, state.soft, rows, target)
        metrics = {"classifier_loss": judged, "predicted_success": jnp.mean(reward), **learned}
        return dataclasses.replace(state, soft=soft), metrics

    def _asked(self, observation: Float[Array, "*batch observation"]) -> Int[Array, "*batch"]:
        """Which policy is asked for."""
        if self.num_policies == 1:
            return jnp.zeros(observation.shape[:-1], jnp.int32)
        last = jnp.round(observation[..., -1]).astype(jnp.int32)
        return jnp.clip(last, 0, self.num_policies - 1)

    def _of_asked(self, each: Float[Array, "policy *batch"], observation: Array) -> Any:
        """Of what every policy says that of the one that is asked for."""
        return jnp.take_along_axis(each, self._asked(observation)[None], axis=0)[0]
