import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.adapters.gymnasium_objects import from_gymnasium
from headwater.environments.check import check_environment
from headwater.environments.environment import AbstractEnvironment, Step
from headwater.environments.registry import environment_names, make


@pytest.mark.parametrize("name", environment_names())
def test_every_pure_environment_keeps_its_promises(name):
    check_environment(make(name))


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "FrozenLake-v1"])
def test_gymnasium_tasks_keep_their_promises(name):
    check_environment(make(name))


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Hopper-v5"])
def test_mujoco_tasks_keep_their_promises(name):
    check_environment(make(name, max_episode_steps=60))


class Faulty(AbstractEnvironment):
    """Counts to five; each fault breaks one promise."""

    name = "faulty"
    reference_returns = (0.0, 1.0)
    fault: str = eqx.field(static=True)

    @property
    def spaces(self):
        return Spaces(Box((0.0,), (9.0,)), Discrete(2), horizon=5)

    def reset(self, *, key):
        return jnp.zeros(()), jnp.zeros(1)

    def step(self, state, action, *, key):
        state = state + 1.0
        shown = {"bounds": 10.0 * state, "finite": state / 0.0}.get(self.fault, state)
        limit = {"late": 7, "early": 3}.get(self.fault, 5)
        truncated = state >= limit
        terminal = truncated if self.fault == "both" else jnp.zeros((), bool)
        return state, Step(shown[None], jnp.zeros(()), terminal, truncated)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("bounds", "observations outside of their bounds"),
        ("finite", "observations that are not finite"),
        ("late", "does not end after 5 steps"),
        ("early", "is truncated after 3 steps"),
        ("both", "both terminal and truncated"),
    ],
)
def test_faults_of_pure_environments_are_found(fault, message):
    check_environment(Faulty("none"))
    with pytest.raises(SpecificationError, match=f"faulty: .*{message}"):
        check_environment(Faulty(fault))


class _Unseeded(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    stream = np.random.default_rng(0)

    def reset(self, *, seed=None, options=None):
        return self.stream.random(1, np.float32), {}

    def step(self, action):
        return self.stream.random(1, np.float32), 0.0, False, False, {}


def test_a_simulator_that_ignores_its_seed_is_found():
    with pytest.raises(SpecificationError, match="unseeded: a seed does not fix the start"):
        check_environment(from_gymnasium(_Unseeded, "unseeded"))


def test_keys_decide_where_pure_episodes_start():
    # Corridors all begin in the middle, aliased grids at one of two ends, and pipes are empty: what
    # they are for.
    for name in set(environment_names()) - {"corridors", "aliased-grid", "pan-flute"}:
        task = make(name)
        keys = jax.random.split(jax.random.key(0), 4)
        starts = jax.vmap(lambda key, task: task.reset(key=key)[1], (0, None))(keys, task)
        assert len(np.unique(np.asarray(starts), axis=0)) == 4
