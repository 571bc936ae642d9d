"""Episodes per second of rlberry's UCBVI, as one JSON line. Runs with the Python that has it.

Its planner is a loop in Python in version 0.7.3; `compiled` has numba compile it.
"""

import json
import logging
import sys
import time
from importlib import metadata

import numba
import numpy as np
import rlberry_scool.agents.ucbvi.ucbvi as module
from rlberry.envs.finite_mdp import FiniteMDP
from rlberry_scool.agents.ucbvi import UCBVIAgent

states, actions, horizon, seconds = (int(float(given)) for given in sys.argv[1:5])
if sys.argv[5] == "compiled":
    module.backward_induction_sd = numba.njit(module.backward_induction_sd)
logging.disable(logging.CRITICAL)
generator = np.random.default_rng(0)
transition = generator.dirichlet(np.ones(states), (states, actions))
reward = generator.random((states, actions))


class Process(FiniteMDP):
    """A random process with rewards of zero or one."""

    name = "random"

    def __init__(self):
        FiniteMDP.__init__(self, reward, transition, 0)

    def reward_fn(self, state, action, next_state):
        return float(generator.random() < reward[state, action])


agent = UCBVIAgent(
    Process(), horizon=horizon, gamma=1.0, bonus_scale_factor=0.01, stage_dependent=True
)
# What happens once (compilation) is left out.
agent.fit(20)
played, start = 0, time.perf_counter()
while time.perf_counter() - start < seconds:
    agent.fit(20)
    played += 20
rate = played / (time.perf_counter() - start)
versions = {name: metadata.version(name) for name in ("rlberry", "rlberry-scool", "numpy", "numba")}
print(json.dumps({"episodes_per_second": rate, "versions": versions}))
