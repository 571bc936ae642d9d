"""Features of a finite process that are exact where proto-value networks learn them.

On the host, in double precision: they are properties of the process, worked out once.
"""

import numpy as np

from headwater.analysis.registry import analysis
from headwater.core.errors import SpecificationError

_TOLERANCE = 1e-5


@analysis(paper="farebrother2023protovalue")
def proto_value_functions(
    transition: np.ndarray, sets: np.ndarray, discount: float, size: int
) -> np.ndarray:
    r"""Features `[state, size]` in which the values of random rewards are linear, as far as may be.

    The values of the rewards $G$, each 1 in a set of states, are $\Psi G$ with the successor
    measure $\Psi = (I - \gamma P)^{-1}$. The features are the leading left singular vectors of
    these, centred: what the best encoder of a network with a head for each reward keeps. Each has
    mean zero and norm one, and its largest component is positive.

    **Arguments:** `transition`: of a policy, `[state, state]`; `sets`: `[set, state]`, 1 in the set
    and 0 outside, or any rewards; `discount`: γ; `size`: how many features.

    Raises `SpecificationError` for what does not fit together.
    """
    values = set_values(transition, sets, discount)
    most = min(values.shape[0] - 1, values.shape[1])
    if not 1 <= size <= most:
        raise SpecificationError(
            f"size = {size} must lie between 1 and {most}: {values.shape[1]} sets of "
            f"{values.shape[0]} states have no more features with mean zero"
        )
    found = np.linalg.svd(values - values.mean(0), full_matrices=False)[0][:, :size]
    largest = np.take_along_axis(found, np.abs(found).argmax(0)[None], 0)
    return found * np.sign(largest)


def set_values(transition: np.ndarray, sets: np.ndarray, discount: float) -> np.ndarray:
    """The discounted values `[state, set]` of a reward that is 1 in a set of states.

    The state counts in which the step begins. **Arguments**, and what is raised: as of
    `proto_value_functions`.
    """
    model, rewards = np.asarray(transition, np.float64), np.asarray(sets, np.float64)
    if model.ndim != 2 or rewards.ndim != 2 or not model.shape[0] == model.shape[1]:
        raise SpecificationError(
            f"transition of shape {model.shape} and sets of shape {rewards.shape} must be "
            "[state, state] and [set, state]"
        )
    if rewards.shape[1] != model.shape[0] or not len(rewards):
        raise SpecificationError(
            f"sets of shape {rewards.shape} must say of each of {model.shape[0]} states whether it "
            "is in them"
        )
    if not (model >= 0.0).all() or not np.allclose(model.sum(1), 1.0, atol=_TOLERANCE):
        raise SpecificationError("every row of transition must hold probabilities that add up to 1")
    if not 0.0 <= discount < 1.0:
        raise SpecificationError(f"discount = {discount} must lie between 0 and 1, and below 1")
    return np.linalg.solve(np.eye(len(model)) - discount * model, rewards.T)
