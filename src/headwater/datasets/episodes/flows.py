"""From logs of packets, each episode a flow, to logs of flows."""

import dataclasses

import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.problems.flow import flow_spaces
from headwater.datasets.dataset import Dataset, with_statistics
from headwater.datasets.metadata import remark


def with_flows(
    dataset: Dataset, groups: int, *, bursts: int = 12, packets: int = 6, labelled: bool = True
) -> Dataset:
    """The dataset with each of its episodes, whose rows are packets, as one row.

    The observation of that row is the whole flow, packets in bursts, as `core/problems/flow.py`
    says; its action is that of the packets, which is the class of the flow; its reward is their
    sum. What there is no room for is left out, and how much that is stays in the notes of the data.

    **Arguments:** `groups`: the component of observations that begins another burst where it
    changes, such as the direction of a packet, or a number of its burst; `bursts`: of a flow, and
    `packets`: of a burst, that there is room for; `labelled`: whether actions are classes; if not,
    as for pretraining, they may be missing, and are 0 in what is made.

    Raises `SpecificationError` for a component that there is not, if there is room for nothing, or
    if observations are flows already; `DataError` if actions are no classes, or those of the
    packets of a flow differ or are missing.
    """
    size = dataset.spaces.observation_size
    if not 0 <= groups < size:
        raise SpecificationError(
            f"groups = {groups}: packets have the components 0 to {size - 1}, of which one tells "
            "bursts apart"
        )
    spaces = flow_spaces(dataset.spaces, bursts, packets)
    if not dataset.spaces.discrete:
        raise DataError(
            "the actions are continuous, but the action of a flow is its class: give whole numbers"
        )
    last = dataset.episode_starts[1:] - 1
    actions = _classes(dataset, last) if labelled else np.zeros(dataset.episodes, np.int32)
    # Of a record that was cut, the last packet is what followed its last row.
    cut = dataset.truncations[last] & ~dataset.terminals[last]
    seen = np.insert(
        dataset.observations, last[cut] + 1, dataset.next_observations[last[cut]], axis=0
    )
    lengths = dataset.episode_lengths() + cut
    flow = np.repeat(np.arange(dataset.episodes), lengths)
    rows = np.arange(len(seen))
    begins = np.append(True, (np.diff(flow) > 0) | (np.diff(seen[:, groups]) != 0))
    number = np.cumsum(begins) - 1
    burst = number - number[np.cumsum(lengths) - lengths][flow]
    place = rows - np.flatnonzero(begins)[number]
    fits = (burst < bursts) & (place < packets)
    made = np.zeros((dataset.episodes, bursts, packets, size + 1), np.float32)
    with_one = np.column_stack([seen, np.ones(len(seen), np.float32)])
    made[flow[fits], burst[fits], place[fits]] = with_one[fits]
    metadata = {
        **dataset.metadata,
        "observation_parts": [list(part) for part in spaces.observation.parts or ()],
    }
    left_out = int(np.count_nonzero(~fits))
    if left_out:
        remark(
            metadata,
            f"{left_out:,} of {len(seen):,} packets were left out: flows have room for {bursts} "
            f"bursts of {packets} packets",
        )
    observations = made.reshape(dataset.episodes, -1)
    return with_statistics(
        dataclasses.replace(
            dataset,
            observations=observations,
            actions=actions,
            rewards=dataset.episode_returns().astype(np.float32),
            next_observations=observations,
            terminals=np.ones(dataset.episodes, bool),
            truncations=np.zeros(dataset.episodes, bool),
            episode_starts=np.arange(dataset.episodes + 1),
            spaces=spaces,
            metadata=metadata,
            log_propensities=None,
            action_confidence=None,
        )
    )


def _classes(dataset: Dataset, last: np.ndarray) -> np.ndarray:
    """The action of each episode, int32 `[episode]`. Raises `DataError` unless it has one."""
    unknown = np.flatnonzero(~dataset.known_actions)
    if unknown.size:
        raise DataError(
            f"row {unknown[0]} has no action, which is to be the class of its flow: fill it in, "
            "leave the flow out, or say labelled=False for pretraining"
        )
    classes = dataset.actions[last]
    other = np.flatnonzero(dataset.actions != classes[dataset.episode_of_row])
    if other.size:
        row, flow = int(other[0]), int(dataset.episode_of_row[other[0]])
        names = dataset.raw_actions()
        raise DataError(
            f"the packets of flow {flow} have different actions ({names[row]} at row {row}, "
            f"{names[last[flow]]} at the end): give all of them the class of the flow"
        )
    return classes
