"""Bonuses for stepping from the known to the new."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import flag, integer, non_negative, positive, share, sizes
from headwater.core.method import AbstractMethod, AbstractPolicy, Info
from headwater.core.records import Transition
from headwater.core.spaces import Spaces
from headwater.networks.mlp import MLP
from headwater.ops.control.gradient_steps import begin, descend
from headwater.parts.bonus.paid import (
    Paid,
    act_paid,
    begin_paid,
    check_columns,
    check_settings,
    chosen,
    inner_method,
    pay,
    reached,
)
from headwater.parts.bonus.visits import Visits, begin_visits, visit_step


class Distillation(eqx.Module):
    """A random network, what predicts its outputs, and the visits of this episode.

    **Arguments:** `visits`: `None` where first visits are not asked for.
    """

    target: MLP
    predictor: MLP
    optimiser: optax.OptState
    visits: Visits | None


class NovelD(
    AbstractMethod[Spaces, Transition, Paid[Distillation]],
    AbstractPolicy[Paid[Distillation]],
):
    r"""Another method, paid besides for stepping from what is known to what is new.

    How new an observation is, $e(o) = \lVert \hat f(o) - f(o) \rVert$, is the error of a network
    that learns a random one. The bonus is $\max(e(o') - \alpha e(o), 0)$, for the first visit of a
    cell in an episode only. The inner method learns from $r + \beta b / \sigma$, clipped, with σ
    the deviation of all bonuses so far.

    **Arguments:**

    - `inner`: the method that acts and learns; each of its steps is seen once.
    - `left_weight`: α, the weight of how new the observation was that a step left; 0 is random
      network distillation.
    - `first_visits`: pay only for the first visit of a cell in an episode.
    - `learning_rate`: of Adam, for the prediction.
    - `embedding_size`: number of outputs that are predicted.
    - `bonus_scale`: β.
    - `scale_bonus`: divide bonuses by their deviation so far.
    - `reward_clip`: bound on the absolute value of the sum.
    - `cells_per_unit`: cells into which a unit of each counted column is divided.
    - `novelty_columns`: columns of observations that the networks and the counts see; all if there
      are none.
    - `policy_columns`: columns that the inner method sees; all if there are none.
    - `hidden_sizes`: hidden layers of both networks.

    **Reference:** Zhang, Xu, Wang, Wu, Keutzer, Gonzalez, Tian (2021), NovelD, NeurIPS; the random
    network: Burda et al. (2019), arXiv:1810.12894.

    **Differences from the paper:** the inner method learns from a stream instead of IMPALA's
    batches, and the prediction from each step once; a terminal step gets no bonus.
    """

    feed: ClassVar[Feed] = Feed.STREAM
    info: ClassVar[Info] = Info(
        "zhang2021noveld",
        summary="adds a bonus for stepping from known to new observations to another's rewards",
        parents=("CountBonus",),
    )

    inner: AbstractMethod = inner_method()
    left_weight: float = share(0.5)
    first_visits: bool = flag(True)
    learning_rate: float = non_negative(1e-4)
    embedding_size: int = integer(32)
    bonus_scale: float = non_negative(1.0)
    scale_bonus: bool = flag(True)
    reward_clip: float = positive(1.0, infinite=True)
    cells_per_unit: int = integer(1)
    novelty_columns: tuple[int, ...] = eqx.field(static=True, default=())
    policy_columns: tuple[int, ...] = eqx.field(static=True, default=())
    hidden_sizes: tuple[int, ...] = sizes((128,))

    def __check_init__(self):
        check_settings(self)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> Paid[Distillation]:
        check_columns(self, problem)
        inner_key, target_key, predictor_key = jax.random.split(key, 3)
        columns = len(self.novelty_columns) or problem.observation_size
        size = self.embedding_size
        predictor = MLP(columns, size, self.hidden_sizes, key=predictor_key)
        memory = Distillation(
            MLP(columns, size, self.hidden_sizes, key=target_key),
            predictor,
            begin(optax.adam(self.learning_rate), predictor),
            begin_visits("NovelD", problem, self.novelty_columns, self.cells_per_unit)
            if self.first_visits
            else None,
        )
        return begin_paid(self, problem, memory, key=inner_key)

    def update(self, state: Paid[Distillation], data: Transition, *, key: PRNGKeyArray):
        memory, visits = state.memory, state.memory.visits
        left = chosen(data.observation, self.novelty_columns)
        came = chosen(reached(data), self.novelty_columns)
        new = _error(memory.predictor, memory.target, came)
        known = _error(memory.predictor, memory.target, left)
        bonus = jnp.maximum(new - self.left_weight * known, 0.0)
        if visits is not None:
            visits, found = visit_step(visits, left, came, self.cells_per_unit, data, state.fresh)
            bonus = bonus * found.first.astype(jnp.float32)

        def loss(predictor: MLP):
            off = jnp.mean(jnp.square(predictor(came) - memory.target(came)))
            return jnp.where(data.terminal, 0.0, off)

        error, gradient = jax.value_and_grad(loss)(memory.predictor)
        adam = optax.adam(self.learning_rate)
        predictor, optimiser = descend(adam, gradient, memory.optimiser, memory.predictor)
        memory = Distillation(memory.target, predictor, optimiser, visits)
        state, step, paid = pay(self, state, data, memory, bonus)
        inner, metrics = self.inner.update(state.inner, step, key=key)
        metrics = {**metrics, **paid, "prediction_loss": error}
        return dataclasses.replace(state, inner=inner), metrics

    def act(
        self, state: Paid[Distillation], observation: Array, *, key: PRNGKeyArray, explore: bool
    ):
        return act_paid(self, state, observation, key=key, explore=explore)


def _error(predictor: MLP, target: MLP, seen: Array) -> Float[Array, ""]:
    return jnp.linalg.norm(predictor(seen) - target(seen))
