"""The whole idea in a few minutes: record a log, learn from it, adapt, count what was saved.

The task is a pendulum that has to be swung up by a weak motor. A log was recorded on one machine;
the machine at hand carries half as much mass again. What is the log worth there?
"""

import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from headwater.analysis.describe import Description, describe
from headwater.api.adapt import adapt
from headwater.api.compare import compare
from headwater.api.evaluate import evaluate
from headwater.api.execute import resume
from headwater.api.run import Run
from headwater.api.train import train
from headwater.core import json_text
from headwater.core.catalogue import build_method
from headwater.core.errors import RunError
from headwater.core.records import Transitions
from headwater.core.spaces import Box
from headwater.datasets.dataset import Dataset
from headwater.datasets.read import load
from headwater.datasets.write import write
from headwater.environments.control.pendulum import Pendulum, swing_up_action
from headwater.environments.interaction import begin, interact, random_action
from headwater.evaluation.savings import Savings
from headwater.evaluation.statistics import Interval, band, interval
from headwater.reports import page
from headwater.reports.curves import draw_learning_curves
from headwater.reports.dataset_figure import draw_description
from headwater.reports.intervals import draw_intervals
from headwater.runs.files import explain, write_json

MASS = 1.5
"""Of the new machine, where that of the log had 1."""
RANDOM, OPTIMUM = -1226.0, -189.0
"""Mean returns on the new machine, measured over 4,000 episodes of random actions and 1,000 of
dynamic programming on a grid of 201 angles, 201 velocities and 21 torques."""
TARGET = float(round(RANDOM + 0.95 * (OPTIMUM - RANDOM)))
"""The return whose samples are counted: 95 on the scale from random (0) to the optimum (100). It
depends on the machine alone, not on what the runs achieve."""

_MARK = "demo.json"
_PARTS = 5


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is done.

    **Arguments:** `log_episodes`; `top_skill`: an episode of the log takes the expert's action with
    a probability drawn from [0, `top_skill`], else a random one; `seeds`; `updates`, `steps`: of
    learning offline and online; `keep_data`: share of every online batch that is from the log;
    `num_critics`: online; `critic_fit_updates`: that fit them to the offline actor; `wait`: steps
    before the first online update; `episodes`: per evaluation and seed while it learns;
    `final_episodes`: at the end.
    """

    log_episodes: int = 100
    top_skill: float = 0.4
    seeds: int = 4
    updates: int = 6_000
    steps: int = 6_000
    keep_data: float = 0.5
    num_critics: int = 5
    critic_fit_updates: int = 3_000
    wait: int = 400
    evaluations: int = 14
    episodes: int = 50
    final_episodes: int = 100
    batch_size: int = 256
    online_batch_size: int = 128
    width: int = 64
    learning_rate: float = 1e-3
    online_learning_rate: float = 3e-4


FULL = Scale()
QUICK = Scale(
    log_episodes=10,
    seeds=3,
    updates=100,
    steps=400,
    critic_fit_updates=20,
    wait=100,
    evaluations=3,
    episodes=2,
    final_episodes=4,
    batch_size=16,
    online_batch_size=16,
    width=8,
)
"""Seconds instead of minutes: everything is made, but nothing is learned."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the result: `what` acted on which `machine`, after how many new `samples`.

    `returns`: mean over episodes for the log, interquartile mean over seeds for what was learned.
    """

    what: str
    machine: str
    samples: int
    returns: Interval


@dataclasses.dataclass(frozen=True, eq=False)
class Demonstration:
    """What the demo found.

    **Arguments:** `lines`: from the log to what was adapted; `savings`: of the adapted policy over
    learning from scratch; `dip`: where the adapted policy was at its worst (new samples, return),
    if that was worse than at the beginning; `description`: of the log; `runs`, `figures`: their
    paths by name; `page`: that shows it all; `quick`: at the small scale, where the numbers mean
    nothing; `seconds`: taken by this call.
    """

    lines: list[Line]
    savings: Savings
    dip: tuple[int, float] | None
    description: Description
    runs: dict[str, Path]
    figures: dict[str, Path]
    page: Path
    quick: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return {
            "lines": [dataclasses.asdict(line) for line in self.lines],
            "savings": self.savings.plain(),
            "dip": self.dip,
            "description": self.description.to_json(),
            "runs": {name: str(path) for name, path in self.runs.items()},
            "figures": {name: str(path) for name, path in self.figures.items()},
            "page": str(self.page),
            "quick": self.quick,
            "seconds": round(self.seconds, 1),
        }

    def rows(self) -> list[list[str]]:
        """The lines as text: what, machine, new samples, return."""
        return [
            [
                line.what,
                line.machine,
                f"{line.samples:,}" if line.samples else "none",
                str(line.returns),
            ]
            for line in self.lines
        ]


def demo(
    out: str | Path = "headwater-demo",
    *,
    quick: bool = False,
    fresh: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: bool | None = None,
) -> Demonstration:
    """Records a log, learns from it, adapts to a changed machine and counts the samples saved.

    What is already in `out` is kept, and a part that was interrupted goes on where it was.

    **Arguments:** `out`: its directory; `quick`: at a scale of seconds, to see that everything
    works; `fresh`: delete the demo that is in `out` and begin again; `say`: is told what happens,
    a line at a time; `progress`: show bars, by default on a terminal.

    Raises `RunError` if `out` holds something else or cannot be written.
    """
    began, out = time.perf_counter(), Path(out)
    scale = QUICK if quick else FULL
    _claim(out, scale, fresh)
    machine, task = Pendulum(), Pendulum(mass=MASS)

    say(f"1/{_PARTS} Record a log: {scale.log_episodes} episodes of mixed skill on the old machine")
    log, kept = _logged(out / "log.parquet", scale, machine)
    say(f"  {log.size:,} transitions in {out / 'log.parquet'}{kept}")

    say(f"2/{_PARTS} Describe it")
    description = describe(log)
    figures = {name: out / f"{name}.png" for name in ("savings", "returns", "log")}
    draw_description(log, description, figures["log"])
    shown = ("return", "normalised score", "quality (TQ)", "action support")
    for name, value in description.rows():
        if name in shown:
            say(f"  {name}: {value}")

    say(f"3/{_PARTS} Learn offline: IQL, {scale.seeds} seeds, {scale.updates:,} updates")
    offline = _part(
        out / "offline",
        lambda path: train(
            build_method(
                "IQL",
                {"hidden_sizes": (scale.width, scale.width), "learning_rate": scale.learning_rate},
            ),
            out / "log.parquet",
            env=machine,
            updates=scale.updates,
            seeds=scale.seeds,
            batch_size=scale.batch_size,
            evaluations=4,
            episodes=scale.episodes,
            out=path,
            progress=progress,
        ),
        progress,
        say,
    )
    how: dict[str, Any] = {
        "env": task,
        "steps": scale.steps,
        "set": {
            "critic_learning_rate": scale.online_learning_rate,
            "actor_learning_rate": scale.online_learning_rate,
            "num_critics": scale.num_critics,
        },
        "batch_size": scale.online_batch_size,
        "evaluations": scale.evaluations,
        "progress": progress,
    }
    say(
        f"4/{_PARTS} Adapt to the new machine: {scale.steps:,} steps with every seed, "
        f"{scale.keep_data:.0%} of every batch from the log"
    )
    adapted = _part(
        out / "adapted",
        lambda path: adapt(
            offline,
            keep_data=scale.keep_data,
            critic_fit_updates=scale.critic_fit_updates,
            warm_up_steps=scale.wait,
            out=path,
            **how,
        ),
        progress,
        say,
    )
    say(f"5/{_PARTS} Learn the new machine from scratch, as long and by the same method: SAC")
    scratch = _part(
        out / "scratch",
        lambda path: adapt(offline, recipe="scratch", random_steps=scale.wait, out=path, **how),
        progress,
        say,
    )

    say("Measure what came of it")
    old, new = "old", "new"

    def measured(run: Run, env: Pendulum) -> Interval:
        score = evaluate(run, env=env, episodes=scale.final_episodes).score
        assert score is not None
        return score

    lines = [
        Line("the log", old, 0, interval(log.episode_returns(), "mean")),
        Line("learned offline", old, 0, measured(offline, machine)),
        Line("learned offline", new, 0, measured(offline, task)),
        Line("learned offline, then adapted", new, scale.steps, measured(adapted, task)),
        Line("learned from scratch", new, scale.steps, measured(scratch, task)),
    ]
    comparison = compare([adapted, scratch], baseline="scratch", target=TARGET)
    savings = comparison.rows[0].savings
    assert savings is not None
    _draw(comparison.curves, lines, figures)
    runs = {"offline": offline, "adapted": adapted, "scratch": scratch}
    result = Demonstration(
        lines,
        savings,
        _dip(*comparison.curves["adapted"]),
        description,
        {name: out / name for name in runs},
        figures,
        out / "report.html",
        quick,
        time.perf_counter() - began,
    )
    _write_report(result, out, scale)
    return result


def record_log(
    machine: Pendulum, *, episodes: int, top_skill: float = 0.4, seed: int = 0
) -> Dataset:
    """A log of mixed quality: episodes from random flailing to `top_skill` of the expert's actions.

    **Arguments:** `machine`: where; `episodes`: how many; `top_skill`: each episode draws the share
    of expert actions from [0, `top_skill`]; `seed`.
    """
    length, bounds = machine.spaces.horizon, machine.spaces.action
    assert length is not None and isinstance(bounds, Box)

    rows = _record(machine, length, top_skill, jax.random.split(jax.random.key(seed), episodes))
    # From [episode, step, copy, …] to [row, …].
    flat = lambda column: np.asarray(column).reshape(-1, *column.shape[3:])
    return Dataset.from_arrays(
        flat(rows.observation),
        bounds.from_canonical(flat(rows.action)),
        flat(rows.reward),
        flat(rows.terminal),
        flat(rows.truncated),
        flat(rows.next_observation),
        action_low=bounds.low,
        action_high=bounds.high,
        horizon=length,
        metadata={
            "name": "demo log",
            "environment": machine.name,
            "reference_returns": list(machine.reference_returns),
        },
    )


@eqx.filter_jit
def _record(
    machine: Pendulum, length: int, top_skill: float, keys: Key[Array, " episode"]
) -> Transitions:
    def episode(key):
        skill_key, start_key, walk_key = jax.random.split(key, 3)
        skill = top_skill * jax.random.uniform(skill_key)

        def act(observation, key):
            coin, draw = jax.random.split(key)
            uniform_action = random_action(machine.spaces, key=draw)
            skilled = jax.random.uniform(coin) < skill
            return jnp.where(skilled, swing_up_action(observation), uniform_action)

        at = begin(machine, 1, key=start_key)
        return interact(machine, at, act, steps=length, key=walk_key)[1]

    return jax.vmap(episode)(keys)


def _claim(out: Path, scale: Scale, fresh: bool) -> None:
    """Makes `out` the directory of a demo of this scale, unless it is one."""
    mark, requested = out / _MARK, dataclasses.asdict(scale)
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file: choose another directory with --out")
    # A file of ours that was cut short begins with a dot.
    holds = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
    if holds and not mark.is_file():
        raise RunError(
            f"{out} already exists and holds no demo: choose another directory with --out"
        )
    if holds and fresh:
        try:
            shutil.rmtree(out)
        except OSError as error:
            raise RunError(explain(error, out)) from error
        holds = False
    if holds:
        try:
            found = json_text.parse(mark.read_text(encoding="utf-8")).get("scale")
        except (OSError, ValueError, AttributeError):
            found = None
        if found != requested:
            raise RunError(
                f"{out} holds a demo with other settings: begin again with --fresh or choose "
                "another directory with --out"
            )
        return
    write_json(mark, {"made_by": "headwater demo", "scale": requested})


def _logged(path: Path, scale: Scale, machine: Pendulum) -> tuple[Dataset, str]:
    if path.exists():
        return load(path), ", kept from before"
    write(
        record_log(machine, episodes=scale.log_episodes, top_skill=scale.top_skill),
        path,
        "parquet",
    )
    return load(path), ""


def _part(
    path: Path,
    start: Callable[[Path], Run],
    progress: bool | None,
    say: Callable[[str], None],
) -> Run:
    """The run at `path`: as it is if finished, continued if interrupted, begun if not there."""
    began, there = time.perf_counter(), (path / "run.json").is_file()
    finished = resume(path, progress=progress) if there else start(path)
    seconds = time.perf_counter() - began
    taken = f"{seconds:.0f} s"
    if there:
        taken = f"continued, {taken}" if seconds >= 1.0 else "kept from before"
    say(f"  {path}: return {finished.score()} ({taken})")
    return finished


def _dip(steps: np.ndarray, returns: np.ndarray) -> tuple[int, float] | None:
    """Where the middle of the seeds is worst, if that is later than at the beginning."""
    levels = band(returns).point
    worst = int(np.argmin(levels))
    return (int(steps[worst]), float(levels[worst])) if worst > 0 else None


def _draw(curves: dict[str, Any], lines: list[Line], figures: dict[str, Path]) -> None:
    draw_learning_curves(
        {"adapted": curves["adapted"], "from scratch": curves["scratch"]},
        figures["savings"],
        target=TARGET,
        references={"optimum": OPTIMUM},
        title="What the log saves on the new machine",
        xlabel="new samples (environment steps) per seed",
    )
    named = {f"{line.what} ({line.machine} machine)": line.returns for line in lines}
    draw_intervals(
        {"": named},
        figures["returns"],
        title="Returns",
        references={"optimum, new": OPTIMUM},
        note="the log: mean over its episodes; others: interquartile mean over seeds; bars: 95% "
        "bootstrap intervals",
    )


def _write_report(result: Demonstration, out: Path, scale: Scale) -> None:
    seeds = result.savings.with_log.seeds
    sections = [
        (
            "",
            page.text(
                "A pendulum has to be swung up by a motor too weak to lift it. A log of "
                f"{result.description.episodes} clumsy episodes was recorded on one machine; the "
                f"machine at hand carries {MASS:g} times the mass. A policy was learned from the "
                "log alone, then adapted on the new machine with a part of every batch still from "
                "the log, and held against its twin: the same method with the same budget, from "
                "scratch and without the log."
            )
            + page.text(sentence(result), kind="lead")
            + (
                page.text("This was made with --quick: the numbers mean nothing.", kind="lead")
                if result.quick
                else ""
            ),
        ),
        (
            "Returns",
            page.table(["policy", "machine", "new samples", "return"], result.rows())
            + page.text(_fine_print(scale), kind="faint"),
        ),
        (
            "New samples",
            page.picture(
                result.figures["savings"],
                f"Return on the new machine against the samples taken there, {seeds} seeds each. "
                f"The target, {TARGET:g}, is 95 on the scale from random actions ({RANDOM:g}) to "
                f"the optimum ({OPTIMUM:g}, by dynamic programming): the machine sets it, not the "
                f"runs. The first {scale.wait} steps are taken before the first update.",
            )
            + page.picture(
                result.figures["returns"], "The table above; whiskers are 95% intervals."
            ),
        ),
        (
            "The log",
            page.picture(result.figures["log"], "What headwater data describe draws.")
            + page.table([], result.description.rows()),
        ),
        (
            "The same by hand",
            page.text("The log is made by headwater demo itself. From there on:")
            + page.commands("\n\n".join(commands(out, scale))),
        ),
    ]
    page.write_page(result.page, "Headwater: what a log is worth", sections)


def sentence(result: Demonstration) -> str:
    """The result of the demo for people."""
    found = result.savings
    if not found.with_log.reached.any() and not found.without_log.reached.any():
        return f"{found.sentence[0].upper()}{found.sentence[1:]}."
    text = f"The adapted policy {found.sentence}."
    if result.dip is not None:
        steps, level = result.dip
        text += (
            f" Before it improves on what was learned offline it gets worse: {level:.3g} after "
            f"{steps:,} new samples."
        )
    return text


def _fine_print(scale: Scale) -> str:
    return (
        f"The log: mean over its episodes. Others: interquartile mean over {scale.seeds} seeds of "
        f"the mean return over {scale.final_episodes} episodes. In brackets: 95% bootstrap "
        f"intervals, which are too narrow with so few seeds. The optimum is {OPTIMUM:g} on the new "
        f"machine and {Pendulum.reference_returns[1]:g} on the old one."
    )


def commands(out: Path, scale: Scale) -> list[str]:
    """The commands that make the runs of the demo again, under other names."""
    rate = f"{scale.online_learning_rate:g}"
    online = (
        f"--env pendulum --env-option mass={MASS:g} --steps {scale.steps} "
        f"--batch-size {scale.online_batch_size} --evaluations {scale.evaluations} "
        f"--set critic_learning_rate={rate} --set actor_learning_rate={rate} "
        f"--set num_critics={scale.num_critics}"
    )
    return [
        f"headwater data describe {out}/log.parquet",
        f"headwater train IQL --data {out}/log.parquet --seeds {scale.seeds} "
        f"--updates {scale.updates} --batch-size {scale.batch_size} --evaluations 4 "
        f"--episodes {scale.episodes} --set hidden_sizes={scale.width},{scale.width} "
        f"--set learning_rate={scale.learning_rate:g} --out offline",
        f"headwater evaluate offline --env pendulum --env-option mass={MASS:g}",
        f"headwater adapt offline {online} --keep-data {scale.keep_data:g} "
        f"--critic-fit-updates {scale.critic_fit_updates} --warm-up-steps {scale.wait} "
        "--out adapted",
        f"headwater adapt offline {online} --recipe scratch --random-steps {scale.wait} "
        "--out scratch",
        f"headwater compare adapted scratch --target {TARGET:g}",
    ]
