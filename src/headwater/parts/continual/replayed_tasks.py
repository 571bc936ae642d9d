"""The state of a learner of tasks one after the other, which replays a few rows of earlier ones."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from headwater.core.records import TaskLog, Transitions
from headwater.core.spaces import Box, Spaces
from headwater.networks.control.actors import DeterministicActor
from headwater.networks.mlp import MLP
from headwater.ops.control.gradient_steps import begin, descend
from headwater.parts.continual.kept_experience import KeptExperience
from headwater.parts.deterministic_actor_critic import DeterministicActorCritic


class ReplayedTasks(eqx.Module):
    """The policy of all tasks, the learner and the model of the present one, and what was kept.

    **Arguments:** `policy`: takes observations with the task, one-hot, beside them; `learner`: of
    which actor and critics do so too; `model`: from a standardised observation and an action to the
    change of the observation; `task`: that is learned, counted from 0; `acting`: that is acted in.
    """

    policy: DeterministicActor
    policy_optimiser: optax.OptState
    learner: DeterministicActorCritic
    model: MLP
    model_optimiser: optax.OptState
    kept: KeptExperience
    task: Int[Array, ""]
    acting: Int[Array, ""]


def begin_replayed(
    policy: DeterministicActor,
    learner: DeterministicActorCritic,
    model: MLP,
    kept: KeptExperience,
) -> ReplayedTasks:
    """The state before any data, moments of Adam at zero."""
    adam, first = optax.adam(0.0), jnp.zeros((), jnp.int32)
    moments = begin(adam, policy), begin(adam, model)
    return ReplayedTasks(policy, moments[0], learner, model, moments[1], kept, first, first)


def spaces_with_task(problem: Spaces, tasks: int) -> Spaces:
    """The problem with the task, one-hot, at the end of observations."""
    low, high = (0.0,) * tasks, (1.0,) * tasks
    own = problem.observation
    return Spaces(Box((*own.low, *low), (*own.high, *high)), problem.action)


def with_task(
    observation: Float[Array, "*batch observation"], task: Int[Array, "*task"], tasks: int
) -> Float[Array, "*batch wide"]:
    """Observations with their task, or that of each of them, one-hot, at the end."""
    code = jax.nn.one_hot(task, tasks)
    code = jnp.broadcast_to(code, (*observation.shape[:-1], tasks))
    return jnp.concatenate([observation, code], axis=-1)


def learn_changes(
    state: ReplayedTasks, rows: Transitions, optimiser: optax.GradientTransformation
) -> tuple[ReplayedTasks, Float[Array, ""]]:
    """One step of the model down its squared error, and that; behind terminal rows is nothing.

    **Arguments:** `rows`: standardised, without their task.
    """

    def loss(model: MLP) -> Float[Array, ""]:
        pairs = jnp.concatenate([rows.observation, rows.action], axis=-1)
        error = rows.observation + model(pairs) - rows.next_observation
        ended = jnp.broadcast_to(rows.terminal[..., None], error.shape)
        return jnp.mean(jnp.where(ended, 0.0, error) ** 2)

    value, gradients = jax.value_and_grad(loss)(state.model)
    model, moments = descend(optimiser, gradients, state.model_optimiser, state.model)
    return dataclasses.replace(state, model=model, model_optimiser=moments), value


def expected_next(
    state: ReplayedTasks, observation: Float[Array, "*batch observation"], tasks: int
) -> Float[Array, "*batch observation"]:
    """Where the learner of the present task leads from observations, as its model has it."""
    scale = state.learner.normaliser
    here = scale(observation)
    action = state.learner.actor(with_task(here, state.task, tasks))
    there = here + state.model(jnp.concatenate([here, action], axis=-1))
    mean, deviation = (jnp.broadcast_to(x, there.shape) for x in (scale.mean, scale.std))
    return there * deviation + mean


def go_on(
    state: ReplayedTasks,
    fresh: ReplayedTasks,
    log: TaskLog,
    chosen: Int[Array, " row"],
    *,
    keep_actor: bool,
) -> ReplayedTasks:
    """The state in which the next task begins.

    **Arguments:** `fresh`: a state before any data, for the next task; `log`: of the task that
    ends, of which the rows `chosen` are kept; `keep_actor`: the learner goes on with its actor.
    """
    old, learner = state.learner, fresh.learner
    # What networks read stays in the units of the first task; rewards are in those of each.
    scale = learner.normaliser.reward_scale
    normaliser = eqx.tree_at(lambda n: n.reward_scale, old.normaliser, scale)
    learner = dataclasses.replace(learner, normaliser=normaliser)
    if keep_actor:
        learner = dataclasses.replace(
            learner,
            actor=old.actor,
            target_actor=old.target_actor,
            actor_optimiser=old.actor_optimiser,
        )
    return dataclasses.replace(
        fresh,
        policy=state.policy,
        policy_optimiser=state.policy_optimiser,
        learner=learner,
        kept=state.kept.with_task(state.task, log, chosen),
        task=state.task + 1,
        acting=state.task + 1,
    )
