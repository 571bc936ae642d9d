"""Worlds of bits, walked by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.check import check_environment
from headwater.environments.control.cart_pole import CartPole
from headwater.environments.factored.button_grid import ButtonGrid, ButtonGridState
from headwater.environments.factored.pan_flute import PanFlute
from headwater.environments.factored.recoded import Recoded, random_code


def _keys(chance: float, *, happens: bool):
    """Keys by which what has this probability happens, or does not."""
    keys = jax.random.split(jax.random.key(0), 400)
    hit = np.asarray(jax.vmap(lambda k: jax.random.bernoulli(k, chance))(keys))
    return keys[hit == happens]


def test_a_flute_of_three_pipes():
    task = PanFlute(pipes=3)
    quiet, loud = _keys(1 / 9, happens=False), _keys(1 / 9, happens=True)
    state, seen = task.reset(key=quiet[0])
    assert seen.shape == (6,) and not seen.any()
    step = eqx.filter_jit(task.step)
    expected = [
        (2, [0, 0, 0, 1, 0, 0], 0.0),
        (1, [0, 1, 0, 0, 1, 0], 0.0),
        (0, [1, 0, 1, 0, 0, 1], 0.0),
        # All ends held a bit before this step.
        (0, [1, 0, 0, 0, 0, 0], 1.0),
        (1, [0, 1, 0, 0, 0, 0], 0.0),
    ]
    for key, (action, bits, reward) in zip(quiet, expected):
        state, found = step(state, jnp.asarray(action), key=key)
        assert found.observation.tolist() == bits and float(found.reward) == reward
    state, found = step(state, jnp.asarray(1), key=loud[0])
    assert found.observation.tolist() == [1, 1, 1, 0, 0, 1]
    assert float(step(state, jnp.asarray(0), key=quiet[0])[1].reward) == 1.0


def test_a_grid_with_two_buttons():
    task = ButtonGrid(size=3, buttons=2)
    keys = jax.random.split(jax.random.key(1), 60)
    # Nothing happens by chance with these.
    calm = [k for k in keys if not bool(jax.random.bernoulli(jax.random.split(k)[0], 0.1 / 9.0))]
    off = jnp.zeros(2, bool)
    zero = jnp.zeros((), jnp.int32)
    state = ButtonGridState(zero, jnp.asarray([1, 3], jnp.int32), off, zero)
    step = eqx.filter_jit(task.step)
    # Stay, right onto 1 (on), right, left onto 1 (off), stay, left, right onto 1 (on).
    walk = [(0, 0, 0, 0), (4, 1, 1, 0), (4, 2, 1, 0), (2, 1, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0)]
    walk += [(2, 0, 0, 0), (4, 1, 1, 0), (2, 0, 1, 0), (3, 3, 1, 1)]
    found = None
    for key, (action, cell, one, other) in zip(calm, walk):
        state, found = step(state, jnp.asarray(action), key=key)
        assert int(state.agent) == cell and state.on.tolist() == [bool(one), bool(other)]
        assert float(found.reward) == 0.0
    assert found is not None
    shown = found.observation.reshape(9, 3)
    assert shown.argmax(1).tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert shown.sum(0).tolist() == [1.0, 2.0, 0.0] and shown[3].tolist() == [1.0, 1.0, 0.0]
    read = task.observed(found.observation)
    assert int(read.agent) == 3 and read.buttons.tolist() == [1, 3] and read.on.all()
    state, found = step(state, jnp.asarray(0), key=calm[20])
    assert float(found.reward) == 1.0 and not state.on.any()


# Action 1 puts no bit into a last cell, and action 0 stays: only chance brings a reward.
@pytest.mark.parametrize(
    ("task", "action", "chance"),
    [(PanFlute(pipes=2), 1, 1 / 4), (ButtonGrid(size=2, buttons=1), 0, 1 / 40)],
)
def test_chance_brings_rewards_as_often_as_said(task, action, chance):
    state, _ = task.reset(key=jax.random.key(3))

    def paid(key):
        reached, _ = task.step(state, jnp.asarray(action), key=key)
        return task.step(reached, jnp.asarray(action), key=jax.random.key(0))[1].reward

    found = jax.jit(jax.vmap(paid))(jax.random.split(jax.random.key(2), 4_000))
    assert abs(float(found.mean()) - chance) < 4 * (chance / 4_000) ** 0.5


def test_a_recoded_flute_is_the_same_under_other_names():
    task = PanFlute(pipes=2)
    code = random_code(task, key=jax.random.key(0))
    assert sorted(code.tolist()) == list(range(8))
    coded = Recoded(task, code)
    check_environment(coded)
    one, other = task.reset(key=jax.random.key(1)), coded.reset(key=jax.random.key(1))
    names = {}
    for i in range(40):
        plain, shown = (int(sum(int(b) << j for j, b in enumerate(x[1]))) for x in (one, other))
        assert names.setdefault(plain, shown) == shown == int(code[plain])
        key, action = jax.random.key(i), jnp.asarray(i % 3 % 2)
        state, step = task.step(one[0], action, key=key)
        state_too, step_too = coded.step(other[0], action, key=key)
        assert float(step.reward) == float(step_too.reward)
        one, other = (state, step.observation), (state_too, step_too.observation)
    assert len(set(names.values())) == len(names) > 4


def test_the_contract_and_refusals():
    check_environment(PanFlute())
    check_environment(ButtonGrid(size=3))
    with pytest.raises(SpecificationError, match="pan-flute: pipes = 0 and horizon = 100 must be"):
        PanFlute(pipes=0)
    with pytest.raises(SpecificationError, match="buttons = 5 between 1 and the 4 cells"):
        ButtonGrid(size=2, buttons=5)
    with pytest.raises(SpecificationError, match="it shows 75 bits, and a code for more than 20"):
        random_code(ButtonGrid(), key=jax.random.key(0))
    with pytest.raises(SpecificationError, match="its observations are not bits, each 0 or 1"):
        random_code(CartPole(), key=jax.random.key(0))
    with pytest.raises(SpecificationError, match="a code for 3 bits has 8 entries, not 4"):
        Recoded(PanFlute(pipes=2), jnp.arange(4))
