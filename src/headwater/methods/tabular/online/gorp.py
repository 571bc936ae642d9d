"""Looks a few actions ahead and acts at random after them."""

import itertools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.fields import integer
from headwater.core.finite import FiniteProblem
from headwater.core.method import AbstractMethod, AbstractTablePolicy, Info
from headwater.core.records import Episodes
from headwater.ops.tabular.counts import at_least_once

_LARGEST = 2**27
"""Numbers in a table of policies, half a gigabyte."""


class GORPState(eqx.Module):
    """The actions fixed so far, and how many they are."""

    prefix: Int[Array, " horizon"]
    fixed: Int[Array, ""]
    problem: FiniteProblem


class GORP(AbstractMethod[FiniteProblem, Episodes, GORPState], AbstractTablePolicy[GORPState]):
    r"""Greedy over random policy: fixes one action after the other by what follows it on average.

    For deterministic processes. With actions $a_1 \dots a_{i-1}$ fixed, it plays each of the
    $A^k$ sequences of the next $k$ actions `episodes_per_sequence` (m) times: the fixed actions,
    the sequence, then actions at random. The first action of the sequence with the highest mean of
    rewards after the fixed actions becomes $a_i$. One update is one iteration; after as many
    updates as the horizon has steps all actions are fixed, at a cost of $T^2 A^k m$ steps.

    The least $k + \log_A m$ with which it finds a best sequence at least every other time is the
    *effective horizon* of the process (`headwater.analysis.effective_horizon`).

    **Arguments:**

    - `lookahead`: k, how many actions it looks ahead.
    - `episodes_per_sequence`: m, how often it plays each sequence.

    **Reference:** Laidlaw, Russell, Dragan (2023), arXiv:2304.09853.

    **Differences from the paper:** rewards are not discounted.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "laidlaw2023bridging",
        summary="greedy in what a few chosen and then random actions earn, step after step",
    )

    lookahead: int = integer(1)
    episodes_per_sequence: int = integer(16)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> GORPState:
        problem.require_one_task("GORP")
        for name, value in (
            ("lookahead", self.lookahead),
            ("episodes_per_sequence", self.episodes_per_sequence),
        ):
            if value < 1:
                raise SpecificationError(f"GORP: {name} = {value} must be at least one")
        if self.lookahead > problem.horizon:
            raise SpecificationError(
                f"GORP: lookahead = {self.lookahead} looks further than an episode has steps, "
                f"{problem.horizon}"
            )
        rows = self.episodes_per_sequence * problem.actions**self.lookahead
        if rows * problem.horizon * problem.states * problem.actions > _LARGEST:
            raise SpecificationError(
                f"GORP: lookahead = {self.lookahead} and episodes_per_sequence = "
                f"{self.episodes_per_sequence} make {rows} episodes in an iteration, "
                "more than fit in memory: take less of either"
            )
        prefix = jnp.zeros(problem.horizon, jnp.int32)
        return GORPState(prefix, jnp.zeros((), jnp.int32), problem)

    def update(self, state: GORPState, data: Episodes, *, key: PRNGKeyArray):
        problem = state.problem
        horizon = problem.horizon
        step = jnp.arange(horizon)
        action = data.action.reshape(-1, horizon)
        reward = data.reward.reshape(-1, horizon)
        free = jnp.broadcast_to(step >= state.fixed, action.shape)
        to_go = jnp.sum(jnp.where(free, reward, 0.0), axis=-1)
        followed = jnp.all((action == state.prefix[None]) | free, axis=-1)
        # What was played says which sequence it was, so that episodes may come in any order. Past
        # the end there is nothing to choose, and sequences that differ there are alike.
        ahead = state.fixed + jnp.arange(self.lookahead)
        taken = action[:, jnp.minimum(ahead, horizon - 1)]
        chosen = jnp.where((ahead < horizon)[None], taken, 0)
        place = jnp.asarray(problem.actions ** np.arange(self.lookahead)[::-1], jnp.int32)
        sequence = chosen @ place

        weight = followed.astype(jnp.float32)
        size = problem.actions**self.lookahead
        times = jnp.zeros(size).at[sequence].add(weight)
        total = jnp.zeros(size).at[sequence].add(weight * to_go)
        mean = jnp.where(times > 0.0, total / at_least_once(times), -jnp.inf)
        # Ties are broken at random: how actions are numbered must not decide.
        best = jnp.where(mean >= jnp.max(mean) - 1e-6, jax.random.uniform(key, mean.shape), -1.0)
        first = (jnp.argmax(best) // place[0]).astype(jnp.int32)
        prefix = jnp.where(step == state.fixed, first, state.prefix)
        metrics = {
            "return": jnp.mean(jnp.sum(reward, axis=-1)),
            "fixed": state.fixed.astype(jnp.float32),
            "best_mean": jnp.where(jnp.any(times > 0.0), jnp.max(mean), 0.0),
        }
        return GORPState(prefix, jnp.minimum(state.fixed + 1, horizon), problem), metrics

    def policy(self, state: GORPState, *, explore: bool):
        """All sequences, `samples` times each; or the fixed actions, and the first one after them.

        Of a deterministic process only the actions matter: the table is the same in all states.
        """
        horizon, states, actions = state.problem.sizes
        prefix = jax.nn.one_hot(state.prefix, actions)
        if not explore:
            return jnp.broadcast_to(prefix[:, None], (horizon, states, actions))
        step = jnp.arange(horizon)
        every = np.asarray(list(itertools.product(range(actions), repeat=self.lookahead)), np.int32)
        sequences = jnp.repeat(jnp.asarray(every), self.episodes_per_sequence, axis=0)
        ahead = step - state.fixed
        inside = (ahead >= 0) & (ahead < self.lookahead)
        played = jax.nn.one_hot(sequences[:, jnp.clip(ahead, 0, self.lookahead - 1)], actions)
        table = jnp.where(inside[None, :, None], played, 1.0 / actions)
        table = jnp.where((ahead < 0)[None, :, None], prefix[None], table)
        lead = table.shape[0]
        return jnp.broadcast_to(table[:, :, None], (lead, horizon, states, actions))
