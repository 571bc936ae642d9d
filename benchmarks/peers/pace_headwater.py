"""Updates per second of Headwater's loop, with replay from memory."""

import importlib.metadata

import jax
import jax.numpy as jnp
import pace

from headwater.datasets.read import load
from headwater.methods.control.offline.cql import CQL
from headwater.methods.control.offline.iql import IQL
from headwater.methods.control.offline.sac_n import SACN
from headwater.methods.control.offline.td3_bc import TD3BC
from headwater.methods.control.online.sac import SAC
from headwater.ops.products import multiplying
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.replay import Replay

options = pace.arguments()
precision = options.library.partition("_")[2] or "default"
dataset = load(options.data)
source = Replay(jax.tree.map(jnp.asarray, dataset.transitions()), options.batch_size)
method = {
    "iql": IQL(hidden_sizes=options.widths),
    "td3_bc": TD3BC(hidden_sizes=options.widths),
    "sac_n": SACN(hidden_sizes=options.widths, num_critics=10),
    "cql": CQL(hidden_sizes=options.widths),
    "sac": SAC(hidden_sizes=options.widths),
}[options.method]


def advance(updates: int) -> None:
    """A run of its own, from the first state to the last."""
    with multiplying(precision):
        run([Stage("offline", method, source, updates)], dataset.spaces, logs=10, progress=False)


pace.hand_back(
    pace.measure(advance, options.seconds),
    {
        "headwater": importlib.metadata.version("headwater"),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    },
)
