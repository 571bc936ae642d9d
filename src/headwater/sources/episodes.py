"""Whole episodes of finite processes, fresh or logged."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.finite import AbstractFiniteSimulator, AbstractPartialView, draw_index
from headwater.core.method import Agent
from headwater.core.records import Episodes
from headwater.core.source import AbstractSource
from headwater.sources.replay import NoState


class Played(eqx.Module):
    """Environment steps taken so far."""

    steps: Int[Array, ""]


class FreshEpisodes(AbstractSource[Played, Episodes]):
    """One episode with each of the policies that the method explores with; used once.

    **Arguments:** `simulator`: what to act in; for several tasks, one whose arrays have a leading
    task axis; `tasks`: how many, if there are several; the method's policies then have the tasks
    along their first axis.
    """

    simulator: AbstractFiniteSimulator
    tasks: int | None = eqx.field(static=True, default=None)

    def init(self, *, key: PRNGKeyArray) -> Played:
        return Played(jnp.zeros((), jnp.int32))

    def draw(self, state: Played, agent: Agent, *, key: PRNGKeyArray):
        policies = agent.policy(explore=True)
        if self.tasks is None:
            data = play_each(self.simulator, policies, key=key)
        else:
            keys = jax.random.split(key, self.tasks)
            each = eqx.filter_vmap(lambda s, p, k: play_each(s, p, key=k))
            data = each(self.simulator, policies, keys)
        return Played(state.steps + data.action.size), data

    def environment_steps(self, state: Played) -> Int[Array, ""]:
        return state.steps


class WholeLog(AbstractSource[NoState, Episodes]):
    """All logged episodes in every draw: the source of methods that learn in one step.

    **Arguments:** `data`: any number of episodes.
    """

    data: Episodes

    def init(self, *, key: PRNGKeyArray) -> NoState:
        return NoState()

    def draw(self, state: NoState, agent: Agent, *, key: PRNGKeyArray):
        return state, self.data


def play_each(
    simulator: AbstractFiniteSimulator,
    policies: Float[Array, "*episodes horizon state action"],
    *,
    key: PRNGKeyArray,
) -> Episodes:
    """One episode with each policy; the result has the leading axes of `policies`."""
    *lead, horizon, states, actions = policies.shape
    if not lead:
        return play(simulator, policies, key=key)
    flat = policies.reshape(-1, horizon, states, actions)
    keys = jax.random.split(key, flat.shape[0])
    data = jax.vmap(lambda policy, key: play(simulator, policy, key=key))(flat, keys)
    return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), data)


def play(
    simulator: AbstractFiniteSimulator,
    policy: Float[Array, "horizon state action"],
    *,
    key: PRNGKeyArray,
) -> Episodes:
    """One episode."""
    start_key, action_key, key = jax.random.split(key, 3)
    steps = policy.shape[0]

    def show(state):
        return simulator.show(state) if isinstance(simulator, AbstractPartialView) else state

    def one(state, step):
        time, uniform, key = step
        shown = show(state)
        action = draw_index(policy[time, shown], uniform)
        seen = simulator.step(time, state, action, key=key)
        return seen.state, (shown, action, seen.reward, seen.cost)

    first = simulator.reset(key=start_key)
    times = jnp.arange(steps, dtype=jnp.int32)
    uniform = jax.random.uniform(action_key, (steps,))
    last, (states, actions, rewards, costs) = jax.lax.scan(
        one, first, (times, uniform, jax.random.split(key, steps))
    )
    return Episodes(jnp.append(states, show(last)), actions, rewards, costs)


def log_episodes(
    simulator: AbstractFiniteSimulator,
    policy: Float[Array, "horizon state action"],
    *,
    episodes: int,
    key: PRNGKeyArray,
) -> Episodes:
    """A log of `episodes` episodes of one policy."""
    keys = jax.random.split(key, episodes)
    return jax.vmap(lambda key: play(simulator, policy, key=key))(keys)
