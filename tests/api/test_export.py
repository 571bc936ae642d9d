"""What is exported acts as the policy does, in the user's units, and needs nothing of Headwater."""

import json
import runpy
import sys
from typing import ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from safetensors import safe_open

import headwater
from headwater.api.run import Policy, Run
from headwater.api.specifications.choices import MethodChoice
from headwater.api.specifications.specification import Specification
from headwater.core.catalogue import all_methods, build_method, settings
from headwater.core.errors import RunError, SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import AbstractMethod, AbstractPolicy, Info
from headwater.core.spaces import Box, Discrete, Spaces, Statistics
from headwater.datasets.dataset import Dataset
from headwater.exports.onnx_graph import onnx_model
from headwater.runs.checkpoint import flatten
from headwater.runs.options import Options

LOW, HIGH = [-2.0, 0.0], [2.0, 5.0]
"""Bounds of the actions: neither ±1 nor alike nor symmetric."""
MEAN, STD = [0.0, 5.0, 2.0], [1.0, 10.0, 0.1]
"""Scale of the observations."""
ACTIONS = 4


def observations(rows: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, 3))
    return (drawn * STD + MEAN).astype(np.float32)


def logged(discrete: bool) -> Dataset:
    draw = np.random.default_rng(1)
    ends = np.arange(60) % 20 == 19
    observed, rewards = observations(60), draw.normal(size=60)
    if discrete:
        chosen = draw.integers(0, ACTIONS, size=60)
        return Dataset.from_arrays(observed, chosen, rewards, ends, action_count=ACTIONS)
    chosen = draw.uniform(LOW, HIGH, size=(60, 2)).astype(np.float32)
    return Dataset.from_arrays(observed, chosen, rewards, ends, action_low=LOW, action_high=HIGH)


def trained(method: str, discrete: bool, **fields) -> Run:
    chosen = build_method(method, {"hidden_sizes": (8, 8), **fields})
    return headwater.train(
        chosen, logged(discrete), env="none", updates=5, seeds=2, batch_size=16, progress=False
    )


@pytest.fixture(scope="module")
def iql() -> Run:
    return trained("IQL", False)


def spaces(discrete: bool) -> Spaces:
    action = Discrete(ACTIONS) if discrete else Box(tuple(LOW), tuple(HIGH))
    statistics = Statistics(
        jnp.asarray(MEAN, jnp.float32),
        jnp.asarray(STD, jnp.float32),
        return_low=jnp.float32(-1.0),
        return_high=jnp.float32(3.0),
        reward_mean=jnp.float32(0.5),
        reward_std=jnp.float32(2.0),
        terminal_share=jnp.float32(0.05),
        return_to_go_mean=jnp.float32(1.0),
    )
    return Spaces(Box((-np.inf,) * 3, (np.inf,) * 3), action, 20, statistics)


def untrained(method: AbstractMethod, discrete: bool, seeds: tuple[int, ...] = (0, 1)) -> Run:
    """A run of no updates, without compiling any."""
    problem = spaces(discrete)
    keys = jax.random.split(jax.random.key(3), len(seeds))
    state = jax.vmap(lambda key: method.init(problem, key=key))(keys)
    options = Options(seeds=tuple(seeds), batch_size=16, updates=1)
    specification = Specification("train", MethodChoice.of(method), options)
    return Run(specification, method, state, problem, [], [])


def run_onnx(path, observed: np.ndarray) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["observation"]
    assert [node.name for node in session.get_outputs()] == ["action"]
    (action,) = session.run(["action"], {"observation": observed})
    return action


def run_stablehlo(path, observed: np.ndarray) -> np.ndarray:
    return np.asarray(jax_export.deserialize(bytearray(path.read_bytes())).call(observed))


RUNNERS = {"onnx": run_onnx, "stablehlo": run_stablehlo}


def require(format: str) -> None:
    pytest.importorskip("onnx" if format == "onnx" else "flatbuffers")


def check_equal(run: Run, path, format: str, seed: int) -> None:
    """What was exported acts like the policy, for one observation and for several."""
    policy = run.policies[run.specification.seeds.index(seed)]
    for rows in (1, 7):
        observed = observations(rows, seed=rows)
        action, expected = RUNNERS[format](path, observed), policy(observed)
        assert action.shape == expected.shape
        if run.spaces.discrete:
            assert action.dtype == np.int32 and action.shape == (rows,)
            np.testing.assert_array_equal(action, expected)
        else:
            assert action.dtype == np.float32 and action.shape == (rows, 2)
            np.testing.assert_allclose(action, expected, rtol=2e-5, atol=2e-5)


TRAINED = {
    "BC": ("BC", False, {}),
    "BC, likelihood": ("BC", False, {"stochastic": True}),
    "BC, discrete": ("BC", True, {}),
    "TD3BC": ("TD3BC", False, {}),
    "DiscreteCQL": ("DiscreteCQL", True, {}),
}


@pytest.mark.parametrize("case", TRAINED)
def test_trained_policies_act_alike(case, tmp_path):
    name, discrete, fields = TRAINED[case]
    run = trained(name, discrete, **fields)
    for format in RUNNERS:
        require(format)
        path = headwater.export(run, tmp_path, format=format, seed=1)
        assert path == tmp_path / f"{name}-seed1.{format}"
        check_equal(run, path, format, seed=1)


def test_seeds_and_rows_differ(iql, tmp_path):
    # Otherwise the comparisons here could not fail.
    first, second = (policy(observations(7)) for policy in iql.policies)
    assert np.abs(first - second).max() > 1e-2
    assert np.ptp(first, axis=0).min() > 1e-2
    assert first[:, 1].min() > 1.0 and np.all(first >= LOW) and np.all(first <= HIGH)


@pytest.mark.parametrize("format", RUNNERS)
@pytest.mark.parametrize("seed", [0, 1])
def test_iql_acts_alike(iql, format, seed, tmp_path):
    require(format)
    path = headwater.export(iql, tmp_path / f"policy.{format}", format=format, seed=seed)
    check_equal(iql, path, format, seed)


SIZES = {
    "hidden_sizes": (8, 8),
    "planning_steps": 2,
    "num_plans": 4,
    "planning_rounds": 2,
    "num_particles": 1,
}
BEYOND = {"NetLLM": "gather", "PETS": "scan"}
"""Policies with an operation that our ONNX graphs do not hold: to look up, or to plan in loops."""
ACTING = [name for name, cls in all_methods().items() if issubclass(cls, AbstractPolicy)]


@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "discrete"])
@pytest.mark.parametrize("name", ACTING)
def test_every_method_that_acts_can_be_exported(name, discrete, tmp_path):
    known = settings(all_methods()[name]())
    small = {field: value for field, value in SIZES.items() if field in known}
    method = build_method(name, small)
    try:
        run = untrained(method, discrete)
    except SpecificationError as error:
        assert "needs" in str(error)
        pytest.skip("not defined for such actions")
    for format in RUNNERS:
        require(format)
        if name in BEYOND and format == "onnx":
            with pytest.raises(SpecificationError, match=f"'{BEYOND[name]}'.* is not translated"):
                headwater.export(run, tmp_path, format=format)
            continue
        check_equal(run, headwater.export(run, tmp_path, format=format), format, seed=0)


def test_a_policy_learned_online_acts_alike(tmp_path):
    run = headwater.train(
        build_method("SAC", {"hidden_sizes": (8, 8)}),
        env="pendulum",
        steps=20,
        random_steps=10,
        seeds=1,
        batch_size=8,
        evaluations=1,
        episodes=1,
        progress=False,
    )
    for format in RUNNERS:
        require(format)
        observed = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
        action = RUNNERS[format](headwater.export(run, tmp_path, format=format), observed)
        np.testing.assert_allclose(action, run.policy(observed), rtol=2e-5, atol=2e-5)
        assert np.abs(action).max() > 0.01


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "silu"])
@pytest.mark.parametrize("layer_norm", [None, "before", "after"])
def test_every_kind_of_layer_is_translated(activation, layer_norm):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from headwater.networks.mlp import MLP

    network = MLP(3, 2, (8, 8), key=jax.random.key(4), activation=activation, layer_norm=layer_norm)
    model = onnx_model(jax.vmap(network), 3, ("x", "y"), {})
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for rows in (1, 7):
        x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        (y,) = session.run(["y"], {"x": x})
        np.testing.assert_allclose(y, network(jnp.asarray(x)), rtol=1e-5, atol=1e-5)


def _recurrence(x, reverse):
    step = lambda carry, row: (jnp.tanh(carry * row[0] + row[1]), None)
    rows = (x, jnp.arange(5.0))
    return jax.lax.scan(step, jnp.ones(2), rows, reverse=reverse)[0]


OPERATIONS = {
    "matrix from the left": lambda x: jnp.arange(8.0).reshape(2, 4) @ x[:4],
    "inner product": lambda x: jnp.dot(x, jnp.arange(5.0))[None],
    "softmax": lambda x: jax.nn.softmax(x),
    "slice": lambda x: x[1:5:2],
    "split and join": lambda x: jnp.concatenate(jnp.split(x, [1, 3])[::-1]),
    "reshape": lambda x: x[:4].reshape(2, 2).T.reshape(4),
    "where": lambda x: jnp.where((x > 0) & (x != 1.0), x**3, -jnp.sqrt(jnp.abs(x))),
    "constant rows": lambda x: jnp.zeros_like(x) + jnp.arange(5.0),
    "nothing of the input": lambda x: jnp.arange(3.0),
    "smallest": lambda x: jnp.argmin(x)[None] + jnp.min(x).astype(jnp.int32),
    "product": lambda x: jnp.prod(jnp.exp(x * 0.1))[None] * jnp.sign(x),
    "clamp": lambda x: jax.lax.clamp(-0.5, x, 0.25) / jnp.square(x + 9.0),
    "matrix before several rows": lambda x: jnp.arange(8.0).reshape(4, 2) @ x[:4].reshape(2, 2),
    "product within each row": lambda x: x[:4].reshape(2, 2) @ x[1:].reshape(2, 2),
    "products of heads": lambda x: jnp.einsum(
        "phw,qhw->hpq", x[:4].reshape(2, 2, 1), x[1:].reshape(2, 2, 1)
    ),
    "over two axes": lambda x: jnp.tensordot(x[:4].reshape(2, 2), x[1:].reshape(2, 2), 2)[None],
    "whole numbers below": lambda x: jnp.floor(3.0 * x),
    "steps of a recurrence": lambda x: _recurrence(x, reverse=False),
    "the same backwards": lambda x: _recurrence(x, reverse=True),
    "random numbers of a fixed key": lambda x: x + jax.random.normal(jax.random.key(1), x.shape),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_are_translated(operation):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    function = jax.vmap(OPERATIONS[operation])
    if operation == "nothing of the input":
        function = lambda x: jnp.broadcast_to(jnp.arange(3.0)[None], (x.shape[0], 3))
    session = runtime.InferenceSession(
        onnx_model(function, 5, ("x", "y"), {}), providers=["CPUExecutionProvider"]
    )
    for rows in (1, 7):
        x = np.random.default_rng(rows).normal(size=(rows, 5)).astype(np.float32)
        (y,) = session.run(["y"], {"x": x})
        expected = np.asarray(function(jnp.asarray(x)))
        assert y.dtype == expected.dtype and y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_an_operation_that_is_not_translated_is_named():
    pytest.importorskip("onnx")
    with pytest.raises(SpecificationError, match="operation 'cumsum' is not translated"):
        onnx_model(lambda x: jnp.cumsum(x, axis=1), 3, ("x", "y"), {})
    with pytest.raises(SpecificationError, match="'scan' with a result for each step is not"):
        sums = lambda x: jax.lax.scan(lambda c, y: (c + y, c), 0.0, x)[1]
        onnx_model(jax.vmap(sums), 3, ("x", "y"), {})
    # Unless it does not depend on the input.
    onnx_model(lambda x: x + jnp.cumsum(jnp.ones((1, 3)), axis=1), 3, ("x", "y"), {})


def test_onnx_holds_one_plain_graph(tmp_path):
    onnx = pytest.importorskip("onnx")
    run = untrained(build_method("DQN", {"hidden_sizes": (8,)}), True)
    model = onnx.load(headwater.export(run, tmp_path))
    kinds = [node.op_type for node in model.graph.node]
    # The random numbers that exploring would need are gone.
    assert kinds == [
        *["Sub", "Div", "MatMul", "Add", "Max", "MatMul", "Add", "ArgMax", "Cast", "Identity"]
    ]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["method"] == "DQN" and metadata["seed"] == "0"
    assert json.loads(metadata["settings"])["hidden_sizes"] == [8]
    assert json.loads(metadata["spaces"])["action"] == {"count": ACTIONS}


def test_stablehlo_says_how_it_is_used(iql, tmp_path, monkeypatch):
    pytest.importorskip("flatbuffers")
    path = headwater.export(iql, tmp_path / "pi.stablehlo", format="stablehlo", seed=1)
    metadata = json.loads((tmp_path / "pi.stablehlo.json").read_text())
    assert metadata["inputs"][0]["name"] == "observation"
    assert metadata["inputs"][0]["shape"] == ["batch", 3]
    assert metadata["inputs"][0]["dtype"] == "float32"
    assert metadata["outputs"] == [
        {
            "name": "action",
            "dtype": "float32",
            "shape": ["batch", 2],
            "units": "as the environment takes them",
            "low": LOW,
            "high": HIGH,
        }
    ]
    assert metadata["seed"] == 1 and metadata["method"] == "IQL"
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "pi.stablehlo.json"]
    # The lines that it gives work as they stand.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "load.py").write_text("\n".join(metadata["load"]))
    names = runpy.run_path("load.py", {"observation": observations(2)})
    np.testing.assert_allclose(names["action"], iql.policies[1](observations(2)), rtol=1e-5)


def read_arrays(path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="numpy") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, file.metadata()


def test_arrays_give_the_policy_by_hand(iql, tmp_path):
    path = headwater.export(iql, tmp_path, format="safetensors", seed=1)
    arrays, metadata = read_arrays(path)
    network = ".networks.actor.network"
    assert sorted(arrays) == [
        ".networks.actor.log_std",
        *(f"{network}.biases[{i}]" for i in range(3)),
        *(f"{network}.weights[{i}]" for i in range(3)),
        ".normaliser.mean",
        ".normaliser.std",
    ]
    observed = observations(7)
    x = (observed - arrays[".normaliser.mean"]) / arrays[".normaliser.std"]
    for i in range(3):
        x = x @ arrays[f"{network}.weights[{i}]"] + arrays[f"{network}.biases[{i}]"]
        x = np.maximum(x, 0.0) if i < 2 else np.tanh(x)
    low, high = (
        np.asarray(json.loads(metadata["spaces"])["action"][end]) for end in ("low", "high")
    )
    by_hand = low + (x + 1.0) / 2.0 * (high - low)
    np.testing.assert_allclose(by_hand, iql.policies[1](observed), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "discrete"), [("SAC", False), ("SAC", True), ("DQN", True)])
def test_arrays_are_all_that_acting_needs(name, discrete, tmp_path):
    run = untrained(build_method(name, {"hidden_sizes": (8,)}), discrete)
    arrays, metadata = read_arrays(headwater.export(run, tmp_path, format="safetensors", seed=1))
    method = build_method(metadata["method"], json.loads(metadata["settings"]))
    problem = Spaces.from_json(json.loads(metadata["spaces"]))
    fresh = method.init(problem, key=jax.random.key(9))
    names = list(flatten(fresh))
    leaves, structure = jax.tree.flatten(fresh)
    assert 0 < len(arrays) < len(leaves)
    state = structure.unflatten([jnp.asarray(arrays.get(n, v)) for n, v in zip(names, leaves)])
    rebuilt, policy = Policy(cast(AbstractPolicy, method), state, problem), run.policies[1]
    observed, key = observations(7), jax.random.key(2)
    for explore in (False, True):
        np.testing.assert_array_equal(
            rebuilt(observed, explore=explore, key=key), policy(observed, explore=explore, key=key)
        )


def test_nothing_is_replaced_unless_asked(iql, tmp_path):
    path = tmp_path / "pi.safetensors"
    headwater.export(iql, path, format="safetensors")
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"pi\.safetensors already exists: choose another path"):
        headwater.export(iql, path, format="safetensors", seed=1)
    assert path.read_bytes() == before
    headwater.export(iql, path, format="safetensors", seed=1, overwrite=True)
    assert path.read_bytes() != before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_description_is_not_replaced_either(iql, tmp_path):
    pytest.importorskip("flatbuffers")
    (tmp_path / "pi.stablehlo.json").write_text("mine")
    with pytest.raises(RunError, match=r"pi\.stablehlo\.json already exists"):
        headwater.export(iql, tmp_path / "pi.stablehlo", format="stablehlo")
    assert not (tmp_path / "pi.stablehlo").exists()


def test_a_run_on_disk_is_exported_beside_it(tmp_path):
    run = headwater.train(
        build_method("BC", {"hidden_sizes": (8,)}),
        logged(False),
        env="none",
        updates=2,
        seeds=[3, 5],
        out=tmp_path / "cloned",
        progress=False,
    )
    path = headwater.export(tmp_path / "cloned", format="safetensors", seed=5)
    assert path == tmp_path / "cloned-seed5.safetensors"
    arrays, metadata = read_arrays(path)
    assert metadata["run"] == "cloned" and metadata["seed"] == "5"
    stored = np.asarray(run.state.actor.network.weights[0])
    np.testing.assert_array_equal(arrays[".actor.network.weights[0]"], stored[1])


def test_without_a_place_it_goes_here(iql, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    headwater.export(iql, format="safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["IQL-seed0.safetensors"]


def test_mistakes_are_explained(iql, tmp_path):
    with pytest.raises(SpecificationError, match="unknown format 'onx': did you mean onnx"):
        headwater.export(iql, tmp_path, format="onx")
    with pytest.raises(SpecificationError, match="IQL has no seed 7: its seeds are 0, 1"):
        headwater.export(iql, tmp_path, seed=7)
    with pytest.raises(SpecificationError, match="named like safetensors, but the format is onnx"):
        headwater.export(iql, tmp_path / "pi.safetensors")
    with pytest.raises(RunError, match="is no run"):
        headwater.export(tmp_path / "nothing")
    assert not list(tmp_path.iterdir())


class NoPolicy(AbstractMethod):
    """A method that learns something, but not how to act."""

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = build_method("BC").info

    def init(self, problem, *, key):
        return jnp.zeros(())

    def update(self, state, data, *, key):
        return state, {}


def test_a_method_that_cannot_act_is_refused(tmp_path):
    with pytest.raises(SpecificationError, match="NoPolicy is not a policy: it cannot act"):
        headwater.export(untrained(NoPolicy(), False), tmp_path)


@pytest.mark.parametrize(("format", "package"), [("onnx", "onnx"), ("stablehlo", "flatbuffers")])
def test_a_missing_package_is_named(iql, format, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SpecificationError) as error:
        headwater.export(iql, tmp_path, format=format)
    assert f"needs the package {package}: pip install 'headwater[{format}]'" in str(error.value)
    assert not list(tmp_path.iterdir())
