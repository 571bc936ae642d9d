"""A task with a reward that was learned."""

from pathlib import Path

import jax

from headwater.api.inputs import as_task
from headwater.api.run import Run, open_run
from headwater.core.errors import RunError, SpecificationError
from headwater.core.method import AbstractRewardModel
from headwater.environments.environment import AbstractEnvironment
from headwater.environments.learned_reward import RewardedByModel


def rewarded(env: AbstractEnvironment | str, run: Run | str | Path) -> AbstractEnvironment:
    """A task whose reward is what a run learned, to train any method in that acts.

    `hw.train("SAC", env=hw.rewarded("pick-and-carry", "runs/reward"))`; what is evaluated then is
    the learned reward, and `hw.evaluate(run, env="pick-and-carry")` says what the task itself pays.

    **Arguments:** `env`: in pure JAX; `run`: of what learns rewards (PerceptualReward,
    PreferenceReward), or its directory, of which the first seed rewards.

    Raises `SpecificationError` if the run learns no rewards or is of another task, or if the task
    is simulated on the host, `RunError` if the run is not finished.
    """
    run = run if isinstance(run, Run) else open_run(run)
    name = type(run.method).__name__
    if not isinstance(run.method, AbstractRewardModel):
        raise SpecificationError(
            f"{run.name} is a run of {name}, which learns no rewards: train PerceptualReward or "
            "PreferenceReward"
        )
    if not run.finished:
        raise RunError(f"{run.path} is not finished: `headwater resume {run.path}` first")
    task = as_task(env)
    if not isinstance(task, AbstractEnvironment):
        raise SpecificationError(
            f"{env} is simulated on the host, where no learned reward is computed: take one of "
            "Headwater's own tasks, or one written in JAX; or collect a log and label it (hw.label)"
        )
    reason = run.spaces.mismatch(task.spaces, "in the run", "in the task")
    if reason is not None:
        raise SpecificationError(f"the run does not fit the task: {reason}")
    return RewardedByModel(task, run.method, jax.tree.map(lambda leaf: leaf[0], run.state))
