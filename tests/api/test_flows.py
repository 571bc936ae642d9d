"""From packets to classes: traffic without labels, a few flows with, and what comes after."""

import json

import jax
import numpy as np
import pytest

import headwater as hw
from headwater.cli import main
from headwater.core.errors import SpecificationError
from headwater.datasets.dataset import Dataset
from headwater.datasets.episodes.flows import with_flows
from headwater.datasets.write import write
from headwater.environments.systems.traffic_flows import TrafficFlows
from headwater.evidence.logs import record

SMALL = {"seeds": 2, "batch_size": 8, "updates": 4, "evaluations": 1, "episodes": 3}
SETTINGS = {"width": 8, "embedding_size": 4, "num_layers": 1, "num_heads": 2}
TASK = TrafficFlows(bursts=4, packets=2)


def packets(flows: int) -> Dataset:
    """A log of packets: direction, size, flags, gap and port; all of a flow have its protocol."""
    act = lambda skill, observation, key: jax.random.randint(key, (), 0, 6)
    log = record(TASK, act, np.zeros(flows), steps=1, key=jax.random.key(0))
    found = log.observations.reshape(flows, -1, 6)
    there = found[..., -1] > 0
    last = there & (np.cumsum(there, 1) == there.sum(1, keepdims=True))
    labels = np.broadcast_to(log.actions[:, None], there.shape)[there]
    return Dataset.from_arrays(
        found[there][:, :-1], labels, np.zeros(len(labels)), last[there], action_count=6
    )


def test_from_packets_to_classes():
    flows = with_flows(packets(30), 0, bursts=4, packets=2)
    run = hw.train(hw.build_method("NetFound", SETTINGS), [flows, flows], env=TASK, **SMALL)
    assert np.asarray(run.state.task).tolist() == [1, 1]
    assert run.final_returns.shape == (2, 3) and np.isin(run.final_returns, (0.0, 1.0)).all()
    names = {name for row in run.metrics for name in row["metrics"]}
    assert {"mask_loss", "swap_loss", "class_loss"} <= names
    chosen = run.policy(flows.observations[:5])
    assert chosen.shape == (5,) and set(chosen) <= set(range(6))


def test_flows_from_the_shell(tmp_path, capsys):
    traffic, labelled = (
        write(with_flows(packets(n), 0, bursts=4, packets=2), tmp_path / f"{n}.npz")
        for n in (30, 12)
    )
    words = ["train", "NetFound", "--data", traffic, "--then", labelled, "--env", "traffic-flows"]
    words += ["--env-option", "bursts=4", "--env-option", "packets=2", "--out", tmp_path / "run"]
    words += ["--updates", 4, "--batch-size", 8, "--seeds", 2, "--episodes", 3, "--json"]
    words += [x for name, value in SETTINGS.items() for x in ("--set", f"{name}={value}")]
    assert main([str(word) for word in words]) == 0
    assert json.loads(capsys.readouterr().out)
    opened = hw.open_run(tmp_path / "run")
    whole = hw.train(hw.build_method("NetFound", SETTINGS), [traffic, labelled], env=TASK, **SMALL)
    for here, there in zip(jax.tree.leaves(opened.state), jax.tree.leaves(whole.state)):
        np.testing.assert_array_equal(here, there)


def test_features_go_on_where_right_and_wrong_are_told():
    flows = with_flows(packets(30), 0, bursts=4, packets=2, labelled=False)
    run = hw.train(hw.build_method("NetFound", SETTINGS), flows, env=TASK, **SMALL)
    few = {"steps": 24, "evaluations": 1, "episodes": 3, "batch_size": 4}
    told = hw.adapt(run, env=TASK, recipe="wsrl", **few)
    assert told.specification.method.name == "EncodedDQN"
    for here, there in zip(
        jax.tree.leaves(told.state.encoding.encoder), jax.tree.leaves(run.state.encoder)
    ):
        np.testing.assert_array_equal(here, there)
    with pytest.raises(SpecificationError, match="embedding_size = 5 cannot take effect"):
        hw.adapt(run, env=TASK, recipe="wsrl", set={"embedding_size": 5}, **few)
