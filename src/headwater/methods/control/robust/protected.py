"""PROTECTED: a few policies, none of which another one replaces under every attack."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.feed import Feed
from headwater.core.fields import integer, non_negative, share, sizes
from headwater.core.method import AbstractMethod, AbstractPolicy, AbstractValue, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.networks.mlp import MLP
from headwater.ops.control.gradient_steps import begin, descend
from headwater.ops.control.noise import normal
from headwater.parts.deterministic_actor_critic import DeterministicActorCritic
from headwater.parts.robust.attacked import (
    Attack,
    begin_attackers,
    begin_member,
    evaluate_under,
    improve_under,
    part_of,
    value_under,
    with_part,
)


class PolicySet(eqx.Module):
    """The policies, and the attack of each phase.

    **Arguments:** `members`, `attackers`, `moments`: stacked, one for each phase; `values`: of each
    policy under the attack of now, a running mean; `chosen`: the policy that acts greedily.
    """

    members: DeterministicActorCritic
    attackers: MLP
    moments: optax.OptState
    half_ranges: Float[Array, " observation"]
    values: Float[Array, " policy"]
    chosen: Int[Array, ""]
    step: Int[Array, ""]


class PROTECTED(
    AbstractMethod[Spaces, Transitions, PolicySet],
    AbstractPolicy[PolicySet],
    AbstractValue[PolicySet],
):
    r"""Discovers policies one after the other, each for attacks under which others are better.

    In phase 0 a policy is learned without attacks. In each later phase $j$ a copy of the last one
    and a new attack $\nu$, which moves what is observed, learn in turn: $\nu$ climbs
    $\max_{k<j} J(\pi_k,\nu) - J(\pi_j,\nu)$, and $\pi_j$ climbs $J(\pi_j,\nu)$, so that it becomes
    good where an earlier one is better. Which of them acts is to be chosen from episode to episode
    by a bandit with the policies as arms, such as `EXP3`: see `choosing`. Continuous actions only.

    **Arguments:**

    - `num_phases`: phases, and policies that there are in the end.
    - `updates_per_phase`: updates of a phase; the last one goes on for ever.
    - `attack_radius`: by how much an observation moves at most, in halves of its range if bounded.
    - `gap_weight`: of the earlier policy in what an attack climbs; 0 is the worst case alone.
    - `updates_per_turn`: in which the policy learns, then the attack, and so on.
    - `discount`: weight of the next step's value.
    - `target_policy_noise`, `target_noise_clip`: deviation and bound of noise on target actions.
    - `exploration_noise`: deviation of the noise when acting to explore.
    - `learning_rate`: of Adam, for actors and critics.
    - `attack_learning_rate`: of Adam, for attacks; with 0 these stay random networks.
    - `polyak_rate`: Polyak rate of the targets.
    - `hidden_sizes`: hidden layers of every network.

    **Reference:** Liu, Deng, Sun, Liang, Huang (2024), arXiv:2402.12673.

    **Differences from the paper:** deterministic actors with critics of the true observation learn
    off-policy from what all policies did, in place of PPO; so the best earlier policy is that with
    the highest learned value. Nothing has memory or plans, and no policy is made smooth.
    """

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info(
        "liu2024beyond",
        summary="discovers a few policies for attacks on observations, to be chosen among online",
        parents=("TD3",),
    )

    num_phases: int = integer(4)
    updates_per_phase: int = integer(20_000, static=False)
    attack_radius: float = non_negative(0.15)
    gap_weight: float = non_negative(1.0)
    updates_per_turn: int = integer(200, static=False)
    discount: float = share(0.99)
    target_policy_noise: float = non_negative(0.2)
    target_noise_clip: float = non_negative(0.5)
    exploration_noise: float = non_negative(0.1)
    learning_rate: float = non_negative(1e-3)
    attack_learning_rate: float = non_negative(1e-3)
    polyak_rate: float = share(0.005)
    hidden_sizes: tuple[int, ...] = sizes((256, 256))

    def init(self, problem: Spaces, *, key: PRNGKeyArray) -> PolicySet:
        problem.require_continuous("PROTECTED")
        member_key, attack_key = jax.random.split(key)
        attackers = begin_attackers(self, problem, self.num_phases, key=attack_key)
        member = begin_member(self, problem, key=member_key)
        return PolicySet(
            # Each is replaced by a copy of the last one when its phase begins.
            members=jax.tree.map(lambda x: jnp.repeat(x[None], self.num_phases, axis=0), member),
            attackers=attackers,
            moments=jax.vmap(lambda network: begin(optax.adam(0.0), network))(attackers),
            half_ranges=jnp.asarray(problem.observation.half_ranges, jnp.float32),
            values=jnp.zeros(self.num_phases),
            chosen=jnp.zeros((), jnp.int32),
            step=jnp.zeros((), jnp.int32),
        )

    def update(self, state: PolicySet, data: Transitions, *, key: PRNGKeyArray):
        phase, seen = self._phase(state), data.observation
        state, attack = self._begun(state, phase), self._attack(state)
        # Earlier ones take turns: what they are worth under the attack changes slowly.
        earlier = jnp.where(phase > 0, state.step % jnp.maximum(phase, 1), phase)
        evaluate = lambda member, key: evaluate_under(self, member, attack, data, key=key)
        both = part_of(state.members, jnp.stack([earlier, phase]))
        pair, losses = jax.vmap(evaluate)(both, jax.random.split(key))
        old, now = (part_of(pair, i) for i in (0, 1))
        best = part_of(state.members, self._best_earlier(state, phase))
        network, moments = attack.network, part_of(state.moments, phase)

        def attack_loss(network: MLP) -> Float[Array, ""]:
            tried = dataclasses.replace(attack, network=network)
            return value_under(now, tried, seen) - self.gap_weight * value_under(best, tried, seen)

        def attack_learns():
            optimiser = optax.adam(self.attack_learning_rate)
            loss, slopes = jax.value_and_grad(attack_loss)(network)
            return now, *descend(optimiser, slopes, moments, network), loss

        def policy_learns():
            return improve_under(self, now, attack, seen), network, moments, attack_loss(network)

        now, network, moments, loss = jax.lax.cond(
            self._attack_is_due(state), attack_learns, policy_learns
        )
        change = value_under(old, attack, seen) - state.values[earlier]
        state = dataclasses.replace(
            state,
            # The present one last: in phase 0 there is no other.
            members=with_part(with_part(state.members, earlier, old), phase, now),
            attackers=with_part(state.attackers, phase, network),
            moments=with_part(state.moments, phase, moments),
            values=state.values.at[earlier].add(0.1 * change),
            chosen=phase,
            step=state.step + 1,
        )
        return state, {**{name: loss[1] for name, loss in losses.items()}, "attack_loss": loss}

    def act(self, state: PolicySet, observation: Array, *, key: PRNGKeyArray, explore: bool):
        if not explore:
            return part_of(state.members, state.chosen).actor(observation), ()
        phase = self._phase(state)
        others = self._attack_is_due(state) & (self.gap_weight > 0.0)
        who = jnp.where(others, self._best_earlier(state, phase), phase)
        action = part_of(state.members, who).actor(self._attack(state)(observation))
        return jnp.clip(action + self.exploration_noise * normal(key, action.shape), -1.0, 1.0), ()

    def value(self, state: PolicySet, observation: Array, action: Array) -> Array:
        return jnp.min(part_of(state.members, state.chosen).critics(observation, action), axis=0)

    def choosing(self, state: PolicySet, policy: int | Int[Array, ""]) -> PolicySet:
        """`state`, of which the policy with this number acts when it does not explore."""
        return dataclasses.replace(state, chosen=jnp.asarray(policy, jnp.int32))

    def _phase(self, state: PolicySet) -> Int[Array, ""]:
        return jnp.minimum(state.step // self.updates_per_phase, self.num_phases - 1)

    def _attack_is_due(self, state: PolicySet) -> Bool[Array, ""]:
        passed = state.step - self._phase(state) * self.updates_per_phase
        return (state.step > passed) & ((passed // self.updates_per_turn) % 2 == 1)

    def _attack(self, state: PolicySet) -> Attack:
        """The attack of this phase, which in phase 0 moves nothing."""
        phase = self._phase(state)
        reach = jnp.where(phase > 0, self.attack_radius, 0.0) * state.half_ranges
        return Attack(part_of(state.attackers, phase), reach)

    def _best_earlier(self, state: PolicySet, phase: Int[Array, ""]) -> Int[Array, ""]:
        there = jnp.arange(self.num_phases) < phase
        return jnp.argmax(jnp.where(there, state.values, -jnp.inf))

    def _begun(self, state: PolicySet, phase: Int[Array, ""]) -> PolicySet:
        """In the first update of a later phase, with a copy of the last policy as the new one."""
        begins = (phase > 0) & (state.step == phase * self.updates_per_phase)
        last, old = jnp.where(begins, phase - 1, phase), (state.members, state.values)
        members, values = with_part(old, phase, part_of(old, last))
        return dataclasses.replace(state, members=members, values=values)
