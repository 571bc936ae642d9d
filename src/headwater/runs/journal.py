"""What a run writes down: metrics, evaluations, checkpoints, and why it was stopped."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from headwater.core.errors import Diverged, RunError
from headwater.core.method import AbstractMethod
from headwater.core.source import AbstractHostSource
from headwater.runs import checkpoint
from headwater.runs.checkpoint import Position
from headwater.runs.directory import RunDirectory
from headwater.runs.layout import Place
from headwater.runs.progress import Progress
from headwater.runs.stage import Outcomes
from headwater.runs.trackers.tracker import (
    AbstractTracker,
    numbers_of_evaluation,
    numbers_of_metrics,
)

Evaluate = Callable[[AbstractMethod, Any, PRNGKeyArray], np.ndarray]
"""`(method, states with a leading seed axis, key)` to returns `[seed, episode]`."""

_DIVERGED = 1e12
_REMEDY = (
    "Look at the scale of the rewards, at actions at their bounds, and at terminal flags; a "
    "smaller learning rate often helps."
)


class Journal:
    """What a run writes down, in memory and, if there is a directory, in its files."""

    def __init__(
        self,
        directory: RunDirectory | None,
        progress: Progress,
        keep: bool,
        trackers: Sequence[AbstractTracker] = (),
        seeds: Sequence[int] = (),
    ):
        self.directory = directory
        self.trackers, self.seeds = list(trackers), list(seeds)
        self.progress = progress
        self.keep = keep
        self.metrics: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []

    def resume(self) -> Position | None:
        """The newest checkpoint that can be read; logs are cut back to it."""
        if self.directory is None:
            return None
        newest = None
        for position in reversed(checkpoint.find(self.directory.checkpoints)):
            path = checkpoint.path_of(self.directory.checkpoints, position)
            try:
                checkpoint.read(path)
            except RunError as error:
                print(f"{error}; going back to the one before", file=sys.stderr)
                path.unlink(missing_ok=True)
                continue
            newest = position
            break
        self.directory.rewind(newest or Position(0, "", -1))
        self.metrics = self.directory.rows("metrics")
        self.evaluations = self.directory.rows("evaluations")
        for row in self.metrics:
            self._track_metrics(row)
        for row in self.evaluations:
            self._track_evaluation(row)
        return newest

    def load_method(self, place: Place, update: int, outcomes: Outcomes) -> Any:
        """The method's state at a checkpoint."""
        return self._read(place, update, outcomes)[0]

    def load(self, place: Place, update: int, outcomes: Outcomes) -> tuple[Any, Any]:
        """The method's and the source's state at a checkpoint."""
        state, parts, where = self._read(place, update, outcomes)
        source = place.stage.source
        if "source" not in parts:
            raise RunError(f"{where}: it does not say how far the data were drawn")
        if isinstance(source, AbstractHostSource):
            return state, source.load(parts["source"], keys=place.source_keys)
        template = place.source_shapes(state)
        return state, checkpoint.restore(template, parts["source"], where)

    def load_best(self, place: Place, update: int, outcomes: Outcomes) -> Any:
        """The method's state at the best evaluation before a checkpoint."""
        state, parts, where = self._read(place, update, outcomes)
        if "best" not in parts:
            raise RunError(
                f"{where}: what was best so far is not in it, so the run was begun in another way: "
                "begin a new run"
            )
        return checkpoint.restore(state, parts["best"], where)

    def evaluations_of(self, place: Place) -> list[dict[str, Any]]:
        """The rows of evaluations of one stage."""
        return [row for row in self.evaluations if row["stage_index"] == place.index]

    def save(
        self, place: Place, update: int, state: Any, source_state: Any, best: Any = None
    ) -> None:
        """Writes a checkpoint; a finished stage needs no source any more, unless it is kept.

        **Arguments:** `best`: the state at the best evaluation so far, if that is kept.
        """
        if self.directory is None:
            return
        parts = {"method": checkpoint.flatten(state)}
        if best is not None and update < place.stage.updates:
            parts["best"] = checkpoint.flatten(best)
        if update < place.stage.updates or self.keep:
            source = place.stage.source
            if isinstance(source, AbstractHostSource):
                parts["source"] = source.save(source_state)
            else:
                parts["source"] = checkpoint.flatten(source_state)
        checkpoint.save(self.directory.checkpoints, place.position(update), parts)

    def check(self, place: Place, update: int, sums: Any, count: int) -> None:
        """Raises `Diverged` if a metric is not finite or out of all proportion."""
        for name, values in sums.items():
            mean = np.asarray(values) / max(count, 1)
            wrong = ~np.isfinite(mean) | (np.abs(mean) > _DIVERGED)
            if np.any(wrong):
                raise self._diverged(place, update, f"{name} = {mean[wrong][0]:.3g}", wrong)

    def check_state(self, place: Place, update: int, state: Any, healthy: Any) -> None:
        """Raises `Diverged` if an array of the state that was finite is so no longer.

        What a method keeps infinite from the beginning, such as bounds not yet known, may stay so.
        """
        lost = jax.tree.map(
            lambda before, now: np.asarray(before & ~now), healthy, finite_leaves(state)
        )
        for path, wrong in jax.tree_util.tree_leaves_with_path(lost):
            if np.any(wrong):
                learned = jax.tree_util.keystr(path).lstrip(".")
                what = f"what it learned ({learned}) is not finite any more"
                raise self._diverged(place, update, what, wrong)

    def _diverged(self, place: Place, update: int, what: str, wrong: np.ndarray) -> Diverged:
        seeds = ", ".join(str(s) for s, bad in zip(place.seeds, wrong) if np.any(bad))
        return Diverged(
            f"stage '{place.stage.name}' diverged by update {update}: {what} for seed {seeds}. "
            f"{self._last_good()} {_REMEDY}"
        )

    def logged(self, place: Place, update, steps, sums, count, seconds) -> None:
        """Adds a row of metrics, each the mean over the updates since the last row."""
        row = {
            **place.where(update),
            "environment_steps": steps,
            "updates_per_second": round(count / max(seconds, 1e-9), 2),
            "metrics": {
                name: (np.asarray(values, np.float64) / count).tolist()
                for name, values in sums.items()
            },
        }
        self.metrics.append(row)
        self._track_metrics(row)
        if self.directory is not None:
            self.directory.append("metrics", [row])

    def evaluated(self, place: Place, update, steps, evaluate: Evaluate, method, state) -> None:
        """Evaluates and adds one row of raw returns per seed."""
        key = jax.random.fold_in(place.evaluation_key, update)
        returns = np.asarray(evaluate(method, state, key), np.float64)
        if not np.isfinite(returns).all():
            raise Diverged(
                f"stage '{place.stage.name}': an evaluation at update {update} gave a return that "
                f"is not finite. {self._last_good()} {_REMEDY}"
            )
        rows = [
            {
                **place.where(update),
                "environment_steps": steps,
                "seed": s,
                "returns": [round(float(x), 6) for x in each],
            }
            for s, each in zip(place.seeds, returns)
        ]
        self.evaluations.extend(rows)
        for row in rows:
            self._track_evaluation(row)
        if self.directory is not None:
            self.directory.append("evaluations", rows)
            if self.keep:
                parts = {"method": checkpoint.flatten(state)}
                checkpoint.save(self.directory.snapshots, place.position(update), parts, kept=None)
        self.progress.note(f"{place.stage.name} {update:,}: mean return {returns.mean():,.4g}")

    def close(self) -> None:
        """Ends what shows the run and what tracks it."""
        self.progress.stop()
        for tracker in self.trackers:
            tracker.close()

    def _track_metrics(self, row: dict[str, Any]) -> None:
        for tracker in self.trackers:
            for seed, numbers in numbers_of_metrics(row, self.seeds):
                tracker.log(numbers, seed=seed, update=row["update"])

    def _track_evaluation(self, row: dict[str, Any]) -> None:
        for tracker in self.trackers:
            tracker.log(numbers_of_evaluation(row), seed=row["seed"], update=row["update"])

    def _read(self, place: Place, update: int, outcomes: Outcomes):
        assert self.directory is not None
        path = checkpoint.path_of(self.directory.checkpoints, place.position(update))
        parts = checkpoint.read(path)
        template = place.first_shapes(outcomes)
        return checkpoint.restore(template, parts["method"], str(path)), parts, str(path)

    def _last_good(self) -> str:
        if self.directory is None:
            return "Nothing was saved, since the run has no directory."
        found = checkpoint.find(self.directory.checkpoints)
        if not found:
            return "There is no checkpoint before that."
        path = checkpoint.path_of(self.directory.checkpoints, found[-1])
        return f"The last good checkpoint is {path}."


@eqx.filter_jit
def finite_leaves(state):
    """Whether each array of numbers is finite, for each seed."""

    def finite(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.ones(leaf.shape[0], bool)
        return jnp.all(jnp.isfinite(leaf.reshape(leaf.shape[0], -1)), axis=1)

    return jax.tree.map(finite, state)
