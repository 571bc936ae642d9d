"""PROTECTED against known answers, and its attacks against slopes taken in NumPy."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.control.robust.protected import PROTECTED

from ..numpy_twin import Perceptron, batch, leaves, member, problem, update
from ..small_problems import PROBE, bandit, best_action

FIELDS = {"hidden_sizes": (8, 8), "num_phases": 3, "updates_per_phase": 1, "updates_per_turn": 1}
"""Phase 0 for one update, phase 1 for one, and then phase 2: its second update is the attack's."""


def after(method, updates):
    """The state after `updates`, and the key of the next one."""
    state = eqx.filter_jit(method.init)(problem(False), key=jax.random.key(1))
    for i in range(updates):
        state, _ = update(method, state, batch(i, False), key=jax.random.key(i))
    return state


@pytest.mark.oracle
def test_a_policy_undoes_the_attack_under_which_it_learns(key):
    """One step each: best is an action that follows what is there, whatever is shown."""
    method = PROTECTED(
        num_phases=2,
        updates_per_phase=1500,
        attack_learning_rate=0.0,
        attack_radius=3.0,
        learning_rate=3e-3,
        hidden_sizes=(32, 32),
    )
    spaces, data = bandit(key)

    @jax.jit
    def learn(state):
        step = lambda state, key: method.update(state, data, key=key)
        return jax.lax.scan(step, state, jax.random.split(key, 3000))[0]

    state = learn(method.init(spaces, key=key))
    network = jax.tree.map(lambda leaf: leaf[1], state.attackers)
    shown = PROBE + 3.0 * np.tanh(network(PROBE))
    wanted = best_action(PROBE)
    act = jax.vmap(lambda s, o: method.act(s, o, key=key, explore=False)[0], in_axes=(None, 0))
    np.testing.assert_allclose(act(method.choosing(state, 0), PROBE), wanted, atol=0.08)
    assert int(state.chosen) == 1
    # Two observations that are shown as one cannot be told apart.
    apart = np.abs(shown - shown.T) + np.eye(len(PROBE)) > 0.1
    clear = apart.all(axis=1)
    assert clear.sum() >= 5
    np.testing.assert_allclose(act(state, shown)[clear], wanted[clear], atol=0.08)
    fooled = np.abs(np.asarray(act(method.choosing(state, 0), shown)) - wanted)
    assert fooled[clear].max() > 0.15


@pytest.mark.parity
@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_an_attack_climbs_what_it_seeks(weight):
    # Fast, so that the two policies have become different ones.
    method = PROTECTED(gap_weight=weight, attack_radius=0.2, learning_rate=0.03, **FIELDS)
    state, data = after(method, 3), batch(3, False)
    # The second policy is the best so far, since the first one is made to look bad.
    state = dataclasses.replace(state, values=jnp.asarray([-5.0, -1.0, 0.0]))
    found, metrics = update(method, state, data, key=jax.random.key(3))
    seen = np.asarray(data.observation, np.float64)
    attacker = Perceptron(member(state.attackers, 2))

    def value(stacked, which):
        actor = Perceptron(member(stacked.actor, which))
        critic = Perceptron([leaf[which, 0] for leaf in leaves(stacked.critics)])
        shown = seen + 0.2 * 9.0 * np.tanh(attacker.forward(seen))
        action = np.tanh(actor.forward(shown))
        return critic.forward(np.hstack([seen, action])).mean()

    def loss():
        # Its own critics have learned from this batch before; those of the other one have not.
        return value(found.members, 2) - weight * value(state.members, 1)

    np.testing.assert_allclose(metrics["attack_loss"], loss(), rtol=1e-4, atol=1e-5)
    moved = [b - a for a, b in zip(member(state.attackers, 2), member(found.attackers, 2))]
    checked = 0
    for parameter, change in zip(attacker.parameters, moved):
        for place in np.ndindex(parameter.shape):
            before = parameter[place]
            sides = []
            for step in (1e-6, -1e-6):
                parameter[place] = before + step
                sides.append(loss())
            parameter[place] = before
            slope = (sides[0] - sides[1]) / 2e-6
            if abs(slope) > 1e-5:
                # The first step of Adam has the length of the learning rate.
                np.testing.assert_allclose(change[place], -1e-3 * np.sign(slope), rtol=0.02)
                checked += 1
    assert checked > 50
    # It is the attack's turn: no policy changes.
    for a, b in zip(leaves(state.members.actor), leaves(found.members.actor)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.oracle
def test_phases_add_copies_and_leave_earlier_policies_alone():
    method = PROTECTED(**{**FIELDS, "updates_per_phase": 2})
    states = [after(method, updates) for updates in range(6)]
    actors = [leaves(state.members.actor) for state in states]
    for phase, begin in ((1, 2), (2, 4)):
        learned, new, first = actors[begin], actors[begin + 1], actors[0]
        for before, now, at_first in zip(learned, new, first):
            np.testing.assert_array_equal(before[phase], at_first[phase])
            np.testing.assert_array_equal(now[:phase], before[:phase])
            # One step of Adam away from the copy, which it was just before.
            away = np.abs(now[phase] - before[phase - 1])
            assert 0.0 < away.max() < 1.1e-3
    assert [int(state.chosen) for state in states] == [0, 0, 0, 1, 1, 2]
