"""What a recommender earns, by the log of another, beside Open Bandit Pipeline.

ZOZOTOWN's Open Bandit Dataset has 10,000 impressions of each of two policies in each of three
campaigns: a uniform one, and Bernoulli Thompson sampling, which learned on for a week. What the
second one earns is estimated from the rows of the first, and is known from its own.

    pip download --no-deps --no-binary :all: --ignore-requires-python obp==0.5.7
    tar xzf obp-0.5.7.tar.gz
    python benchmarks/bandits/zozotown.py --data obp-0.5.7/obp/dataset/obd \
        --obp-python obp-environment/bin/python --out zozotown.json

`obp-environment` holds obp; without `--obp-python`, nothing stands beside Headwater's estimates.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import headwater as hw
from headwater.core.method import AbstractLikelihood, AbstractPolicy
from headwater.evaluation.estimators.bootstrap import episode_interval
from headwater.evaluation.off_policy import evaluate_off_policy

POSITIONS = 3
CAMPAIGNS = ("all", "men", "women")
MAX_WEIGHT = 5.0
NAMES = {"is": "IPS", "wis": "SNIPS", "fqe": "DM", "dr": "DR", "wdr": "SNDR"}
"""Estimators, as Open Bandit Pipeline calls them."""


class Log(NamedTuple):
    """Impressions: where, what, whether it was clicked, and the probability of that item there."""

    position: np.ndarray
    item: np.ndarray
    click: np.ndarray
    propensity: np.ndarray

    def rows(self, chosen: np.ndarray) -> "Log":
        """Some of them, perhaps several times."""
        return Log(*(column[chosen] for column in self))


class Shares(AbstractPolicy[Any], AbstractLikelihood[Any]):
    """Shows items with given probabilities `[position, item]`, whoever looks."""

    shares: Array

    def act(self, state: Any, observation: Array, *, key: Array, explore: bool):
        logs = jnp.log(observation @ self.shares)
        return (jax.random.categorical(key, logs) if explore else jnp.argmax(logs)), ()

    def log_probability(self, state: Any, observation: Array, action: Any):
        return jnp.log((observation @ self.shares)[action])


class Rates(eqx.Module):
    """A model of rewards that is a table `[position, item]`, where estimators want a value."""

    rates: Array

    def __call__(self, observation: Array, action: Array) -> Array:
        return jnp.take_along_axis(observation @ self.rates, action[..., None], axis=-1)[..., 0]

    def expected(self, observation: Array, choices: Any) -> Array:
        return jnp.sum(choices.weights * (observation @ self.rates), axis=-1)


def read(path: Path) -> Log:
    """The impressions of one file."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    column = lambda name, kind: np.asarray([kind(row[name]) for row in rows])
    return Log(
        column("position", int) - 1,
        column("item_id", int),
        column("click", int),
        column("propensity_score", float),
    )


def shares_of(log: Log, items: int) -> np.ndarray:
    """How often each item was shown in each position, `[position, item]`."""
    counts = np.zeros((POSITIONS, items))
    np.add.at(counts, (log.position, log.item), 1.0)
    return counts / counts.sum(axis=1, keepdims=True)


def rates_of(log: Log, items: int) -> np.ndarray:
    """Click rates, drawn towards that of all rows as by a hundred more impressions of each."""
    shown, clicks = np.full((POSITIONS, items), 100.0), np.full((POSITIONS, items), 0.0)
    np.add.at(shown, (log.position, log.item), 1.0)
    np.add.at(clicks, (log.position, log.item), log.click)
    return (clicks + 100.0 * log.click.mean()) / shown


def estimates(log: Log, shares: np.ndarray, rates: np.ndarray, max_weight: float) -> dict:
    """What Headwater's estimators say of a policy from a log."""
    items = shares.shape[1]
    data = hw.Dataset.from_arrays(
        np.eye(POSITIONS, dtype=np.float32)[log.position],
        log.item,
        log.click.astype(np.float32),
        np.ones(len(log.item), bool),
        discrete=True,
        action_count=items,
        propensities=log.propensity,
    )
    return evaluate_off_policy(
        data,
        Shares(jnp.asarray(shares, jnp.float32)),
        None,
        estimators=tuple(NAMES),
        model=Rates(jnp.asarray(rates, jnp.float32)),  # pyright: ignore[reportArgumentType]
        max_weight=max_weight,
    )


def beside(python: Path, log: Log, shares: np.ndarray, rates: np.ndarray) -> dict:
    """What Open Bandit Pipeline's estimators say from the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.npz"
        np.savez(file, **log._asdict(), shares=shares, rates=rates, max_weight=MAX_WEIGHT)
        script = Path(__file__).parent / "peer_obp.py"
        return json.loads(subprocess.check_output([python, script, file]))


def coverage(log: Log, shares: np.ndarray, resamples: int, seed: int) -> dict[str, float]:
    """How often 95 % intervals hold what the whole log says, where it is all that there is.

    Rows of the log are drawn with replacement, as many as it has. Of their estimates the values are
    exact in the whole log.
    """
    rng = np.random.default_rng(seed)
    weights = shares[log.position, log.item] / log.propensity
    exact = {"IPS": (weights * log.click).mean()}
    exact["SNIPS"] = exact["IPS"] / weights.mean()
    held = dict.fromkeys(exact, 0)
    for i in range(resamples):
        drawn = rng.integers(len(weights), size=len(weights))
        w, r = weights[drawn], log.click[drawn]
        value = (w * r).mean() / w.mean()
        influences = {"IPS": w * r, "SNIPS": value + w / w.mean() * (r - value)}
        for name, influence in influences.items():
            low, high = episode_interval(influence, 0.95, 200, i) or (np.nan, np.nan)
            held[name] += bool(low <= exact[name] <= high)
    return {name: count / resamples for name, count in held.items()}


def main() -> None:
    """Writes and prints everything for each campaign."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="the folder obd of package obp")
    parser.add_argument("--obp-python", type=Path, help="Python of an environment with obp")
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not (options.data / "random").is_dir():
        print(
            f"skipped: {options.data} has no logs of ZOZOTOWN, which are in the source of the "
            "package obp 0.5.7, in obp/dataset/obd"
        )
        sys.exit(0)
    found: dict[str, Any] = {}
    for campaign in CAMPAIGNS:
        uniform, thompson = (
            read(options.data / policy / campaign / f"{campaign}.csv")
            for policy in ("random", "bts")
        )
        items = 1 + int(max(uniform.item.max(), thompson.item.max()))
        shares, rates = shares_of(thompson, items), rates_of(uniform, items)
        clicks = thompson.click
        truth = episode_interval(clicks.astype(float), 0.95, 1_000, 0)
        print(
            f"{campaign}: {items} items, {uniform.click.sum()} clicks in the uniform log; the "
            f"policy earned {clicks.mean():.5f} ({truth[0]:.5f} to {truth[1]:.5f}) itself"
        )
        made = estimates(uniform, shares, rates, np.inf)
        clipped = estimates(uniform, shares, rates, MAX_WEIGHT)
        rows = {NAMES[name]: made[name] for name in NAMES}
        rows |= {f"clipped {NAMES[name]}": clipped[name] for name in ("is", "dr")}
        peer = (
            {} if options.obp_python is None else beside(options.obp_python, uniform, shares, rates)
        )
        for name, ours in rows.items():
            other = peer.get(name)
            text = (
                ""
                if other is None
                else (f"; obp {other['value']:.8f} ({other['low']:.5f} to {other['high']:.5f})")
            )
            print(f"  {name}: {ours.value:.8f} ({ours.low:.5f} to {ours.high:.5f}){text}")
        held = coverage(uniform, shares, options.resamples, 0)
        print(f"  held the value of the whole log: {held}")
        found[campaign] = {
            "items": items,
            "clicks": int(uniform.click.sum()),
            "truth": [float(clicks.mean()), *truth],
            "estimates": {name: [e.value, e.low, e.high] for name, e in rows.items()},
            "effective": made["is"].effective_episodes,
            "obp": peer,
            "coverage": held,
        }
    if options.obp_python is None:
        print("without --obp-python: nothing beside, for which the package obp is needed")
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
