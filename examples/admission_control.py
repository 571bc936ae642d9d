"""Learn a finite process of your own: a queue, from its parameters, with regret and a bound."""

from pathlib import Path

import headwater as hw
from headwater.environments.tabular.operations import admission_control


def main(directory: Path = Path("."), episodes: int = 5_000, seeds: int = 8) -> None:
    """Explores a queue that it knows nothing of, and draws what that cost."""
    queue = admission_control(capacity=8, horizon=20, arrival=0.6)
    # The theorem's bonus is 100 times as large: safe for any process, and slow in every one.
    solution = hw.solve(hw.UCBVI(bonus_scale=0.01), queue, episodes=episodes, seeds=seeds)
    print(solution)
    print("figure:", solution.draw(directory / "regret.png"))
    names = ("admit, slow", "admit, fast", "reject, slow", "reject, fast")
    for waiting in range(queue.states):
        print(f"{waiting} waiting at the start: {names[solution.policy[0, waiting]]}")


if __name__ == "__main__":
    main()
