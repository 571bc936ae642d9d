"""Bring your own log: a CSV file whose columns have names of their own."""

import csv
import random
from pathlib import Path

import headwater as hw


def write_log(path: Path, visits: int = 60) -> None:
    """What a heating controller might have logged: one row a minute, one visit an episode."""
    random.seed(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["visit", "room", "outside", "power", "comfort", "left"])
        for visit in range(visits):
            room, outside = random.uniform(12, 18), random.uniform(-5, 10)
            for minute in range(30):
                power = random.uniform(0, 4)
                comfort = -abs(room - 21.0) - 0.2 * power
                writer.writerow([visit, room, outside, power, comfort, int(minute == 29)])
                room += 0.5 * power - 0.05 * (room - outside)


def main(directory: Path = Path("."), updates: int = 2_000) -> None:
    """Declares which column is what, looks at the data, and learns from it."""
    path = directory / "heating.csv"
    write_log(path)
    log = hw.load(
        path,
        columns={
            "observations": ["room", "outside"],
            "actions": "power",
            "rewards": "comfort",
            "dones": "left",
            "episodes": "visit",
        },
        action_low=0.0,
        action_high=4.0,
        discrete=False,
        dones="truncated",  # The record stopped; the room went on.
    )
    print(log)
    run = hw.train(
        hw.IQL(hidden_sizes=(32, 32), learning_rate=1e-3, beta=10.0),
        log,
        env="none",
        seeds=2,
        updates=updates,
    )
    for room in (14.0, 20.0, 26.0):
        print(f"{room} °C: heat with {float(run.policy([room, 0.0])[0]):.2f} kW")


if __name__ == "__main__":
    main()
