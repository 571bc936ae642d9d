"""Training inside a program that is mapped over instances, for the claims about language models.

`run` has one problem for all seeds; these claims have another one for each.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from headwater.core.method import AbstractMethod, Agent, Metrics
from headwater.core.source import AbstractSource


def trained(
    method: AbstractMethod,
    problem: Any,
    source: AbstractSource,
    updates: int,
    *,
    key: PRNGKeyArray,
) -> Any:
    """The method's state after so many updates, each on a fresh draw."""
    return trained_and_measured(method, problem, source, updates, None, key=key)[0]


def trained_and_measured(
    method: AbstractMethod,
    problem: Any,
    source: AbstractSource,
    updates: int,
    measure: Callable[[Agent], Metrics] | None,
    *,
    key: PRNGKeyArray,
) -> tuple[Any, Any]:
    """The state, and what is measured after each update, along the first axis."""
    begin_key, source_key, key = jax.random.split(key, 3)

    def step(carry, key):
        state, drawn_from = carry
        draw_key, update_key = jax.random.split(key)
        drawn_from, data = source.draw(drawn_from, Agent(method, state), key=draw_key)
        state, _ = method.update(state, data, key=update_key)
        return (state, drawn_from), () if measure is None else measure(Agent(method, state))

    begun = method.init(problem, key=begin_key), source.init(key=source_key)
    (state, _), seen = jax.lax.scan(step, begun, jax.random.split(key, updates))
    return state, seen
