"""The rounds that bandits are timed with: the same for every library. NumPy alone."""

import sys
import time

import numpy as np

ARMS, CONTEXT, ROUNDS = 10, 10, 2_000


class Rounds:
    """Contexts and weights of length one whose first number is √½: the mean reward is ⟨weights of
    the arm, context⟩, and an arm earns one or nothing."""

    def __init__(self, rounds: int = ROUNDS, arms: int = ARMS, seed: int = 0):
        draw = np.random.default_rng(seed)

        def vectors(count):
            drawn = draw.normal(size=(count, CONTEXT - 1))
            drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
            return np.concatenate([np.ones((count, 1)), drawn], axis=1) * np.sqrt(0.5)

        self.contexts = vectors(rounds)
        self.means = self.contexts @ vectors(arms).T
        self._lots = draw.uniform(size=rounds)

    def __len__(self) -> int:
        return len(self.contexts)

    def reward(self, number: int, arm: int) -> float:
        """What an arm earns in a round, by the same lot for all arms."""
        return float(self._lots[number] < self.means[number, arm])

    def logged_arms(self) -> np.ndarray:
        """Arms of a log, drawn uniformly."""
        return np.random.default_rng(2).integers(self.means.shape[1], size=len(self))

    def regret(self, arms: np.ndarray) -> float:
        """Of a round, in the mean of the second half."""
        earned = self.means[np.arange(len(arms)), arms]
        return float((self.means.max(1)[: len(arms)] - earned)[len(arms) // 2 :].mean())


def timed(play, rounds: Rounds, repeats: int = 3) -> dict[str, float]:
    """Rounds in a second of processor time, the best of several plays, and the last one's regret.

    **Arguments:** `play`: plays all rounds from nothing; returns the arms.
    """
    play(rounds)
    best = 0.0
    for _ in range(repeats):
        begun = time.process_time()
        arms = play(rounds)
        best = max(best, len(rounds) / (time.process_time() - begun))
    return {"rounds_per_second": best, "regret": rounds.regret(np.asarray(arms))}


def rounds_asked() -> int:
    """How many rounds the command line asks for, after the name of the library."""
    return int(sys.argv[2])
