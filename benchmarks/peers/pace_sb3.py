"""Updates per second of Stable-Baselines3's SAC on a full buffer, or of SBX's."""

import importlib.metadata

import gymnasium
import numpy as np
import pace
from columns import read

options = pace.arguments()
if options.library == "sbx":
    import jax
    from sbx import SAC

    versions = {"sbx": importlib.metadata.version("sbx-rl"), "jax": jax.__version__}
else:
    import torch
    from stable_baselines3 import SAC

    torch.set_num_threads(options.threads)
    versions = {"sb3": importlib.metadata.version("stable-baselines3"), "torch": torch.__version__}
layers = {"net_arch": list(options.widths)}
data = read(options.data)


class Spaces(gymnasium.Env):
    """An environment that is never stepped: the buffer is filled from the data."""

    def __init__(self):
        size = data.observations.shape[1]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (data.actions.shape[1],), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(self.observation_space.shape, np.float32), {}


rows = len(data.rewards)
model = SAC(
    "MlpPolicy", Spaces(), batch_size=options.batch_size, buffer_size=rows, policy_kwargs=layers
)
model._setup_learn(total_timesteps=1_000_000)
buffer = model.replay_buffer
assert buffer is not None
buffer.observations[:, 0] = data.observations
buffer.next_observations[:, 0] = data.next_observations
buffer.actions[:, 0] = data.actions
buffer.rewards[:, 0] = data.rewards
buffer.dones[:, 0] = data.terminals
buffer.full = True


# SBX compiles one program for each number of updates in a call, so calls have one length.
_PIECE = 10 if options.library == "sbx" else 1


def advance(updates: int) -> None:
    """Its own sampling and update."""
    if options.library == "sbx":
        for _ in range(updates // _PIECE):
            model.train(batch_size=options.batch_size, gradient_steps=_PIECE)
        jax.block_until_ready(model.policy.actor_state.params)
    else:
        model.train(batch_size=options.batch_size, gradient_steps=updates)


pace.hand_back(pace.measure(advance, options.seconds, _PIECE), versions)
