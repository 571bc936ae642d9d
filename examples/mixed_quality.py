"""A log in which good episodes are rare: draw them more often (RW of Hong et al., 2023)."""

import jax
import jax.numpy as jnp
import numpy as np

import headwater as hw
from headwater.environments.control.cart_pole import CartPole, balancing_action
from headwater.environments.interaction import begin, interact


def record_log(episodes: int = 100, good: int = 5, steps: int = 200) -> hw.Dataset:
    """Mostly random actions; a few episodes of somebody who knows how."""
    task = CartPole()

    def follow(skill, key):
        def act(observation, key):
            chosen, choice = jax.random.split(key)
            guess = jax.random.randint(choice, (), 0, 2)
            return jnp.where(
                jax.random.uniform(chosen) < skill, balancing_action(observation), guess
            )

        begun, walked = jax.random.split(key)
        return interact(task, begin(task, 1, key=begun), act, steps=steps, key=walked)[1]

    skill = jnp.where(jnp.arange(episodes) < good, 1.0, 0.0)
    rows = jax.jit(jax.vmap(follow))(skill, jax.random.split(jax.random.key(0), episodes))
    flat = {
        k: np.asarray(v).reshape(-1, *v.shape[3:]) for k, v in vars(rows).items() if v is not None
    }
    cut = flat["truncated"].reshape(episodes, steps).copy()
    cut[:, -1] |= ~flat["terminal"].reshape(episodes, steps)[:, -1]
    return hw.Dataset.from_arrays(
        flat["observation"],
        flat["action"],
        flat["reward"],
        flat["terminal"],
        cut.reshape(-1),
        flat["next_observation"],
        action_count=2,
        metadata={"environment": task.name},
    )


def main(updates: int = 1_000) -> None:
    """Clones everything alike, the best twentieth, and everything by its return."""
    log = record_log()
    print(log)
    for title, options in (
        ("every row alike", {}),
        ("the best 2% of the episodes", {"top": 0.02}),
        ("by return (RW)", {"weights": "return"}),
    ):
        method = hw.BC(hidden_sizes=(32, 32), learning_rate=1e-3)
        run = hw.train(method, log, seeds=3, updates=updates, evaluations=1, **options)
        print(f"{title}: {run.score()}")


if __name__ == "__main__":
    main()
