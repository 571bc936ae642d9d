"""Evolution strategies for update rules: whole lifetimes, judged by how they end.

A function takes the method itself for its `settings`.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import Metrics
from headwater.ops.control.gradient_steps import begin, descend
from headwater.ops.tabular.planning import expected_return
from headwater.parts.meta.agents import drawn_lifetime, entropy_of

Learner = TypeVar("Learner")
Number = float | Float[Array, ""]


class Evolving(eqx.Module):
    """The rule, moments of Adam, updates so far, and how the last lifetimes ended.

    **Arguments:** `policies`: at the end of the last lifetime in each task, of the better of the
    two rules that were tried in it.
    """

    rule: Any
    optimiser: optax.OptState
    step: Int[Array, ""]
    policies: Float[Array, "task horizon state action"]


@runtime_checkable
class EvolutionSettings(Protocol):
    """The hyper-parameters that are read from a method."""

    @property
    def shortest_lifetime(self) -> int | Int[Array, ""]: ...
    @property
    def longest_lifetime(self) -> int | Int[Array, ""]: ...
    @property
    def perturbation_scale(self) -> Number: ...
    @property
    def learning_rate(self) -> Number: ...
    @property
    def learning_rate_decay(self) -> Number: ...


Step = Callable[[Any, Learner, FiniteProcess, Array, Array, PRNGKeyArray], Learner]
"""One update of a learner: `(rule, learner, process, updates so far, lifetime, key)`."""


def begin_evolution(
    settings: EvolutionSettings, problem: FiniteProblem, rule: Any, method: str
) -> Evolving:
    """The state before any task was seen. **Arguments:** `method`: whose name a complaint bears."""
    tasks = problem.require_tasks(method)
    return Evolving(
        rule,
        begin(optax.adam(settings.learning_rate), rule),
        jnp.zeros((), jnp.int32),
        jnp.full((tasks, *problem.sizes), 1.0 / problem.actions, jnp.float32),
    )


def evolve(
    settings: EvolutionSettings,
    state: Evolving,
    tasks: FiniteProcess,
    learner: Learner,
    step: Step,
    logits: Callable[[Learner], Float[Array, "horizon state action"]],
    *,
    key: PRNGKeyArray,
) -> tuple[Evolving, Metrics]:
    """One step of the rule towards those that end better than their opposites.

    In each task two rules are followed for a lifetime, with the same random numbers: the rule with
    some noise added, and with the same noise subtracted. Which of them ends with the higher
    expected return is all that counts.

    **Arguments:** `learner`: before its first update; `step`: see `Step`; `logits`: of a learner's
    policy.
    """
    lifetime_key, noise_key, learner_key = jax.random.split(key, 3)
    lifetime = drawn_lifetime(
        settings.shortest_lifetime, settings.longest_lifetime, key=lifetime_key
    )
    flat, unravel = ravel_pytree(state.rule)
    count = tasks.reward.shape[0]
    noise = jax.random.normal(noise_key, (count, flat.size))

    def end(flat, process, key):
        found = lifetime_end(step, unravel(flat), learner, process, lifetime, key=key)
        policy = jax.nn.softmax(logits(found))
        return expected_return(process, policy), policy, entropy_of(logits(found))

    def both(noise, process, key):
        shift = settings.perturbation_scale * noise
        moved = jnp.stack([flat + shift, flat - shift])
        return jax.vmap(end, in_axes=(0, None, None))(moved, process, key)

    keys = jax.random.split(learner_key, count)
    worth, policies, entropy = jax.vmap(both)(noise, tasks, keys)
    better = 0.5 * jnp.sign(worth[:, 0] - worth[:, 1])
    direction = jnp.mean(better[:, None] * noise, axis=0) / settings.perturbation_scale
    rate = settings.learning_rate * settings.learning_rate_decay**state.step
    rule, optimiser = descend(optax.adam(rate), unravel(-direction), state.optimiser, state.rule)
    winner = jnp.argmax(worth, axis=1)
    kept = jnp.take_along_axis(policies, winner[:, None, None, None, None], axis=1)[:, 0]
    metrics = {"final_return": jnp.mean(worth), "final_entropy": jnp.mean(entropy)}
    return Evolving(rule, optimiser, state.step + 1, kept), metrics


def lifetime_end(
    step: Step,
    rule: Any,
    learner: Learner,
    process: FiniteProcess,
    lifetime: Int[Array, ""],
    *,
    key: PRNGKeyArray,
) -> Learner:
    """The learner at the end of a lifetime of so many updates."""

    def update(passed, learner):
        return step(rule, learner, process, passed, lifetime, jax.random.fold_in(key, passed))

    return jax.lax.fori_loop(0, lifetime, update, learner)


def policies_of_lifetime(
    step: Step,
    rule: Any,
    learner: Learner,
    process: FiniteProcess,
    lifetime: int,
    logits: Callable[[Learner], Float[Array, "horizon state action"]],
    *,
    key: PRNGKeyArray,
) -> Float[Array, "update horizon state action"]:
    """The policy after each update of a lifetime."""

    def update(learner, passed):
        key_here = jax.random.fold_in(key, passed)
        learner = step(rule, learner, process, passed, jnp.asarray(lifetime), key_here)
        return learner, jax.nn.softmax(logits(learner))

    return jax.lax.scan(update, learner, jnp.arange(lifetime))[1]
