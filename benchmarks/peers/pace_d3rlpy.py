"""Updates per second of d3rlpy's `fit`, which writes nothing here."""

import d3rlpy
import numpy as np
import pace
import torch
from columns import read
from d3rlpy.algos import CQLConfig, IQLConfig, SACConfig, TD3PlusBCConfig
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.preprocessing import StandardObservationScaler

options = pace.arguments()
torch.set_num_threads(options.threads)
data = read(options.data)
dataset = d3rlpy.dataset.MDPDataset(
    observations=data.observations,
    actions=data.actions,
    rewards=data.rewards,
    terminals=data.terminals.astype(np.float32),
    timeouts=data.truncations.astype(np.float32),
    action_space=d3rlpy.ActionSpace.CONTINUOUS,
)
layers = VectorEncoderFactory(list(options.widths))
networks = {"actor_encoder_factory": layers, "critic_encoder_factory": layers}
common = {"batch_size": options.batch_size, **networks}
scaled = {**common, "observation_scaler": StandardObservationScaler()}
configuration = {
    "iql": lambda: IQLConfig(value_encoder_factory=layers, **scaled),
    "td3_bc": lambda: TD3PlusBCConfig(**scaled),
    "sac_n": lambda: SACConfig(n_critics=10, **common),
    "sac": lambda: SACConfig(**common),
    # Without the learned weight, which the other libraries leave out by default.
    "cql": lambda: CQLConfig(alpha_learning_rate=0.0, **scaled),
}[options.method]()
learner = configuration.create(device="cpu:0")


def advance(updates: int) -> None:
    """One epoch of `fit`."""
    learner.fit(
        dataset,
        n_steps=updates,
        n_steps_per_epoch=updates,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        show_progress=False,
    )


pace.hand_back(
    pace.measure(advance, options.seconds),
    {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__},
)
