"""One episode of a policy: followed step by step, drawn over time, and as moving pictures."""

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, UInt8

from headwater.core.errors import HeadwaterError, SpecificationError
from headwater.core.method import AbstractMethod, AbstractPolicy
from headwater.core.spaces import Discrete
from headwater.environments.adapters.gymnasium_task import GymnasiumEnvironments, GymnasiumTask
from headwater.environments.environment import (
    AbstractDrawable,
    AbstractEnvironment,
    AbstractHostTask,
    Sketch,
)
from headwater.reports import style
from headwater.runs.files import write_atomically

_FRAMES = 48
"""At most so many pictures of an episode, evenly apart."""
_STRIP = 6
_PIXELS = 240
_MOST_COMPONENTS = 8
"""Actions with more components are drawn as an image, a row for each."""


class Episode(NamedTuple):
    """An episode from its first step to its last.

    **Arguments:** `action`: in the user's units, `[step, component]`, or numbers of actions
    `[step]`; `reward`: `[step]`; `end`: how it ended; `shown`: the step of each frame; `frames`:
    pictures `[frame, row, column, colour]`, or `None` where the task cannot be drawn, for the
    reason `not_drawn`; `discrete`: what actions are.
    """

    action: np.ndarray
    reward: Float[np.ndarray, " step"]
    end: str
    shown: list[int]
    frames: UInt8[np.ndarray, "frame row column colour"] | None
    not_drawn: str
    discrete: bool

    @property
    def total(self) -> float:
        """Its undiscounted return."""
        return float(self.reward.sum())


def follow_episode(
    method: AbstractMethod | AbstractPolicy,
    state: Any,
    task: AbstractEnvironment | AbstractHostTask,
    *,
    key: PRNGKeyArray,
) -> Episode:
    """Acts greedily in `task` for one episode.

    **Arguments:** `state`: of one seed; `key`: of the episode.

    Raises `SpecificationError` if the method cannot act or the task has no time limit.
    """
    if not isinstance(method, AbstractPolicy):
        raise SpecificationError(f"{type(method).__name__} is not a policy: it cannot act")
    horizon = task.spaces.horizon
    if horizon is None:
        raise SpecificationError(f"{task.name} has no time limit: its episode may never end")
    space = task.spaces.action
    if isinstance(task, AbstractEnvironment):
        states, action, reward, terminal, over = _walk(method, state, task, horizon, key)
        length = int(np.argmax(over)) + 1 if np.any(over) else horizon
        shown, frames = _evenly(length), None
        if isinstance(task, AbstractDrawable):
            picked = jax.tree.map(lambda leaf: leaf[np.asarray(shown)], states)
            frames = _drawn(jax.vmap(task.sketch)(picked), task.view)
        reason = "" if frames is not None else f"{task.name} has no drawing of itself"
        rows = slice(length)
        end = "terminal" if bool(terminal[length - 1]) else "truncated by the time limit"
    else:
        action, reward, ended, pictures, reason = _walk_host(method, state, task, horizon, key)
        shown = _evenly(len(reward))
        frames = np.stack([pictures[t] for t in shown]) if pictures else None
        rows = slice(len(reward))
        end = "terminal" if ended else "truncated by the time limit"
    return Episode(
        np.asarray(space.from_canonical(np.asarray(action)[rows])),
        np.asarray(reward, np.float64)[rows],
        end,
        shown,
        frames,
        reason,
        isinstance(space, Discrete),
    )


def draw_episode(episode: Episode, path: str | Path, *, title: str = "") -> None:
    """Writes a PNG: pictures from the beginning to the end, then rewards and actions over time."""
    pictures = episode.frames is not None
    figure = style.new_figure(7.4, 4.6 if pictures else 3.2)
    heights = [1.5, 1.0, 1.0] if pictures else [1.0, 1.0]
    grid = figure.add_gridspec(len(heights), _STRIP, height_ratios=heights)
    if episode.frames is not None:
        picks = np.linspace(0, len(episode.shown) - 1, _STRIP).round().astype(int)
        for column, pick in enumerate(picks):
            axis = figure.add_subplot(grid[0, column])
            axis.imshow(episode.frames[pick])
            axis.set_xticks([])
            axis.set_yticks([])
            for side in axis.spines.values():
                side.set_color(style.FRAME)
            axis.set_title(f"step {episode.shown[pick]:,}", fontsize=style.NOTE, color=style.FAINT)
    first = len(heights) - 2
    rewards = figure.add_subplot(grid[first, :])
    steps = np.arange(episode.reward.size)
    rewards.plot(steps, episode.reward, linewidth=1.4, color=style.COLOURS[0])
    style.format_axis(rewards, across="", up="reward")
    rewards.tick_params(labelbottom=False)
    actions = figure.add_subplot(grid[first + 1, :], sharex=rewards)
    _draw_actions(actions, steps, episode)
    style.shorten_ticks(rewards.yaxis, actions.xaxis)
    rewards.set_xlim(0, max(episode.reward.size - 1, 1))
    style.head(
        figure,
        title,
        f"one episode of {episode.reward.size:,} steps, {episode.end}; return "
        f"{style.short_number(float(f'{episode.total:.4g}'))}",
    )
    style.save(figure, path)


def animate_episode(episode: Episode, path: str | Path, *, seconds: float = 6.0) -> bool:
    """Writes a GIF of the episode that is repeated for ever; whether there was anything to show.

    **Arguments:** `seconds`: that one repetition takes.
    """
    if episode.frames is None:
        return False
    from PIL import Image

    pictures = [
        Image.fromarray(frame).convert("P", dither=Image.Dither.NONE) for frame in episode.frames
    ]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=max(20, round(1000.0 * seconds / len(pictures))),
        loop=0,
    )
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(buffer.getvalue()))
    return True


@eqx.filter_jit
def _walk(method, state, environment, horizon, key):
    start_key, walk_key = jax.random.split(key)
    start, observation = environment.reset(key=start_key)

    def one(at, t):
        state_before, observation = at
        act_key, step_key = jax.random.split(jax.random.fold_in(walk_key, t))
        action = method.act(state, observation, key=act_key, explore=False)[0]
        reached, step = environment.step(state_before, action, key=step_key)
        over = step.terminal | step.truncated
        row = (state_before, action, step.reward, step.terminal, over)
        return (reached, step.observation), row

    return jax.lax.scan(one, (start, observation), jnp.arange(horizon))[1]


@eqx.filter_jit
def _act(method, state, observation, key):
    return method.act(state, observation, key=key, explore=False)[0]


def _walk_host(method, state, task: AbstractHostTask, horizon: int, key):
    """Actions, rewards, whether it ended by itself, pictures, and why there are none."""
    simulator, environments, reason = None, None, f"{task.name} has no drawing of itself"
    if isinstance(task, GymnasiumTask):
        try:
            simulator = task.simulator(render_mode="rgb_array")
            environments, reason = GymnasiumEnvironments([simulator], task.name), ""
        except HeadwaterError as error:
            reason = str(error)
    environments = environments or task.open(1)
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    actions, rewards, pictures, ended = [], [], [], False
    try:
        observation = environments.reset(np.asarray([seed], np.int64))
        for t in range(horizon):
            if simulator is not None:
                try:
                    with _without_display():
                        pictures.append(_small(simulator.render()))
                # Whatever a driver raises: without a display, pictures are what is missing.
                except Exception as error:
                    simulator, pictures = None, []
                    reason = f"{task.name} cannot be drawn here ({type(error).__name__})"
            action = np.asarray(_act(method, state, observation[0], jax.random.fold_in(key, t)))
            step = environments.step(action[None])
            actions.append(action)
            rewards.append(float(step.reward[0]))
            observation, ended = step.observation, bool(step.terminal[0])
            if ended or step.truncated[0]:
                break
    finally:
        environments.close()
    return np.stack(actions), np.asarray(rewards), ended, pictures, reason


@contextlib.contextmanager
def _without_display():
    """Where there is no display, MuJoCo complains of it at length unless it is told not to ask."""
    has_display = any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"))
    if has_display or sys.platform != "linux":
        yield
        return
    os.environ["MUJOCO_GL"] = "egl"
    try:
        yield
    finally:
        del os.environ["MUJOCO_GL"]


def _small(picture: Any) -> np.ndarray:
    """A picture with about as many pixels as are shown of it."""
    picture = np.asarray(picture, np.uint8)
    every = max(1, min(picture.shape[:2]) // _PIXELS)
    return picture[::every, ::every, :3]


def _evenly(length: int) -> list[int]:
    return sorted(
        set(np.linspace(0, length - 1, min(length, _FRAMES)).round().astype(int).tolist())
    )


def _drawn(sketches: Sketch, view: tuple[float, float, float, float]) -> np.ndarray:
    """Pictures of sketches with a leading frame axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    left, right, low, high = view
    size = np.asarray([right - left, high - low]) / max(right - left, high - low)
    figure = Figure(figsize=tuple(size * _PIXELS / 100.0), dpi=100, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    pictures = []
    lines, discs, rings = (np.asarray(part) for part in sketches)
    for frame in range(len(lines)):
        figure.clear()
        axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axis.set_axis_off()
        axis.set_xlim(left, right)
        axis.set_ylim(low, high)
        axis.set_aspect("equal")
        for x, y, radius in rings[frame]:
            axis.add_patch(Circle((x, y), radius, fill=False, color=style.COLOURS[1], linewidth=2))
        axis.add_collection(LineCollection(list(lines[frame]), colors=style.INK, linewidths=2.5))
        for x, y, radius in discs[frame]:
            axis.add_patch(Circle((x, y), radius, color=style.COLOURS[0], zorder=3))
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return np.stack(pictures)


def _draw_actions(axis, steps: np.ndarray, episode: Episode) -> None:
    action = episode.action
    if episode.discrete:
        axis.step(steps, action, where="post", linewidth=1.2, color=style.COLOURS[1])
        style.format_axis(axis, across="step", up="action")
        return
    if action.shape[1] > _MOST_COMPONENTS:
        image = axis.imshow(
            action.T, aspect="auto", interpolation="nearest", cmap="RdBu_r", origin="lower"
        )
        axis.figure.colorbar(image, ax=axis, pad=0.01)
        style.format_axis(axis, across="step", up="component", grid="x")
        axis.grid(False)
        return
    for index, component in enumerate(action.T):
        axis.plot(steps, component, linewidth=1.1, **style.look(index))
    style.format_axis(axis, across="step", up="action")
