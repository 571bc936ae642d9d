"""Behavioural cloning in a finite process, by counting."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import non_negative
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes


class TabularCloningState(eqx.Module):
    """How often the expert took each action."""

    visits: Int[Array, "horizon state action"]


class TabularCloning(
    AbstractMethod[FiniteProblem, Episodes, TabularCloningState],
    AbstractTablePolicy[TabularCloningState],
):
    r"""Takes each action as often as the expert did.

    $\pi_h(a|s) = (N_h(s,a) + c) / (N_h(s) + cA)$: the most likely policy with a penalty
    $-c \sum \ln \pi_h(a|s)$, which keeps every action possible. Over whole episodes its divergence
    from the expert, $KL(\pi^E \| \pi)$, falls like SAH over the number of demonstrations. Every
    update adds demonstrations.

    **Arguments:**

    - `smoothing`: c.

    **Reference:** Tiapkin et al. (2023), arXiv:2310.17303.

    **Differences from the paper:** none; c is one there.
    """

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info(
        "tiapkin2024demonstration",
        summary="behavioural cloning in a finite process, with smoothed frequencies",
        parents=("Behavioural cloning",),
        rewards=False,
    )

    smoothing: float = non_negative(1.0)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> TabularCloningState:
        problem.require_one_task("TabularCloning")
        return TabularCloningState(jnp.zeros(problem.sizes, jnp.int32))

    def update(self, state: TabularCloningState, data: Episodes, *, key: PRNGKeyArray):
        step = jnp.broadcast_to(jnp.arange(data.action.shape[-1]), data.action.shape)
        before = self.policy(state, explore=False)
        at = step, data.state[..., :-1], data.action
        visits = state.visits.at[at].add(1)
        # Of the policy before it saw these demonstrations: how well it predicts new ones.
        metrics = {"negative_log_likelihood": -jnp.mean(jnp.sum(jnp.log(before[at]), axis=-1))}
        return TabularCloningState(visits), metrics

    def policy(self, state: TabularCloningState, *, explore: bool):
        smoothed = state.visits + self.smoothing
        return smoothed / jnp.sum(smoothed, axis=-1, keepdims=True)
