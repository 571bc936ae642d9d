"""Flows of logs of packets, by hand."""

import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.core.problems.flow import FlowLayout, flow_layout
from headwater.datasets.dataset import Dataset
from headwater.datasets.episodes.flows import with_flows
from headwater.datasets.read import load
from headwater.datasets.write import write

# Direction and size of each packet.
FIRST = [[1, 10], [1, 11], [-1, 12], [1, 13], [1, 14]]
SECOND = [[1, 20], [-1, 21], [-1, 22], [-1, 23]]


def packets(actions=None, **settings) -> Dataset:
    ends = np.isin(np.arange(9), (4, 8))
    actions = [2] * 5 + [0] * 4 if actions is None else actions
    columns = {"terminals": ends, "action_count": 3, "discrete": True, **settings}
    return Dataset.from_arrays(
        np.asarray(FIRST + SECOND, np.float32), actions, np.arange(9.0), **columns
    )


def test_packets_stand_in_their_bursts():
    made = with_flows(packets(), 0, bursts=3, packets=2)
    assert flow_layout(made.spaces) == FlowLayout(3, 2, 3) and made.spaces.horizon == 1
    nothing = [0.0] * 3
    one = lambda packet: [*map(float, packet), 1.0]
    assert made.observations.reshape(2, 3, 2, 3).tolist() == [
        [[one(FIRST[0]), one(FIRST[1])], [one(FIRST[2]), nothing], [one(FIRST[3]), one(FIRST[4])]],
        [[one(SECOND[0]), nothing], [one(SECOND[1]), one(SECOND[2])], [nothing, nothing]],
    ]
    assert made.actions.tolist() == [2, 0] and made.rewards.tolist() == [10.0, 26.0]
    assert made.terminals.all() and made.episodes == 2
    (note,) = made.metadata["reading"]["notes"]
    assert note == "1 of 9 packets were left out: flows have room for 3 bursts of 2 packets"
    np.testing.assert_allclose(made.spaces.statistics.observation_mean[:3], [1.0, 15.0, 1.0])
    few = with_flows(packets(), 0, bursts=1, packets=6)
    assert few.observations.reshape(2, 6, 3)[..., -1].sum(1).tolist() == [2, 1]
    # A burst that goes on behind the end of a flow is another one, in another flow.
    alike = packets()
    alike.observations[:, 0] = 1.0
    whole = with_flows(alike, 0, bursts=2, packets=9)
    assert whole.observations.reshape(2, 2, 9, 3)[..., -1].sum(2).tolist() == [[5, 0], [4, 0]]


def test_the_last_packet_of_a_record_that_was_cut_is_there_too():
    ends = np.isin(np.arange(9), (4, 8))
    cut = packets(terminals=np.zeros(9, bool), truncations=ends)
    assert cut.size == 7
    whole, made = (with_flows(each, 0, bursts=3, packets=3) for each in (packets(), cut))
    np.testing.assert_array_equal(made.observations, whole.observations)
    assert made.actions.tolist() == [2, 0]


def test_flows_survive_a_file(tmp_path):
    made = with_flows(packets(), 0, bursts=3, packets=3)
    assert "reading" not in made.metadata
    for name in ("log.npz", "log.parquet"):
        write(made, tmp_path / name)
        read = load(tmp_path / name)
        assert flow_layout(read.spaces) == FlowLayout(3, 3, 3)
        np.testing.assert_array_equal(read.observations, made.observations)


def test_labels_that_are_none():
    missing = packets([2.0] * 5 + [np.nan] * 4, missing_actions="keep")
    with pytest.raises(DataError, match="row 5 has no action, which is to be the class of its fl"):
        with_flows(missing, 0)
    made = with_flows(missing, 0, labelled=False)
    assert made.actions.tolist() == [0, 0] and made.known_actions.all()
    with pytest.raises(
        DataError, match=r"of flow 1 have different actions \(1 at row 5, 0 at the end\)"
    ):
        with_flows(packets([2] * 5 + [1] + [0] * 3), 0)
    continuous = Dataset.from_arrays(np.zeros((2, 2)), np.zeros((2, 1)), np.zeros(2), [False, True])
    with pytest.raises(DataError, match="the actions are continuous, but the action of a flow is"):
        with_flows(continuous, 0)


def test_flows_that_cannot_be():
    with pytest.raises(SpecificationError, match="groups = 2: packets have the components 0 to 1"):
        with_flows(packets(), 2)
    with pytest.raises(SpecificationError, match="bursts = 0, packets = 6: a flow has room for"):
        with_flows(packets(), 0, bursts=0)
    with pytest.raises(SpecificationError, match="these observations hold flows already"):
        with_flows(with_flows(packets(), 0), 0)
    assert flow_layout(packets().spaces) is None
