"""How to go online by default, from how widely a log's actions are spread."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from headwater.core.method import AbstractActorCritic, AbstractMethod, AbstractPolicy
from headwater.core.records import Transitions
from headwater.core.spaces import Discrete, Spaces
from headwater.runs.options import Recipe

NARROW = 0.75
"""A log whose actions are spread less is narrow: see docs/real_run.md for what was measured."""
_ROWS = 4_096


def spread_of_actions(
    method: AbstractMethod, state: Any, data: Transitions, spaces: Spaces
) -> float:
    """How far logged actions lie from what a policy does, in that of actions drawn uniformly.

    For continuous actions, the root mean square over components and rows, where that of uniform
    actions about the middle is one; for discrete ones, the share of the rows where it does another
    thing, where that of uniform actions is one. It can be more than one.

    **Arguments:** `state`: of one seed of `method`, which has a policy; `data`: `[row, …]`, of
    which at most 4,096, evenly spaced, are looked at; `spaces`.
    """
    rows = data.reward.shape[0]
    some = np.unique(np.linspace(0, rows - 1, min(rows, _ROWS)).astype(int))
    observation, action = (np.asarray(x)[some] for x in (data.observation, data.action))
    greedy = np.asarray(_greedy_actions(method, state, jnp.asarray(observation)))
    if isinstance(spaces.action, Discrete):
        return float(np.mean(greedy != action) / (1.0 - 1.0 / spaces.action.count))
    return float(np.sqrt(3.0 * np.mean((greedy - action) ** 2)))


# Compiled once for all seeds.
@eqx.filter_jit
def _greedy_actions(method: AbstractMethod, state: Any, observation: Array) -> Array:
    assert isinstance(method, AbstractPolicy)
    key = jax.random.key(0)
    act = lambda observation: method.act(state, observation, key=key, explore=False)[0]
    return jax.vmap(act)(observation)


def narrow(method: AbstractMethod, spread: float) -> str | None:
    """Says, in a sentence, if a log of such a spread is narrow for a policy that goes on freely."""
    if not _is_narrow(method, spread):
        return None
    return (
        f"the log's actions keep close to the policy ({_measured(spread)}), so that it may lose "
        "what it knows when it goes on freely: the recipes 'proto' and 'staged' hold it"
    )


def recipe_for(method: AbstractMethod, spread: float) -> tuple[Recipe, str]:
    """The recipe that a log of such a spread asks for, and one sentence that says why."""
    if _is_narrow(method, spread):
        return "staged", (
            f"the log's actions keep close to the policy ({_measured(spread)}), which is held near "
            "what it knows: the recipe is 'staged'"
        )
    why = (
        f"the log's actions are spread widely about the policy ({_measured(spread)})"
        if isinstance(method, AbstractActorCritic)
        else f"{type(method).__name__} has no actor that could be held near what it knows"
    )
    return "keep-data", f"{why}: the recipe is 'keep-data'"


def _is_narrow(method: AbstractMethod, spread: float) -> bool:
    """Whether it is; only what has an actor can be held near it."""
    return spread < NARROW and isinstance(method, AbstractActorCritic)


def _measured(spread: float) -> str:
    return f"a spread of {spread:.2f}, where uniform ones have 1 and less than {NARROW:g} is narrow"
