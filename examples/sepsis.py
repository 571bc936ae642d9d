"""Judge policies from a clinicians' log alone, and compare with the exact truth.

The process is ICU-Sepsis, estimated from intensive-care records: 716 states, 25 doses, a reward of
1 for survival. Its file is in the package `icu-sepsis` (MIT licence), and only it is needed:

    pip download --no-deps icu-sepsis==2.0.1 && unzip icu_sepsis-*.whl
    python examples/sepsis.py icu_sepsis/envs/assets/dynamics.npz

Without it a small process of the same form is made up.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import headwater as hw

DISCOUNT = 0.99


class Ward(NamedTuple):
    """A finite process, what is seen in each state, and what clinicians do there."""

    moves: np.ndarray  # [state, dose, next state]
    rewards: np.ndarray  # [state, dose, next state]
    start: np.ndarray  # [state]
    clinicians: np.ndarray  # [state, dose]
    seen: np.ndarray  # [state, feature]
    over: np.ndarray  # [state], nothing happens any more

    def value(self, policy: np.ndarray) -> float:
        """Exact discounted return of a policy `[state, dose]`."""
        moves = np.einsum("sd,sdn->sn", policy, self.moves) * ~self.over[:, None]
        gains = np.einsum("sd,sdn,sdn->s", policy, self.moves, self.rewards) * ~self.over
        return float(self.start @ np.linalg.solve(np.eye(len(gains)) - DISCOUNT * moves, gains))

    def log(self, episodes: int, seed: int) -> hw.Dataset:
        """What clinicians would do, with the probability of every dose that they chose."""
        rng, rows = np.random.default_rng(seed), []
        for _ in range(episodes):
            state = rng.choice(len(self.start), p=self.start / self.start.sum())
            while not self.over[state]:
                dose = rng.choice(self.clinicians.shape[1], p=self.clinicians[state])
                following = rng.choice(len(self.start), p=self.moves[state, dose])
                rows.append((state, dose, following))
                state = following
        s, d, n = np.transpose(rows)
        return hw.Dataset.from_arrays(
            self.seen[s],
            d,
            self.rewards[s, d, n],
            self.over[n],
            next_observations=self.seen[n],
            action_count=self.clinicians.shape[1],
            propensities=self.clinicians[s, d],
        )


def real(path: Path) -> Ward:
    """The process in the package's file."""
    with np.load(path) as file:
        moves, clinicians = file["tx_mat"], file["expert_policy"].copy()
        seen = file["state_cluster_centers"].astype(np.float32)
        rewards, start = file["r_mat"], file["d_0"]
    over = np.arange(len(start)) >= 713  # Death, survival, and what comes after.
    clinicians[over] = 1 / clinicians.shape[1]
    clinicians /= clinicians.sum(1, keepdims=True)
    moves = moves / moves.sum(2, keepdims=True)
    return Ward(moves, rewards, start, clinicians, seen, over)


def made_up(states: int = 20, doses: int = 4) -> Ward:
    """A process of the same form: states, then death and survival."""
    rng = np.random.default_rng(0)
    moves = rng.dirichlet(np.full(states + 2, 0.3), (states + 2, doses))
    rewards = np.zeros_like(moves)
    rewards[:, :, -1] = 1.0
    start = np.append(np.full(states, 1 / states), [0, 0])
    clinicians = rng.dirichlet(np.full(doses, 2.0), states + 2)
    seen = rng.normal(size=(states + 2, 6)).astype(np.float32)
    return Ward(moves, rewards, start, clinicians, seen, np.arange(states + 2) >= states)


def main(path: Path | None = None, episodes: int = 2_000, updates: int = 5_000) -> None:
    """Learns from one log, judges from another, and says what is true."""
    ward = made_up() if path is None else real(path)
    learned_from, judged_from = ward.log(episodes, seed=0), ward.log(episodes // 2, seed=1)
    print(f"judged from {judged_from}")
    methods = {
        "clone": hw.BC(hidden_sizes=(64, 64)),
        "conservative": hw.DiscreteCQL(hidden_sizes=(64, 64), conservative_weight=0.1),
    }
    runs = {
        name: hw.train(method, learned_from, env="none", updates=updates, progress=False)
        for name, method in methods.items()
    }
    doses = ward.clinicians.shape[1]
    exact = {"the behaviour": ward.value(ward.clinicians)}
    for name, run in runs.items():
        chosen = np.asarray([run.policy(observation) for observation in ward.seen])
        exact[name] = ward.value(np.eye(doses)[chosen.astype(int)])
        found = hw.evaluate(run, env="none", data=judged_from, progress=False)
        for estimate in (found.estimates or [{}])[0].values():
            print(f"{name}, exactly {exact[name]:.3f}: {estimate}")
    selection = hw.select(list(runs.values()), judged_from, names=list(runs), progress=False)
    for candidate in selection.candidates:
        print(
            f"{candidate.name}, exactly {exact[candidate.name]:.3f}: {candidate.value}, the best "
            f"with probability {candidate.probability_best}"
        )
    print(selection.sentence)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
