"""Returns that CORL's own classes reach on a dataset written by Headwater.

Run with a Python that has PyTorch and Gymnasium with MuJoCo; see the README beside this folder.
Seeds are trained one after the other, each in a process of its own, and written as they finish: a
run that was stopped goes on with the seeds that are missing.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from columns import Data, commit, read
from corl import Trainer, build, load


def main() -> None:
    """Trains every seed that `--out` does not hold yet."""
    options = _parser().parse_args()
    os.environ.update({"OMP_NUM_THREADS": str(options.threads)})
    torch.set_num_threads(options.threads)
    if options.evaluations > options.updates:
        sys.exit(f"{options.updates} updates cannot have {options.evaluations} evaluations")
    if options.only_seed is not None:
        options.out.write_text(json.dumps(_train(options, options.only_seed)))
        return
    settings = _settings(options)
    result = _earlier(options.out, settings) or {"settings": settings, "seeds": []}
    finished = {each["seed"] for each in result["seeds"]}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        if seed in finished:
            print(f"seed {seed}: already in {options.out}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "seed.json"
            extra = ["--only-seed", str(seed), "--out", str(part)]
            child = subprocess.run([sys.executable, __file__, *sys.argv[1:], *extra])
            if child.returncode != 0:
                sys.exit(f"seed {seed} failed: what was finished before it is in {options.out}")
            result["seeds"].append(json.loads(part.read_text()))
        _write(options.out, result)
    last = [each["evaluations"][-1]["returns"] for each in result["seeds"]]
    print(f"mean return after the last update, by seed: {np.mean(last, axis=1).round(1).tolist()}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--corl", type=Path, required=True, help="root of a checkout of CORL")
    add("--data", type=Path, required=True, help=".npz file that Headwater wrote")
    add("--method", choices=("iql", "td3_bc", "sac_n", "cql"), required=True)
    add("--updates", type=_positive, default=1_000_000)
    add("--seeds", type=_positive, default=4, help="how many")
    add("--first-seed", type=int, default=0)
    add("--batch-size", type=_positive, default=256)
    add("--widths", type=_widths, default=(256, 256), help="hidden layers, such as 256,256")
    add("--env", required=True, help="Gymnasium's name of the environment to evaluate in")
    add("--episodes", type=_positive, default=10, help="per evaluation")
    add("--evaluations", type=_positive, default=10, help="per seed, the last after all updates")
    add(
        "--normalise-rewards",
        choices=("yes", "no"),
        help="multiply rewards by 1000 over the range of returns (default: yes for iql, as its "
        "paper and Headwater do; CORL's own configurations leave it out)",
    )
    add("--threads", type=_positive, default=1)
    add("--out", type=Path, required=True, help="JSON file to write")
    add("--only-seed", type=int, help=argparse.SUPPRESS)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _widths(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _settings(options) -> dict[str, Any]:
    return {
        "peer": "CORL",
        "commit": commit(options.corl),
        "method": options.method,
        "data": options.data.name,
        "data_sha256": hashlib.sha256(options.data.read_bytes()).hexdigest(),
        "environment": options.env,
        "updates": options.updates,
        "batch_size": options.batch_size,
        "widths": list(options.widths),
        "episodes": options.episodes,
        "evaluations": options.evaluations,
        "normalise_rewards": _normalises(options),
        "threads": options.threads,
        "torch": torch.__version__,
        "gymnasium": gymnasium.__version__,
        "python": platform.python_version(),
    }


def _normalises(options) -> bool:
    if options.normalise_rewards is None:
        return options.method == "iql"
    return options.normalise_rewards == "yes"


def _earlier(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    different = [k for k in settings if result["settings"].get(k) != settings[k]]
    if different:
        sys.exit(
            f"{path} holds another experiment ({different[0]} is "
            f"{result['settings'].get(different[0])}, not {settings[different[0]]}): give another "
            "--out"
        )
    return result


def _write(path: Path, result: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)


def _train(options, seed: int) -> dict[str, Any]:
    data = read(options.data)
    environment = gymnasium.make(options.env)
    highest = _highest_action(environment, data, options)
    trainer = build(
        load(options.corl, options.method),
        options.method,
        data,
        updates=options.updates,
        highest_action=highest,
        widths=options.widths,
        seed=seed,
        normalise_rewards=_normalises(options),
    )
    evaluations, done, training = [], 0, 0.0
    for index in range(1, options.evaluations + 1):
        until = options.updates * index // options.evaluations
        before = time.perf_counter()
        for _ in range(until - done):
            trainer.update(trainer.sample(options.batch_size))
        training, done = training + time.perf_counter() - before, until
        returns = _evaluate(environment, trainer, options.episodes, seed)
        evaluations.append({"update": done, "returns": returns})
        print(
            f"{options.method}, seed {seed}, update {done:,} of {options.updates:,}: mean return "
            f"{np.mean(returns):,.1f}, {done / training:,.0f} updates/s",
            flush=True,
        )
    return {
        "seed": seed,
        "updates_per_second": round(done / training, 2),
        "reward_scale": trainer.reward_scale,
        "evaluations": evaluations,
    }


def _highest_action(environment: gymnasium.Env, data: Data, options) -> float:
    space = environment.observation_space, environment.action_space
    shapes = [each.shape for each in space]
    if shapes != [data.observations.shape[1:], data.actions.shape[1:]]:
        sys.exit(
            f"{options.env} has observations and actions of the shapes {shapes}, {options.data} "
            f"of {[data.observations.shape[1:], data.actions.shape[1:]]}: give the environment "
            "that the data is from"
        )
    box = space[1]
    assert isinstance(box, gymnasium.spaces.Box)
    highest = float(box.high[0])
    if not (np.allclose(box.high, highest) and np.allclose(box.low, -highest)):
        sys.exit(f"CORL's policies need actions in [-b, b], but {options.env} has {box}")
    if options.method == "iql" and highest != 1.0:
        # Its density is of actions in [-1, 1], whatever bound it acts with.
        sys.exit(f"CORL's IQL needs actions in [-1, 1], but {options.env} has {box}")
    return highest


@torch.no_grad()
def _evaluate(
    environment: gymnasium.Env, trainer: Trainer, episodes: int, seed: int
) -> list[float]:
    """Returns of the deterministic policy, from the same first states at every evaluation."""
    trainer.actor.eval()
    returns = []
    for episode in range(episodes):
        observation, _ = environment.reset(seed=seed if episode == 0 else None)
        total, over = 0.0, False
        while not over:
            scaled = (np.asarray(observation) - trainer.mean) / trainer.deviation
            observation, reward, terminal, truncated, _ = environment.step(
                trainer.actor.act(scaled, "cpu")
            )
            total, over = total + float(reward), terminal or truncated
        returns.append(round(total, 6))
    trainer.actor.train()
    return returns


if __name__ == "__main__":
    main()
