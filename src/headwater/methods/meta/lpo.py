"""Learned policy optimisation: what a policy pays for drifting, found by evolution."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, positive, share
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.method import AbstractMethod, AbstractTablePolicy, AbstractUpdateRule, Info
from headwater.networks.meta.drift import Drift
from headwater.networks.meta.update_rule import clock_of
from headwater.parts.clipped_policy import generalised_advantage
from headwater.parts.meta.agents import bounded, play, taken, visited
from headwater.parts.meta.evolution import Evolving, begin_evolution, evolve, policies_of_lifetime


class ClippingAgent(eqx.Module):
    """Logits of a policy, and the values of states, for each step and state."""

    policy: Float[Array, "horizon state action"]
    value: Float[Array, "horizon state"]


class LPO(
    AbstractMethod[FiniteProblem, FiniteProcess, Evolving],
    AbstractTablePolicy[Evolving],
    AbstractUpdateRule[Evolving],
):
    r"""Learns, by evolution strategies, what takes the place of PPO's clipping.

    An agent maximises $E[rA - f(r, A)]$ for some steps, with the ratio $r = \pi/\pi_{old}$ and
    standardised advantages $A$. The drift $f$ is a network that is zero and flat at $r = 1$, so
    that whatever is learned improves policies; it is learned as `TALPG` learns its rule. With
    `lifetime_scale` 1 it is temporally aware (TA-LPO): it sees its inputs times $t/T$ as well, at
    update $t$ of $T$.

    **Arguments:**

    - `lifetime_scale`: of $t/T$ where the drift sees it; 0 hides it.
    - `shortest_lifetime`, `longest_lifetime`: of an agent, in updates; $\log T$ is uniform.
    - `episodes_per_update`: episodes that an agent plays for one update.
    - `num_epochs`: steps that it takes with them.
    - `drift_size`: units of each of the two hidden layers of the drift.
    - `gae_lambda`: λ of the advantages.
    - `agent_learning_rate`, `value_learning_rate`: of the agent's policy and values.
    - `max_gradient_norm`: of the agent's policy.
    - `perturbation_scale`: $\sigma$.
    - `learning_rate`: of Adam, for the drift.
    - `learning_rate_decay`: what it is multiplied by after each update.

    **Reference:** Lu, Kuba, Letcher, Metz, Schroeder de Witt, Foerster (2022), arXiv:2210.05639;
    temporally aware, Jackson et al. (2024), arXiv:2402.05828.

    **Differences from the paper:** agents have tables over the steps and states of finite
    processes, no discount and plain gradient steps; only the order of each pair of returns counts.
    """

    feed: ClassVar[Feed] = Feed.TASKS
    info: ClassVar[Info] = Info(
        "lu2022discovered",
        summary="evolves what a policy pays for drifting from what it was, in place of clipping",
    )

    lifetime_scale: float = non_negative(0.0)
    shortest_lifetime: int = integer(10, static=False)
    longest_lifetime: int = integer(250, static=False)
    episodes_per_update: int = integer(64)
    num_epochs: int = integer(4)
    drift_size: int = integer(128)
    gae_lambda: float = share(0.95)
    agent_learning_rate: float = non_negative(1.0)
    value_learning_rate: float = share(0.3)
    max_gradient_norm: float = positive(0.5)
    perturbation_scale: float = positive(0.03)
    learning_rate: float = non_negative(0.01)
    learning_rate_decay: float = share(0.999)

    def init(self, problem: FiniteProblem, *, key: PRNGKeyArray) -> Evolving:
        drift = Drift(self.drift_size, key=key)
        return begin_evolution(self, problem, drift, "LPO")

    def update(self, state: Evolving, data: FiniteProcess, *, key: PRNGKeyArray):
        agent = _first_agent(data)
        return evolve(self, state, data, agent, self._step, lambda agent: agent.policy, key=key)

    def policy(self, state: Evolving, *, explore: bool) -> Array:
        return state.policies

    def apply_rule(
        self, state: Evolving, process: FiniteProcess, lifetime: int, *, key: PRNGKeyArray
    ) -> Float[Array, "update horizon state action"]:
        return policies_of_lifetime(
            self._step,
            state.rule,
            _first_agent(process),
            process,
            lifetime,
            lambda agent: agent.policy,
            key=key,
        )

    def _step(
        self,
        drift: Drift,
        agent: ClippingAgent,
        process: FiniteProcess,
        passed: Array,
        lifetime: Array,
        key: PRNGKeyArray,
    ) -> ClippingAgent:
        episodes = play(process, jax.nn.softmax(agent.policy), self.episodes_per_update, key=key)
        before = taken(jax.nn.log_softmax(agent.policy), episodes)
        value = visited(agent.value[..., None], episodes)[..., 0]
        whole = jnp.ones_like(value, bool)
        advantage = generalised_advantage(
            jnp.asarray(episodes.reward), value, whole, 1.0, self.gae_lambda
        )
        centred = advantage - jnp.mean(advantage)
        standard = centred / (jnp.sqrt(jnp.mean(centred**2)) + 1e-8)
        share_passed = self.lifetime_scale * clock_of(jnp.asarray(passed), lifetime)[0]

        def gain(policy: Array) -> Float[Array, ""]:
            ratio = jnp.exp(taken(jax.nn.log_softmax(policy), episodes) - before)
            return jnp.mean(ratio * standard - drift(ratio, standard, share_passed))

        def epoch(policy, _):
            gradient = bounded(jax.grad(gain)(policy), self.max_gradient_norm)
            return policy + self.agent_learning_rate * gradient, None

        policy, _ = jax.lax.scan(epoch, agent.policy, length=self.num_epochs)
        steps = jnp.broadcast_to(jnp.arange(process.horizon), value.shape)
        places = (steps, jnp.asarray(episodes.state)[:, :-1])
        count = jnp.zeros_like(agent.value).at[places].add(1.0)
        sums = jnp.zeros_like(agent.value).at[places].add(advantage)
        change = self.value_learning_rate * sums / jnp.maximum(count, 1.0)
        return ClippingAgent(policy, agent.value + change)


def _first_agent(process: FiniteProcess) -> ClippingAgent:
    sizes = (process.horizon, process.states, process.actions)
    return ClippingAgent(jnp.zeros(sizes), jnp.zeros(sizes[:-1]))
