"""Updates per second of JAX-CORL: its jitted calls of eight updates, on its own sampling."""

import jax
import jax.numpy as jnp
import pace
from columns import commit, read
from jax_peers import load

options = pace.arguments()
module = load(options.checkout / "algos" / f"{options.method.replace('_', '')}.py")
data = read(options.data)
columns = {
    "observations": jnp.asarray(data.observations),
    "actions": jnp.asarray(data.actions),
    "rewards": jnp.asarray(data.rewards),
    "next_observations": jnp.asarray(data.next_observations),
    "dones": jnp.asarray(data.terminals, jnp.float32),
    "dones_float": jnp.asarray(data.truncations, jnp.float32),
}
dataset = module.Transition(**{name: columns[name] for name in module.Transition._fields})
configuration = module.config
configuration.batch_size = options.batch_size
configuration.hidden_dims = options.widths
if options.method == "cql":
    configuration.action_dim = data.actions.shape[1]
    configuration.target_entropy = -float(data.actions.shape[1])
name = options.method.replace("_", "")
learner = getattr(module, name.upper())()
begin = getattr(module, f"create_{name}_train_state")
state = begin(jax.random.PRNGKey(0), dataset.observations[0], dataset.actions[0], configuration)
update = jax.jit(learner.update_n_times, static_argnums=(3,))
key = jax.random.PRNGKey(1)


def advance(updates: int) -> None:
    """Its loop, without its tracker."""
    global state, key
    for _ in range(max(1, round(updates / configuration.n_jitted_updates))):
        key, update_key = jax.random.split(key)
        state, _ = update(state, dataset, update_key, configuration)
    jax.block_until_ready(state)


pace.hand_back(
    pace.measure(advance, options.seconds, configuration.n_jitted_updates),
    {"jax_corl": commit(options.checkout), "jax": jax.__version__},
)
