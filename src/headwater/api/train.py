"""Train a method, whatever it learns from: the one front door."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

from headwater.api.execute import execute
from headwater.api.inputs import Chosen, as_method, open_inputs
from headwater.api.run import Run
from headwater.api.specifications.choices import MethodChoice
from headwater.api.specifications.plan import Given
from headwater.api.specifications.specification import Specification
from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractMethod, AbstractPolicy
from headwater.environments.environment import AbstractEnvironment, AbstractHostTask
from headwater.environments.registry import Acted
from headwater.runs.feeds.flow import TextFile
from headwater.runs.feeds.language import updates_of_epochs
from headwater.runs.feeds.table import check_inputs, check_options, flow_of, settle
from headwater.runs.options import TRAIN, Options
from headwater.runs.recipes.online import Budget, Task, rows_per_update

HOST_BLOCK = 8
"""Environment steps between updates where the simulator runs on the host, unless told."""


def train(
    method: AbstractMethod | str | type,
    data: Any = None,
    *,
    env: Any = None,
    process: Any = None,
    model: Any = None,
    reward: Any = None,
    judge: Any = None,
    problem: Any = None,
    data_options: dict[str, Any] | None = None,
    process_options: dict[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Run:
    """Trains `method` with several seeds at once, from whatever it learns from.

    **Arguments:**

    - `method`: as an object with its hyper-parameters set, or the name or class of one.
    - `data`: logged transitions (a `Dataset`, a file or a directory), or a list of them, one for
      each task, for methods that learn tasks one after the other; episodes or comparisons of a
      finite process, or evaluations of a black box (an object, or a file); or a file of texts.
    - `env`: where to evaluate, and for online methods to act: a task or its name. Unless given, the
      one recorded in the data, if it is known here; `"none"` for no evaluation.
    - `process`: a finite process to act in or to evaluate in: an object, a name such as
      `"river-swim"`, or an `.npz` file of arrays.
    - `model`: directory of a language model.
    - `reward`: of what a language model writes: `"exact-match"` with the file's completions (the
      default), the run of a reward model or a directory that transformers loads as one, a Python
      function `reward(prompts=[…], completions=[…])` that returns a number for each text, or where
      one is, as `"module:function"` or `"file.py:function"`; or a list of these, which are added
      up, as `reward_weights` say.
    - `judge`: of pairs: an `AbstractJudge` of episodes (default: one that prefers by the rewards of
      the process), or for texts a function `judge(prompts=[…], first=[…], second=[…])` that
      returns how probably the first is preferred (default: by `reward`).
    - `problem`: what the method is told of a finite process, if not what follows from it.
    - `data_options`: of `headwater.load`, where `data` is a path; `process_options`: of a process
      by name.
    - `out`: directory of the run, which must not exist; `None` keeps the run in memory.
    - `progress`: show a bar; by default on a terminal. `False` also silences what is said of how
      the data was read, and of what makes it doubtful.
    - `options`: see below.

    Raises `SpecificationError` for what does not fit together, `DataError` for data that cannot be
    used, `RunError` if `out` exists or cannot be written, `Diverged` if training diverges.
    """
    method = as_method(method)
    chosen = Options.of(options)
    given = {
        "data": data,
        "env": None if env == "none" else env,
        "process": problem if process is None else process,
        "model": model,
        "reward": reward,
        "judge": judge,
    }
    specification, opened = specify(
        method,
        chosen,
        given={name for name, value in given.items() if value is not None},
        data=data,
        env=env,
        process=process,
        model=model,
        reward=reward,
        judge=judge,
        problem=problem,
        data_options=data_options,
        process_options=process_options,
    )
    return execute(specification, out=out, given=opened, progress=progress)


train.__doc__ = f"{inspect.cleandoc(train.__doc__ or '')}\n\n**Options:**\n\n{TRAIN.described()}\n"


def specify(
    method: AbstractMethod, options: Options, *, given: set[str], **inputs: Any
) -> tuple[Specification, Given]:
    """What `train` is asked to do, and what was given, opened.

    **Arguments:** `given`: which inputs there are; `inputs`: as of `train`. Raises what `train`
    raises for what does not fit together.
    """
    cls = type(method)
    flow = flow_of(cls)
    # Data may say what it was logged in, so that an environment is looked for before it is missed.
    hoped = {"env"} if "env" in flow.needs and "data" in given else set()
    none = {"env"} if inputs.get("env") == "none" else set()
    check_inputs(cls, given | (hoped - none))
    check_options(cls, options)
    asked = method, options
    if options.epochs is not None and options.updates is not None:
        raise SpecificationError("epochs and updates say the same twice: give one of them")
    method, options = settle(method, options)
    policy = isinstance(method, AbstractPolicy)
    chosen, opened = open_inputs(flow, options, **inputs, policy=policy)
    if options.epochs is not None:
        assert chosen.model is not None
        model, file = chosen.model.open(options), TextFile(opened.data)
        opened = opened._replace(model=model, data=file)
        updates = updates_of_epochs(method, model, file, options)
        # What falls during learning falls until its end.
        method, options = settle(asked[0], dataclasses.replace(asked[1], updates=updates))
    if opened.task is not None:
        given = given | {"env"}
    check_inputs(cls, given)
    return build_specification(method, options, chosen, opened.task), opened


def build_specification(
    method: AbstractMethod, options: Options, chosen: Chosen, task: Acted | None
) -> Specification:
    """What is asked for, once everything is settled and opened."""
    flow = flow_of(type(method))
    budget = None
    if flow.acts and flow.kind == "control":
        assert task is not None and options.batch_size is not None
        assert isinstance(task, AbstractEnvironment | AbstractHostTask)
        budget = Budget(
            steps=options.steps,
            rows=rows_per_update(method, options.batch_size),
            random_steps=min(5_000, options.steps // 10)
            if options.random_steps is None
            else options.random_steps,
            block=default_block(task) if options.block is None else options.block,
            copies=options.copies or 1,
            rollouts=flow.rollouts,
        )
    return Specification(
        "train", MethodChoice.of(method), options, **chosen._asdict(), budget=budget
    )


def default_block(task: Task) -> int:
    """Environment steps between updates unless told."""
    return 1 if isinstance(task, AbstractEnvironment) else HOST_BLOCK
