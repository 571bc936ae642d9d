"""Elliptical episodic bonuses."""

import dataclasses
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive, sizes
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


class InverseModel(eqx.Module):
    """Features of observations, and which action led from one to another, told from them."""

    encoder: MLP
    head: MLP


class Episode(eqx.Module):
    """What is remembered of the present episode, and what features and counts were learned.

    **Arguments:** `inverse`: of the covariance of the features in this episode; the rest is `None`
    where it is not needed.
    """

    inverse: Float[Array, "feature feature"] | None
    model: InverseModel | None
    optimiser: optax.OptState | None
    visits: Visits | None


class E3B(
    AbstractMethod[Spaces, Transition, Paid[Episode]],
    AbstractPolicy[Paid[Episode]],
):
    r"""Another method, paid besides for features that are unlike those of the episode so far.

    The bonus is $b = \phi^\top C^{-1} \phi$ of the reached observation, with $C = \lambda I + \sum
    \phi\phi^\top$ over the episode before it, kept by rank-one changes of the inverse. Features are
    learned by telling the action from the features before and after it, so that they hold what can
    be controlled. The inner method learns from $r + \beta b / \sigma$, clipped, with σ the
    deviation of all bonuses so far.

    **Arguments:**

    - `inner`: the method that acts and learns; each of its steps is seen once.
    - `features`: learned; or the observations; or the cells of these, one-hot, which makes the
      bonus $1/(\lambda + N_e)$ exactly, with $N_e$ visits in the episode before.
    - `times_counts`: multiply by $1/\sqrt N$ for $N$ visits of the reached cell in all episodes.
    - `ridge`: λ.
    - `learning_rate`: of Adam, for the features.
    - `embedding_size`: number of features that are learned.
    - `bonus_scale`: β.
    - `scale_bonus`: divide bonuses by their deviation so far.
    - `reward_clip`: bound on the absolute value of the sum.
    - `cells_per_unit`: cells into which a unit of each counted column is divided.
    - `novelty_columns`: columns of observations that features and counts see; all if there are
      none.
    - `policy_columns`: columns that the inner method sees; all if there are none.
    - `hidden_sizes`: hidden layers of the features, and of what tells actions from them.

    **Reference:** Henaff, Raileanu, Jiang, Rocktäschel (2022), arXiv:2210.05805; the product with
    counts: Henaff, Jiang, Raileanu (2023), arXiv:2306.03236.

    **Differences from the paper:** the inner method learns from a stream instead of IMPALA's
    batches, features from each step once; the bonus is of the observation that a step leads to, the
    first one of an episode only enters C; a terminal step gets none; continuous actions are told by
    least squares.
    """

    feed: ClassVar[Feed] = Feed.STREAM
    info: ClassVar[Info] = Info(
        "henaff2022exploration",
        summary="adds a bonus for features unlike those of the episode to another method's rewards",
        parents=("CountBonus",),
    )

    inner: AbstractMethod = inner_method()
    features: Literal["learned", "observed", "cells"] = choice("learned")
    times_counts: bool = flag(False)
    ridge: float = positive(0.1)
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

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> Paid[Episode]:
        check_columns(self, problem)
        inner_key, encoder_key, head_key = jax.random.split(key, 3)
        columns = len(self.novelty_columns) or problem.observation_size
        inverse, model, optimiser, visits = None, None, None, None
        if self.features == "learned":
            size = self.embedding_size
            hidden = self.hidden_sizes
            model = InverseModel(
                MLP(columns, size, hidden, key=encoder_key),
                MLP(2 * size, problem.action_size, hidden, key=head_key),
            )
            optimiser = begin(optax.adam(self.learning_rate), model)
        if self.features != "cells":
            size = self.embedding_size if self.features == "learned" else columns
            inverse = jnp.eye(size) / self.ridge
        if self.features == "cells" or self.times_counts:
            visits = begin_visits("E3B", problem, self.novelty_columns, self.cells_per_unit)
        return begin_paid(self, problem, Episode(inverse, model, optimiser, visits), key=inner_key)

    def update(self, state: Paid[Episode], data: Transition, *, key: PRNGKeyArray):
        memory = state.memory
        before = chosen(data.observation, self.novelty_columns)
        after = chosen(reached(data), self.novelty_columns)
        inverse, visits, bonus = memory.inverse, memory.visits, jnp.ones(())
        if inverse is not None:
            _, begun = _elliptical(inverse, self._embedded(memory, before))
            inverse = jnp.where(state.fresh, begun, inverse)
            bonus, longer = _elliptical(inverse, self._embedded(memory, after))
            nothing = jnp.eye(len(inverse)) / self.ridge
            inverse = jnp.where(data.terminal | data.truncated, nothing, longer)
        if visits is not None:
            visits, found = visit_step(
                visits, before, after, self.cells_per_unit, data, state.fresh
            )
            if self.features == "cells":
                bonus = 1.0 / (self.ridge + jnp.maximum(found.within - 1.0, 0.0))
            if self.times_counts:
                bonus = bonus / jnp.sqrt(jnp.maximum(found.in_all, 1.0))
        model, optimiser, loss = self._learned(memory, before, after, data)
        memory = Episode(inverse, model, optimiser, visits)
        state, step, paid = pay(self, state, data, memory, bonus)
        inner, metrics = self.inner.update(state.inner, step, key=key)
        metrics = {**metrics, **paid, "inverse_loss": loss}
        return dataclasses.replace(state, inner=inner), metrics

    def act(self, state: Paid[Episode], observation: Array, *, key: PRNGKeyArray, explore: bool):
        return act_paid(self, state, observation, key=key, explore=explore)

    def _embedded(self, memory: Episode, seen: Array) -> Float[Array, " feature"]:
        return seen if memory.model is None else memory.model.encoder(seen)

    def _learned(self, memory: Episode, before: Array, after: Array, data: Transition):
        """The inverse model after one step of Adam, but for a terminal step."""
        if memory.model is None or memory.optimiser is None:
            return None, None, jnp.zeros(())

        def loss(model: InverseModel):
            found = model.head(jnp.concatenate([model.encoder(before), model.encoder(after)]))
            if jnp.issubdtype(data.action.dtype, jnp.integer):
                error = optax.softmax_cross_entropy_with_integer_labels(found, data.action)
            else:
                error = jnp.sum(jnp.square(found - data.action))
            return jnp.where(data.terminal, 0.0, error)

        error, gradient = jax.value_and_grad(loss)(memory.model)
        adam = optax.adam(self.learning_rate)
        model, optimiser = descend(adam, gradient, memory.optimiser, memory.model)
        return model, optimiser, error


def _elliptical(inverse: Float[Array, "feature feature"], feature: Float[Array, " feature"]):
    """How unlike the others a feature is, and the inverse with it among them."""
    image = inverse @ feature
    # Below zero by rounding only.
    norm = jnp.maximum(feature @ image, 0.0)
    return norm, inverse - jnp.outer(image, image) / (1.0 + norm)
