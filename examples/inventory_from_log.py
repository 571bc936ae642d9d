"""Order better than a log did: a store's records, no model and no experiment."""

import csv
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import headwater as hw
from headwater.environments.tabular.operations import inventory_control

WEEKS, CAPACITY = 12, 8


def write_log(path: Path, store: hw.FiniteProcess, seasons: int) -> None:
    """What a shopkeeper who orders by a rule of thumb, and sometimes not, might have recorded."""
    random.seed(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["season", "week", "stock", "ordered", "profit"])
        for season in range(seasons):
            stock = 0
            for week in range(WEEKS):
                order = max(0, 5 - stock) if random.random() < 0.7 else random.randint(0, CAPACITY)
                key = jax.random.key(season * WEEKS + week)
                seen = store.step(*(jnp.asarray(x) for x in (week, stock, order)), key=key)
                writer.writerow([season, week, stock, order, float(seen.reward)])
                stock = int(seen.state)


def read_log(path: Path) -> hw.Episodes:
    """Columns to episodes: `[season, week]`, and the stock once more at the end."""
    table = np.genfromtxt(path, delimiter=",", names=True)
    columns = {name: table[name].reshape(-1, WEEKS) for name in ("stock", "ordered", "profit")}
    # Nothing is earned after the last week, so it does not matter what was left.
    stock = np.hstack([columns["stock"], columns["stock"][:, -1:]]).astype(np.int32)
    return hw.Episodes(
        stock, columns["ordered"].astype(np.int32), columns["profit"].astype(np.float32)
    )


def main(directory: Path = Path("."), episodes: int = 400) -> None:
    """Learns from the log alone; the true store serves to judge what came out."""
    store = inventory_control(capacity=CAPACITY, horizon=WEEKS, demand=3.0)
    path = directory / "store.csv"
    write_log(path, store, episodes)
    log = read_log(path)
    print(f"logged: {np.asarray(log.reward).sum(1).mean():.3f} a season")
    method = hw.PessimisticValueIteration(penalty_scale=0.01)
    solution = hw.solve(method, store, data=log, seeds=1)
    print(solution)
    print("order in the first week, by what is in stock:", solution.policy[0].tolist())


if __name__ == "__main__":
    main()
