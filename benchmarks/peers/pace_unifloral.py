"""Updates per second of Unifloral: its scan over its own step, on its own sampling."""

from functools import partial

import jax
import jax.numpy as jnp
import pace
from columns import commit, read
from jax_peers import load

_PIECE = 10

options = pace.arguments()
module = load(options.checkout / "algorithms" / f"{options.method}.py")
data = read(options.data)
arguments = module.Args(batch_size=options.batch_size)
expected = (256, 256, 256) if options.method == "sac_n" else (256, 256)
if options.widths != expected:
    raise SystemExit(f"Unifloral fixes the widths {expected} for {options.method}")
dataset = module.Transition(
    obs=jnp.asarray(data.observations),
    action=jnp.asarray(data.actions),
    reward=jnp.asarray(data.rewards),
    next_obs=jnp.asarray(data.next_observations),
    done=jnp.asarray(data.terminals, jnp.float32),
)
observation, action = jnp.zeros(dataset.obs.shape[1]), jnp.zeros(dataset.action.shape[1])
statistics = (dataset.obs.mean(axis=0), dataset.obs.std(axis=0))
first, second, third = jax.random.split(jax.random.PRNGKey(0), 3)
make = partial(module.create_train_state, arguments)

if options.method == "iql":
    actor = module.TanhGaussianActor(action.size, *statistics)
    critic, value = module.DualQNetwork(*statistics), module.StateValueFunction(*statistics)
    state = module.AgentTrainState(
        actor=make(first, actor, [observation]),
        dual_q=make(second, critic, [observation, action]),
        dual_q_target=make(second, critic, [observation, action]),
        value=make(third, value, [observation]),
    )
    functions, updates_per_step = (actor.apply, critic.apply, value.apply), 1
elif options.method == "td3_bc":
    actor = module.DeterministicTanhActor(action.size, *statistics)
    critic = module.DualQNetwork(*statistics)
    state = module.AgentTrainState(
        actor=make(first, actor, [observation]),
        actor_target=make(first, actor, [observation]),
        dual_q=make(second, critic, [observation, action]),
        dual_q_target=make(second, critic, [observation, action]),
    )
    # Two updates of the critics and one of the actor, on one batch.
    functions = (actor.apply, critic.apply)
    updates_per_step = arguments.num_critic_updates_per_step
else:
    actor, critic = module.TanhGaussianActor(action.size), module.VectorQ(10)
    weight = module.EntropyCoef()
    arguments.num_critics = 10
    state = module.AgentTrainState(
        actor=make(first, actor, [observation]),
        vec_q=make(second, critic, [observation, action]),
        vec_q_target=make(second, critic, [observation, action]),
        alpha=make(third, weight, []),
    )
    functions, updates_per_step = (actor.apply, critic.apply, weight.apply), 1

step = module.make_train_step(arguments, *functions, dataset)
# Compiled once for all calls: in its script the scan, which is long, is traced at each evaluation.
piece = jax.jit(lambda carry: jax.lax.scan(step, carry, None, _PIECE)[0])
carry = (jax.random.PRNGKey(1), state)


def advance(updates: int) -> None:
    """Pieces of a fixed length, so that nothing is compiled again."""
    global carry
    for _ in range(max(1, round(updates / updates_per_step / _PIECE))):
        carry = piece(carry)
    jax.block_until_ready(carry)


pace.hand_back(
    pace.measure(advance, options.seconds, _PIECE * updates_per_step),
    {"unifloral": commit(options.checkout), "jax": jax.__version__},
)
