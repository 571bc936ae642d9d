import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.attacked import Attacked, Bias, ValueAttack
from headwater.environments.check import check_environment
from headwater.environments.control.pendulum import Pendulum
from headwater.methods.bandits.exp3 import EXP3
from headwater.methods.control.robust.protected import PROTECTED


def test_only_what_is_seen_moves():
    task, key = Pendulum(), jax.random.key(0)
    attacked = Attacked(task, Bias(jnp.asarray([1.0, -1.0, 5.0])), 0.1)
    # Halves of the ranges of cosine, sine and velocity; no direction is longer than 1.
    shift = np.asarray([0.1, -0.1, 0.8])
    state, observation = task.reset(key=key)
    other, shown = attacked.reset(key=key)
    np.testing.assert_allclose(shown, observation + shift, rtol=1e-6)
    for _ in range(3):
        action = jnp.asarray([0.5])
        state, step = task.step(state, action, key=key)
        other, seen = attacked.step(other, action, key=key)
        np.testing.assert_allclose(seen.observation, step.observation + shift, rtol=1e-6)
        np.testing.assert_array_equal(seen.reward, step.reward)
        np.testing.assert_array_equal(other.angle, state.angle)


def test_an_attack_on_values_goes_where_the_action_is_worth_less():
    task = Pendulum()
    method = PROTECTED(num_phases=1, hidden_sizes=(16,))
    state = method.init(task.spaces, key=jax.random.key(1))
    attack = ValueAttack(method, state)

    def worth(shown, observation):
        action = method.act(state, shown, key=jax.random.key(0), explore=False)[0]
        return method.value(state, observation, action)

    clear = 0
    for i in range(5):
        observation = task.reset(key=jax.random.key(i))[1]
        direction = np.asarray(attack(observation))
        for component in range(3):
            tiny = 1e-2 * np.eye(3, dtype=np.float32)[component]
            sides = [worth(observation + s * tiny, observation) for s in (1.0, -1.0)]
            slope = float(sides[0] - sides[1])
            # Where it is all but flat, rounding decides.
            if abs(slope) >= 1e-5:
                assert direction[component] == -np.sign(slope)
                clear += 1
    assert clear > 10


def test_the_contract_and_refusals():
    check_environment(Attacked(Pendulum(), Bias(jnp.ones(3)), 0.0))
    with pytest.raises(SpecificationError, match="radius = -1: an attack moves by 0 or more"):
        Attacked(Pendulum(), Bias(jnp.ones(3)), -1.0)
    with pytest.raises(SpecificationError, match="EXP3 has no policy with values"):
        ValueAttack(EXP3(), None)
