"""CORL's own training classes, taken from a checkout that the user points at.

CORL's files are scripts: they import an old simulator stack, a configuration parser and a tracker
as they load. Only their networks, trainers and buffers are wanted here, so those packages are
stood in for while a file loads. Every number that CORL chooses comes from its own `TrainConfig`.
"""

import dataclasses
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from columns import Data

FILES = {"iql": "iql.py", "td3_bc": "td3_bc.py", "sac_n": "sac_n.py", "cql": "cql.py"}
"""CORL's file for each method."""

SCALED_OBSERVATIONS = {"iql": True, "td3_bc": True, "sac_n": False, "cql": True}
"""Whether CORL standardises the observations by default."""


@dataclasses.dataclass(frozen=True)
class Trainer:
    """One method of CORL, ready to train.

    **Arguments:** `update`: one gradient update on a batch of CORL's; `sample`: draws a batch of
    the given size from CORL's buffer; `actor`: CORL's policy network; `mean`, `deviation`: with
    which the observations were standardised; `reward_scale`: by which rewards were multiplied.
    """

    update: Callable[[Any], Any]
    sample: Callable[[int], Any]
    actor: Any
    mean: np.ndarray
    deviation: np.ndarray
    reward_scale: float


def load(directory: Path, method: str) -> Any:
    """The module of one of CORL's files. Exits with a sentence if it is not there."""
    path = directory / "algorithms" / "offline" / FILES[method]
    if not path.is_file():
        sys.exit(f"{path} does not exist: give --corl the root of a checkout of CORL")
    name = f"corl_{method}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    stand_ins = _stand_ins()
    before = {package: sys.modules.get(package) for package in stand_ins}
    sys.modules.update(stand_ins)
    sys.modules[name] = module  # Dataclasses look their module up as they are made.
    try:
        spec.loader.exec_module(module)
    finally:
        for package, original in before.items():
            if original is None:
                del sys.modules[package]
            else:
                sys.modules[package] = original
    return module


def build(
    module: Any,
    method: str,
    data: Data,
    *,
    updates: int,
    highest_action: float = 1.0,
    widths: tuple[int, ...] = (256, 256),
    seed: int = 0,
    normalise_rewards: bool = False,
) -> Trainer:
    """CORL's networks, optimisers, trainer and buffer for `method`, with CORL's defaults.

    **Arguments:** `module`: from `load`; `updates`: length of the schedule of IQL's actor;
    `highest_action`: the bound of the actions, in the user's units; `widths`: hidden layers of
    IQL's networks (the others of CORL's are fixed); `normalise_rewards`: multiply rewards by 1000
    over the range of the returns.
    """
    _check_widths(method, widths)
    settings = module.TrainConfig(device="cpu")
    observation_size, action_size = data.observations.shape[1], data.actions.shape[1]
    mean, deviation = np.zeros(observation_size), np.ones(observation_size)
    if SCALED_OBSERVATIONS[method]:
        mean, deviation = module.compute_mean_std(data.observations, eps=1e-3)
    scale = _reward_scale(module, data) if normalise_rewards else 1.0
    buffer = module.ReplayBuffer(observation_size, action_size, len(data.rewards), "cpu")
    buffer.load_d4rl_dataset(
        {
            "observations": (data.observations - mean) / deviation,
            "actions": data.actions,
            "rewards": data.rewards * np.float32(scale),
            "next_observations": (data.next_observations - mean) / deviation,
            # A truncated row is no end: the next observation is in the data.
            "terminals": data.terminals.astype(np.float32),
        }
    )
    module.set_seed(seed)
    make = {"iql": _iql, "td3_bc": _td3_bc, "sac_n": _sac_n, "cql": _cql}[method]
    sizes = (observation_size, action_size)
    if method == "iql":
        trainer = make(module, settings, sizes, highest_action, updates, widths)
    else:
        trainer = make(module, settings, sizes, highest_action)
    update = trainer.update if method == "sac_n" else trainer.train
    return Trainer(update, buffer.sample, trainer.actor, mean, deviation, scale)


def _iql(module, settings, sizes, highest_action, updates, widths):
    shape = {"hidden_dim": widths[0], "n_hidden": len(widths)}
    values = module.ValueFunction(sizes[0], **shape)
    critics = module.TwinQ(*sizes, **shape)
    actor = module.GaussianPolicy(*sizes, highest_action, dropout=settings.actor_dropout, **shape)
    return module.ImplicitQLearning(
        max_action=highest_action,
        actor=actor,
        actor_optimizer=_adam(actor, settings.actor_lr),
        q_network=critics,
        q_optimizer=_adam(critics, settings.qf_lr),
        v_network=values,
        v_optimizer=_adam(values, settings.vf_lr),
        iql_tau=settings.iql_tau,
        beta=settings.beta,
        max_steps=updates,
        discount=settings.discount,
        tau=settings.tau,
        device="cpu",
    )


def _td3_bc(module, settings, sizes, highest_action):
    actor = module.Actor(*sizes, highest_action)
    first, second = module.Critic(*sizes), module.Critic(*sizes)
    rate = 3e-4  # Written into CORL's `train`, not into its configuration.
    return module.TD3_BC(
        max_action=highest_action,
        actor=actor,
        actor_optimizer=_adam(actor, rate),
        critic_1=first,
        critic_1_optimizer=_adam(first, rate),
        critic_2=second,
        critic_2_optimizer=_adam(second, rate),
        discount=settings.discount,
        tau=settings.tau,
        policy_noise=settings.policy_noise * highest_action,
        noise_clip=settings.noise_clip * highest_action,
        policy_freq=settings.policy_freq,
        alpha=settings.alpha,
        device="cpu",
    )


def _sac_n(module, settings, sizes, highest_action):
    actor = module.Actor(*sizes, settings.hidden_dim, highest_action)
    critics = module.VectorizedCritic(*sizes, settings.hidden_dim, settings.num_critics)
    return module.SACN(
        actor=actor,
        actor_optimizer=_adam(actor, settings.actor_learning_rate),
        critic=critics,
        critic_optimizer=_adam(critics, settings.critic_learning_rate),
        gamma=settings.gamma,
        tau=settings.tau,
        alpha_learning_rate=settings.alpha_learning_rate,
        device="cpu",
    )


def _cql(module, settings, sizes, highest_action):
    first = module.FullyConnectedQFunction(
        *sizes, settings.orthogonal_init, settings.q_n_hidden_layers
    )
    second = module.FullyConnectedQFunction(*sizes, settings.orthogonal_init)
    actor = module.TanhGaussianPolicy(
        *sizes,
        highest_action,
        log_std_multiplier=settings.policy_log_std_multiplier,
        orthogonal_init=settings.orthogonal_init,
    )
    same = (
        "discount",
        "alpha_multiplier",
        "use_automatic_entropy_tuning",
        "backup_entropy",
        "policy_lr",
        "qf_lr",
        "soft_target_update_rate",
        "bc_steps",
        "target_update_period",
        "cql_n_actions",
        "cql_importance_sample",
        "cql_lagrange",
        "cql_target_action_gap",
        "cql_temp",
        "cql_alpha",
        "cql_max_target_backup",
        "cql_clip_diff_min",
        "cql_clip_diff_max",
    )
    return module.ContinuousCQL(
        critic_1=first,
        critic_1_optimizer=_adam(first, settings.qf_lr),
        critic_2=second,
        critic_2_optimizer=_adam(second, settings.qf_lr),
        actor=actor,
        actor_optimizer=_adam(actor, settings.policy_lr),
        target_entropy=-float(sizes[1]),
        device="cpu",
        **{name: getattr(settings, name) for name in same},
    )


def _adam(network, rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=rate)


def _check_widths(method: str, widths: tuple[int, ...]) -> None:
    three = (256, 256, 256)
    fixed = {"td3_bc": (256, 256), "sac_n": three, "cql": three}.get(method)
    if (fixed is not None and widths != fixed) or len(set(widths)) != 1:
        wanted = "layers of equal width" if fixed is None else ",".join(map(str, fixed))
        sys.exit(f"CORL's {method} cannot have the widths {widths}: give --widths {wanted}")


def _reward_scale(module, data: Data) -> float:
    # CORL's own rule; where an episode ends, it is told by the data rather than by counting.
    ends = {"rewards": data.rewards, "terminals": data.terminals | data.truncations}
    low, high = module.return_reward_range(ends, max_episode_steps=1000)
    if not high > low:
        sys.exit(f"all logged returns are {low}: rewards cannot be scaled by their range")
    return 1000.0 / (high - low)


def _stand_ins() -> dict[str, types.ModuleType]:
    names = ("d4rl", "gym", "pyrallis", "wandb", "tqdm")
    modules = {name: types.ModuleType(name) for name in names}
    modules["gym"].__dict__["Env"] = object
    modules["pyrallis"].__dict__["wrap"] = lambda: lambda function: function
    modules["tqdm"].__dict__.update(tqdm=iter, trange=range)
    return modules
