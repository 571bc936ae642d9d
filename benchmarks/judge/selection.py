"""How sure a choice between policies may be, from logs of intensive care whose truth is known.

The process is ICU-Sepsis (`examples/sepsis.py` says where it comes from). Two policies that were
learned from one log, a clone and DiscreteCQL, are judged by estimators from each of many other
logs, and their advantages over the clinicians are compared with the exact ones.

    python benchmarks/judge/selection.py icu_sepsis/envs/assets/dynamics.npz --logs 20
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

import headwater as hw
from headwater.evaluation.estimators.bootstrap import confidence_above_zero, episode_interval
from headwater.evaluation.estimators.marginal import logged_estimate
from headwater.evaluation.off_policy import evaluate_off_policy

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import sepsis


def main() -> None:
    """Prints errors, how often intervals held the truth, and how often one was called better."""
    parser = argparse.ArgumentParser()
    parser.add_argument("process", type=Path)
    parser.add_argument("--logs", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=1_000)
    parser.add_argument("--updates", type=int, default=5_000)
    parser.add_argument("--estimators", nargs="+", default=["mis", "drl", "fqe"])
    options = parser.parse_args()
    if not options.process.is_file():
        print(f"skipped: there is no {options.process}, which is in the package icu-sepsis 2.0.1")
        sys.exit(0)
    ward = sepsis.real(options.process)
    doses, own = ward.clinicians.shape[1], ward.value(ward.clinicians)
    learned_from = ward.log(2 * options.episodes, seed=0)
    methods = {
        "clone": hw.BC(hidden_sizes=(64, 64)),
        "conservative": hw.DiscreteCQL(hidden_sizes=(64, 64), conservative_weight=0.1),
    }
    errors: dict[str, list[tuple[float, bool, bool]]] = {}
    for name, method in methods.items():
        run = hw.train(method, learned_from, env="none", updates=options.updates, progress=False)
        chosen = np.asarray([int(run.policy(seen)) for seen in ward.seen])
        exact = ward.value(np.eye(doses)[chosen]) - own
        print(f"{name}: exactly {exact:+.4f} over the clinicians")
        state = jax.tree.map(lambda leaf: leaf[0], run.state)
        for seed in range(1, options.logs + 1):
            log = ward.log(options.episodes, seed=seed)
            logged = logged_estimate(log, sepsis.DISCOUNT, seed)
            found = evaluate_off_policy(
                log,
                method,
                state,
                estimators=options.estimators,
                discount=sepsis.DISCOUNT,
                explore=False,
                seed=seed,
                updates=options.updates,
            )
            for estimator, estimate in found.items():
                if estimate.refused is not None or estimate.influence is None:
                    continue
                over = estimate.influence - logged.influence
                low, high = episode_interval(over, 0.95, 1_000, seed) or (np.nan, np.nan)
                sure = confidence_above_zero(over[None], 2_000, seed)[0] >= 0.95
                error = float(over.mean()) - exact
                errors.setdefault(f"{name} by {estimator}", []).append(
                    (error, bool(low <= exact <= high), bool(sure))
                )
    for name, rows in errors.items():
        error, held, sure = (np.asarray(column) for column in zip(*rows))
        print(
            f"{name}: error {error.mean():+.4f}, deviation {error.std():.4f}, intervals held "
            f"{held.sum()} of {len(rows)}, called better {sure.sum()}"
        )


if __name__ == "__main__":
    main()
