"""What every method must do: state, ways to run, settings, data."""

import dataclasses
import tempfile
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.fields import choices_of
from headwater.core.method import AbstractMethod
from headwater.core.records import AuxiliaryTransitions, Transitions
from headwater.core.spaces import Spaces
from headwater.runs import checkpoint
from headwater.runs.checkpoint import Position
from headwater.testing.checks.case import TOGETHER, UPDATES, Case, jit
from headwater.testing.checks.comparing import (
    assert_close,
    names,
    numbers,
    same,
    swept,
    with_setting,
)
from headwater.testing.kinds.kind import ROWS, TERMINAL, TRUNCATED

# State ------------------------------------------------------------------------------------------


def check_state_holds_arrays_only(case: Case) -> None:
    """A Python number in the state would be a constant of the compiled program."""
    for tree in case.shapes[:2]:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            where = jax.tree_util.keystr(path)
            assert isinstance(leaf, jax.ShapeDtypeStruct), f"state{where} is no array: {leaf!r}"
            assert leaf.dtype != np.float64, f"state{where} is float64"


def check_update_keeps_the_structure(case: Case) -> None:
    """Same tree, shapes and types before and after; metrics are floating-point scalars."""
    before, after, metrics = case.shapes
    assert jax.tree.structure(before) == jax.tree.structure(after), "update changes the tree"
    for name, old, new in zip(names(before), jax.tree.leaves(before), jax.tree.leaves(after)):
        assert (old.shape, old.dtype) == (new.shape, new.dtype), (
            f"state{name}: {old.dtype}{old.shape} becomes {new.dtype}{new.shape}"
        )
    assert metrics, "update logs nothing"
    for name, metric in metrics.items():
        assert metric.shape == () and jnp.issubdtype(metric.dtype, jnp.floating), (
            f"metric {name} is {metric.dtype}{metric.shape}, not a floating-point scalar"
        )


def check_second_call_does_not_retrace(case: Case) -> None:
    """One program serves every update."""
    state = case.init(case.method, case.key)
    for data in case.batches:
        state, _ = case.update(case.method, state, data, case.key)
    assert case.traces == 1, f"update was traced {case.traces} times for the same shapes"


def check_tracing_is_reproducible(case: Case) -> None:
    """Two traces give one program: no NumPy randomness, clock or counter inside."""
    arguments = (case.method, case.first, case.batches[0], case.key)
    again = jit(lambda *a: case.method_update(*a))
    # The first line of a program is its name.
    first, second = (
        program.lower(*arguments).as_text().split("\n", 1)[1] for program in (case.update, again)
    )
    assert first == second, "tracing update twice gives two programs"


# Equivalent ways to run -------------------------------------------------------------------------


def check_same_key_gives_the_same_result(case: Case) -> None:
    """To the bit, metrics included."""
    assert same(case.run(case.method, case.key), case.run(case.method, case.key))


def check_scan_equals_loop(case: Case) -> None:
    """A compiled run is the Python loop."""
    first, last, metrics, _ = case.alike[0]
    state, at_the_end = case.run(case.method, case.key)
    assert_close(first, case.first, "first state")
    assert_close(last, state, "state")
    assert_close(jax.tree.map(lambda x: x[-1], metrics), at_the_end, "metrics")


def check_vmap_equals_separate_runs(case: Case) -> None:
    """Over seeds and over every number at once."""
    scales = (1.0, 0.95, 0.9)
    methods = [
        jax.tree.map(lambda x, s=s: x * s if isinstance(x, float) else x, case.method)
        for s in scales
    ]
    keys = [jax.random.fold_in(case.key, i) for i in range(len(methods))]
    runs = case.experiences(methods, keys)
    for i, (method, key, (_, last, metrics, _)) in enumerate(zip(methods, keys, runs)):
        at_the_end = jax.tree.map(lambda x: x[-1], metrics)
        assert_close((last, at_the_end), case.run(method, key), f"run {i}")


def check_checkpoint_continues_exactly(case: Case) -> None:
    """Save, load, continue: the bits of an uninterrupted run."""
    state = case.init(case.method, case.key)
    state, _ = case.update(case.method, state, case.batches[0], case.key)
    with tempfile.TemporaryDirectory() as folder:
        flat = {"method": checkpoint.flatten(state)}
        path = checkpoint.save(Path(folder), Position(0, "s", 1), flat)
        read = checkpoint.read(path)["method"]
    loaded = checkpoint.restore(case.shapes[0], read, "the checkpoint")
    assert same(state, loaded), "what was loaded is not what was saved"
    uninterrupted = case.update(case.method, state, case.batches[1], case.key)
    assert same(uninterrupted, case.update(case.method, loaded, case.batches[1], case.key))


# Settings ---------------------------------------------------------------------------------------


def check_every_number_matters(cases: Sequence[Case]) -> None:
    """A setting that changes nothing, however far it is turned and on whatever data, is dead."""
    dead = set(swept(cases[0].method))
    for case in cases:
        for name in dead:
            value = getattr(case.method, name)
            tried = [value * c for c in (0.5, 2.0, 1e-6, 1e-3, 1e3)] + [0.0, 1.0, -1.0, 10.0, 1e-3]
            if isinstance(value, int):
                tried = [1, 2, 3, 5, value + 1]
            tried = [x for x in tried if x != value and np.isfinite(x)]
            if any(
                _changes(case, name, tried[i : i + TOGETHER])
                for i in range(0, len(tried), TOGETHER)
            ):
                dead = dead - {name}
    assert not dead, f"no change within {UPDATES} updates: {', '.join(sorted(dead))}"


def _changes(case: Case, name: str, values: Sequence[float | int]) -> bool:
    """Whether any of these values of a setting, `TOGETHER` at most, changes a run."""
    filled = [*values, *[values[-1]] * (TOGETHER - len(values))]
    methods = [with_setting(case.method, name, x) for x in filled]
    found = case.experiences(methods, [case.key] * TOGETHER)
    # Each beside its own: places of a batch may round differently.
    return not all(same(x, y) for x, y in zip(found, case.alike))


def check_floats_can_be_swept(case: Case) -> None:
    """A static float could be neither swept nor traced."""
    for field in dataclasses.fields(case.method):
        static = field.metadata.get("static", False)
        value = getattr(case.method, field.name)
        assert not (static and isinstance(value, float)), f"{field.name} is static"


def check_every_option_traces(case: Case) -> None:
    """Each other value of a flag or choice gives a method that can be initialised and updated."""
    cls = type(case.method)
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        value, hint = getattr(case.method, field.name), hints[field.name]
        options = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        for option in (not value,) if isinstance(value, bool) else options:
            if option == value:
                continue
            try:
                method = dataclasses.replace(case.method, **{field.name: option})
                state = eqx.filter_eval_shape(method.init, case.kind.problem, key=case.key)
                eqx.filter_eval_shape(method.update, state, case.batches[0], key=case.key)
            except SpecificationError as error:
                assert field.name in str(error) or cls.__name__ in str(error), error


def check_misspelt_choices_are_refused(case: Case) -> str | None:
    """Every option that is a word is misspelt: it must be refused, with the word that is nearest.

    Otherwise a typing error quietly runs another algorithm.
    """
    method, cls = case.method, type(case.method)
    words = {field.name: choices_of(cls, field.name) for field in dataclasses.fields(cls)}
    for name in words:
        value = getattr(method, name)
        if isinstance(value, str) and value not in words[name]:
            words[name] += (value,)
    checked = jaxtyping.config.jaxtyping_disable
    # As users have it: where annotations are checked, they refuse before Headwater looks.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        for name, known in words.items():
            for word in known:
                _check_refusal(method, name, word)
    finally:
        jaxtyping.config.update("jaxtyping_disable", checked)
    return None if any(words.values()) else "no option is a word"


def _check_refusal(method: AbstractMethod, name: str, word: str) -> None:
    wrong, where = misspelt(word), f"{type(method).__name__}.{name}"
    try:
        dataclasses.replace(method, **{name: wrong})
    except SpecificationError as error:
        message = str(error)
        assert where in message and word in message, (
            f"{name} = {wrong!r} is refused without naming {where} and {word!r}: {message}"
        )
    else:
        raise AssertionError(
            f"{name} = {wrong!r} is taken, though it only looks like {word!r}: give the field a "
            "Literal and `choice`"
        )


def misspelt(word: str) -> str:
    """`word` with its last two letters the other way round, or one more where they are alike."""
    turned = word[:-2] + word[:-3:-1]
    return word + word[-1] if turned == word else turned


# Data -------------------------------------------------------------------------------------------


def check_finite_on_hard_inputs(case: Case) -> None:
    """Degenerate but legal batches leave state and metrics finite."""
    for name, change in case.kind.hard.items():
        results = case.run(case.method, case.key, [change(b) for b in case.batches[:3]])
        for where, array in zip(names(results), numbers(results)):
            if np.issubdtype(array.dtype, np.floating):
                assert np.all(np.isfinite(array)), f"{name}: {where} is not finite"


def check_terminal_rows_ignore_the_next_observation(case: Case) -> None:
    """Nothing follows the end of a process: not even a NaN there may reach the learner."""
    reference = case.changed(lambda data: _marked(data, TERMINAL))
    for what, value in (("another one", 7.5), ("a NaN", jnp.nan)):
        edited = case.changed(lambda data, v=value: _next_observation(data, TERMINAL, v))
        assert same(edited, reference), f"{what} behind a terminal row changes the update"


def check_truncated_rows_bootstrap(case: Case) -> str | None:
    """Where the next observation counts at all, it counts behind a truncated row too."""
    reference = case.changed(lambda data: _marked(data, TRUNCATED))
    ordinary = slice(TRUNCATED.stop, None)
    unmarked = case.changed(lambda data: _marked(data, ordinary))
    if same(case.changed(lambda data: _next_observation(data, ordinary, 7.5)), unmarked):
        return "the update never looks at the next observation"
    edited = case.changed(lambda data: _next_observation(data, TRUNCATED, 7.5))
    assert not same(edited, reference), "a truncated row is treated as terminal"


def check_rewards_are_read_as_declared(case: Case) -> None:
    """`Info.rewards` says whether anything depends on the rewards of the data."""

    def other(data: Any) -> Any:
        def edited(x):
            return None if x is None else 2.0 * x + jnp.linspace(-1.0, 2.0, x.size).reshape(x.shape)

        edits = {"reward": edited(data.reward)}
        if isinstance(data, Transitions):
            edits["return_to_go"] = edited(data.return_to_go)
        if isinstance(data, AuxiliaryTransitions):
            edits["auxiliary"] = edited(data.auxiliary)
        return dataclasses.replace(data, **edits)

    unread = same(case.changed(other), case.changed(lambda data: data))
    assert unread is not case.method.info.rewards, "Info.rewards says otherwise"


def check_row_order_is_irrelevant(case: Case) -> str | None:
    """A batch is a set, unless each row has randomness of its own."""
    if not case.kind.flat:
        return "the rows of this kind of data are ordered"
    data, other = case.batches[0], jax.random.fold_in(case.key, 99)
    one = case.update(case.method, case.first, data, case.key)
    if not same(one, case.update(case.method, case.first, data, other)):
        return "the update draws random numbers for each row"
    order = np.random.default_rng(0).permutation(ROWS)
    permuted = jax.tree.map(lambda x: x[order], data)
    assert_close(case.update(case.method, case.first, permuted, case.key), one, "permuted")


def check_missing_columns_are_explained(case: Case) -> None:
    """Without statistics and logged-only columns a method works, or says in words what it needs."""
    problem = _without_statistics(case.kind.problem)
    state = eqx.filter_eval_shape(case.method.init, problem, key=case.key)
    data = case.batches[0]
    if isinstance(data, Transitions):
        data = dataclasses.replace(data, next_action=None, return_to_go=None, whole_log=None)
    try:
        eqx.filter_eval_shape(case.method.update, state, data, key=case.key)
    except (SpecificationError, DataError) as error:
        missing = ("next_action", "return_to_go", "next action", "return", "whole_log")
        assert any(word in str(error) for word in missing), error


def _without_statistics(problem: Spaces) -> Spaces:
    """The same problem when nothing was logged."""
    return Spaces(problem.observation, problem.action, problem.horizon)


def _marked(data: Any, rows: slice) -> Any:
    """The data in which `rows` are what they are called: a single step is made what is asked for.

    **Arguments:** `rows`: `TERMINAL`, `TRUNCATED`, or others, which are neither.
    """
    if isinstance(data, Transitions | AuxiliaryTransitions):
        return data
    return dataclasses.replace(
        data,
        terminal=jnp.asarray(rows == TERMINAL),
        truncated=jnp.asarray(rows == TRUNCATED),
    )


def _next_observation(data: Any, rows: slice, value: float) -> Any:
    data = _marked(data, rows)
    at = rows if isinstance(data, Transitions | AuxiliaryTransitions) else slice(None)
    return dataclasses.replace(data, next_observation=data.next_observation.at[at].set(value))
