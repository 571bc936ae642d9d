"""The main job in a few lines: a log, a policy from it, its adaptation, and what the log saved."""

import gymnasium
import numpy as np

import headwater as hw


def record_log(steps: int = 4_000) -> hw.Dataset:
    """Random actions in Gymnasium's pendulum, as any logger would have written them down."""
    environment = gymnasium.make("Pendulum-v1")
    rows: dict[str, list] = {name: [] for name in ("seen", "done", "paid", "reached", "cut")}
    observation, _ = environment.reset(seed=0)
    environment.action_space.seed(0)
    for _ in range(steps):
        action = environment.action_space.sample()
        following, reward, _, truncated, _ = environment.step(action)
        for name, value in zip(rows, (observation, action, reward, following, truncated)):
            rows[name].append(value)
        observation = environment.reset()[0] if truncated else following
    return hw.Dataset.from_arrays(
        observations=np.array(rows["seen"]),
        actions=np.array(rows["done"]),
        rewards=np.array(rows["paid"]),
        next_observations=np.array(rows["reached"]),
        terminals=np.zeros(steps, bool),
        truncations=np.array(rows["cut"]),
        action_low=-2.0,
        action_high=2.0,
        metadata={"environment": "Pendulum-v1"},
    )


def main(
    updates: int = 3_000, fit_updates: int = 3_000, steps: int = 2_000, seeds: int = 3
) -> None:
    """Trains offline, adapts online, and holds the result against learning from nothing."""
    log = record_log()
    print(log)
    method = hw.IQL(learning_rate=1e-3, hidden_sizes=(64, 64))
    offline = hw.train(method, log, seeds=seeds, updates=updates, evaluations=2)
    print("offline:", offline.score())
    small = {"batch_size": 64, "steps": steps, "evaluations": 4, "episodes": 5, "block": 20}
    small |= {"set": {"num_critics": 5}}
    adapted = hw.adapt(offline, data=log, keep_data=0.5, critic_fit_updates=fit_updates, **small)
    scratch = hw.adapt(offline, recipe="scratch", **small)
    comparison = hw.compare([adapted, scratch], names=["adapted", "from scratch"])
    for row in comparison.rows:
        print(f"{row.name}: {row.score}")
        if row.savings is not None:
            print(f"{row.name}: {row.savings}")
    action = adapted.policy(np.array([1.0, 0.0, 0.0]))
    print("torque when upright and at rest:", action)


if __name__ == "__main__":
    main()
