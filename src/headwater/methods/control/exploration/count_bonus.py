"""Bonuses from exact counts: global, episodic, and their product."""

import dataclasses
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import choice, flag, integer, non_negative, positive
from headwater.core.method import AbstractMethod, AbstractPolicy, Info
from headwater.core.records import Transition
from headwater.core.spaces import Spaces
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


class CountBonus(
    AbstractMethod[Spaces, Transition, Paid[Visits]],
    AbstractPolicy[Paid[Visits]],
):
    r"""Another method, paid besides for visiting cells that were visited seldom.

    With $N$ visits of the reached cell so far and $N_e$ in this episode, these included, the bonus
    is $1/\sqrt{N}$ (global), $1[N_e = 1]$ (episodic), or the product. Global ones suit episodes
    that have much in common, episodic ones those that have little, the product both. The inner
    method learns from $r + \beta b / \sigma$, clipped, with σ the deviation of all bonuses so far.

    **Arguments:**

    - `inner`: the method that acts and learns; each of its steps is seen once.
    - `bonus`: which of the three; `none` pays nothing, for comparison.
    - `bonus_scale`: β.
    - `scale_bonus`: divide bonuses by their deviation so far.
    - `reward_clip`: bound on the absolute value of the sum.
    - `cells_per_unit`: cells into which a unit of each counted column is divided; with 1 whole
      numbers are counted exactly.
    - `novelty_columns`: columns of observations whose cells are counted; all if there are none.
    - `policy_columns`: columns that the inner method sees; all if there are none.

    **Reference:** Henaff, Jiang, Raileanu (2023), arXiv:2306.03236.

    **Differences from the paper:** the inner method learns from a stream instead of IMPALA's
    batches; a terminal step gets no bonus, so that what stands behind it is not looked at.
    """

    feed: ClassVar[Feed] = Feed.STREAM
    info: ClassVar[Info] = Info(
        "henaff2023study",
        summary="adds a bonus from global and episodic counts to another method's rewards",
    )

    inner: AbstractMethod = inner_method()
    bonus: Literal["product", "global", "episodic", "none"] = choice("product")
    bonus_scale: float = non_negative(1.0)
    scale_bonus: bool = flag(True)
    reward_clip: float = positive(1.0, infinite=True)
    cells_per_unit: int = integer(1)
    novelty_columns: tuple[int, ...] = eqx.field(static=True, default=())
    policy_columns: tuple[int, ...] = eqx.field(static=True, default=())

    def __check_init__(self):
        check_settings(self)

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> Paid[Visits]:
        check_columns(self, problem)
        visits = begin_visits("CountBonus", problem, self.novelty_columns, self.cells_per_unit)
        return begin_paid(self, problem, visits, key=key)

    def update(self, state: Paid[Visits], data: Transition, *, key: PRNGKeyArray):
        left = chosen(data.observation, self.novelty_columns)
        came = chosen(reached(data), self.novelty_columns)
        visits, found = visit_step(state.memory, left, came, self.cells_per_unit, data, state.fresh)
        rare = 1.0 / jnp.sqrt(jnp.maximum(found.in_all, 1.0))
        new = found.first.astype(jnp.float32)
        bonus = {
            "global": rare,
            "episodic": new,
            "product": rare * new,
            "none": jnp.zeros(()),
        }[self.bonus]
        state, step, paid = pay(self, state, data, visits, bonus)
        inner, metrics = self.inner.update(state.inner, step, key=key)
        return dataclasses.replace(state, inner=inner), {**metrics, **paid}

    def act(self, state: Paid[Visits], observation: Array, *, key: PRNGKeyArray, explore: bool):
        return act_paid(self, state, observation, key=key, explore=explore)
