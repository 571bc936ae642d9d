"""Act in an environment of your own: anything that follows Gymnasium's interface."""

import gymnasium
import numpy as np

import headwater as hw
from headwater.environments.adapters.gymnasium_objects import from_gymnasium


class Thermostat(gymnasium.Env):
    """Hold a room at 21 °C with as little heating as possible."""

    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(-40.0, 60.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(0.0, 4.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.room = self.np_random.uniform(12, 18)
        self.outside = self.np_random.uniform(-5, 10)
        return self._seen(), {}

    def step(self, action):
        power = float(action[0])
        reward = -abs(self.room - 21.0) - 0.2 * power
        self.room += 0.5 * power - 0.05 * (self.room - self.outside)
        return self._seen(), reward, False, False, {}

    def _seen(self):
        return np.array([self.room, self.outside], np.float32)


def make() -> gymnasium.Env:
    """One thermostat with a time limit, without which an episode would never end."""
    return gymnasium.wrappers.TimeLimit(Thermostat(), 30)


def main(steps: int = 4_000) -> None:
    """Learns online with SAC, two seeds side by side."""
    task = from_gymnasium(make, "thermostat")
    method = hw.SAC(
        hidden_sizes=(64, 64),
        actor_learning_rate=1e-3,
        critic_learning_rate=1e-3,
        temperature_learning_rate=1e-3,
    )
    run = hw.train(method, env=task, seeds=2, steps=steps, evaluations=4, episodes=5)
    print("before and after:", run.curve[1][:, [0, -1]].round(1).tolist())
    print("heating at 15 °C:", run.policy([15.0, 0.0]), "kW; at 25 °C:", run.policy([25.0, 0.0]))


if __name__ == "__main__":
    main()
