"""Updates per second of TorchRL: its losses, buffer and target updates, as in its examples."""

import importlib.metadata

import pace
import torch
from columns import read
from tensordict import TensorDict
from tensordict.nn import InteractionType, TensorDictModule
from torch import nn
from torchrl.data import Bounded, LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers.samplers import RandomSampler
from torchrl.modules import MLP, NormalParamExtractor, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import IQLLoss, SACLoss, SoftUpdate, TD3BCLoss

options = pace.arguments()
torch.set_num_threads(options.threads)
data = read(options.data)
rows, size = data.observations.shape
actions = data.actions.shape[1]
deviation = data.observations.std(0) + 1e-3
mean = data.observations.mean(0)


def column(array) -> torch.Tensor:
    return torch.as_tensor(array, dtype=torch.float32).reshape(rows, -1)


buffer = TensorDictReplayBuffer(
    storage=LazyTensorStorage(rows),
    sampler=RandomSampler(),
    batch_size=options.batch_size,
)
ends = torch.as_tensor(data.terminals).reshape(rows, 1)
buffer.extend(
    TensorDict(
        {
            "observation": column((data.observations - mean) / deviation),
            "action": column(data.actions),
            "next": {
                "observation": column((data.next_observations - mean) / deviation),
                "reward": column(data.rewards),
                "done": ends,
                "terminated": ends,
            },
        },
        batch_size=[rows],
    )
)


def layers(inputs: int, outputs: int) -> nn.Module:
    return MLP(
        in_features=inputs,
        out_features=outputs,
        num_cells=list(options.widths),
        activation_class=nn.ReLU,
    )


def critic() -> ValueOperator:
    return ValueOperator(layers(size + actions, 1), in_keys=["action", "observation"])


bounds = Bounded(low=-torch.ones(actions), high=torch.ones(actions))
if options.method == "td3_bc":
    actor = TensorDictModule(
        nn.Sequential(layers(size, actions), nn.Tanh()), ["observation"], ["action"]
    )
    loss = TD3BCLoss(actor, critic(), action_spec=bounds)
else:
    body = nn.Sequential(layers(size, 2 * actions), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(body, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=bounds,
        distribution_class=TanhNormal,
        default_interaction_type=InteractionType.RANDOM,
        return_log_prob=True,
    )
    if options.method == "iql":
        value = ValueOperator(layers(size, 1), in_keys=["observation"])
        loss = IQLLoss(actor, critic(), value_network=value, expectile=0.7, temperature=3.0)
    else:
        members = {"sac": 2, "sac_n": 10}[options.method]
        loss = SACLoss(actor, critic(), num_qvalue_nets=members, action_spec=bounds)
loss.make_value_estimator(gamma=0.99)
targets = SoftUpdate(loss, eps=0.995)
done = 0


def optimiser(name: str) -> torch.optim.Optimizer:
    return torch.optim.Adam(getattr(loss, f"{name}_params").flatten_keys().values(), lr=3e-4)


if options.method == "td3_bc":
    actor_optimiser = optimiser("actor_network")
    critic_optimiser = optimiser("qvalue_network")
else:
    every = torch.optim.Adam(loss.parameters(), lr=3e-4)


def update() -> None:
    """One update; the actor of TD3+BC is updated every second time."""
    global done
    batch = buffer.sample()
    done += 1
    if options.method == "td3_bc":
        value_loss, _ = loss.qvalue_loss(batch)
        critic_optimiser.zero_grad()
        value_loss.backward()
        critic_optimiser.step()
        if done % 2 == 0:
            actor_loss, _ = loss.actor_loss(batch)
            actor_optimiser.zero_grad()
            actor_loss.backward()
            actor_optimiser.step()
            targets.step()
        return
    losses = loss(batch)
    total = sum(value for name, value in losses.items() if name.startswith("loss_"))
    every.zero_grad()
    total.backward()
    every.step()
    targets.step()


def advance(updates: int) -> None:
    """Its loop, eagerly."""
    for _ in range(updates):
        update()


pace.hand_back(
    pace.measure(advance, options.seconds),
    {"torchrl": importlib.metadata.version("torchrl"), "torch": torch.__version__},
)
