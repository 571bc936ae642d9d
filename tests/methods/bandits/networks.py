"""A network of one hidden layer, forwards and backwards, in NumPy and float64."""

import numpy as np


def blocks(problem, data) -> np.ndarray:
    """What describes each arm in each round: the context in the arm's block, then its features."""
    context = np.asarray(data.context, np.float64)
    rows, size = context.shape
    found = np.zeros((rows, problem.arms, problem.arms * size + problem.feature_size))
    for arm in range(problem.arms):
        found[:, arm, arm * size : (arm + 1) * size] = context
        found[:, arm, problem.arms * size :] = np.asarray(data.features, np.float64)[:, arm]
    return found


def forward(network, inputs) -> np.ndarray:
    """Outputs `[row]`."""
    first, second, one, two = _parts(network)
    return (np.maximum(inputs @ first + one, 0.0) @ second + two)[:, 0]


def gradients(network, inputs, slope):
    """Of the weights, then the biases, where `slope` is the loss's in the output of each row."""
    first, second, one, _ = _parts(network)
    hidden = inputs @ first + one
    back = (slope[:, None] @ second.T) * (hidden > 0.0)
    return [
        inputs.T @ back,
        np.maximum(hidden, 0.0).T @ slope[:, None],
        back.sum(0),
        slope.sum(keepdims=True),
    ]


def _parts(network):
    parts = [np.asarray(x, np.float64) for x in (*network.weights, *network.biases)]
    assert len(parts) == 4
    return parts
