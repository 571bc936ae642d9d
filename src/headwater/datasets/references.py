"""D4RL's published reference returns, by which scores are normalised.

Source: the constants in the D4RL repository (Farama-Foundation/D4RL, `d4rl/infos.py` and the
registrations of its environments), described in Fu et al. 2020, "D4RL: Datasets for Deep
Data-Driven Reinforcement Learning", arXiv 2004.07219. Datasets of versions v1 and v2 use the
constants of v0.
"""

import re
from typing import NamedTuple

_PUBLISHED: dict[str, tuple[float, float]] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "maze2d-umaze": (23.85, 161.86),
    "maze2d-medium": (13.13, 277.39),
    "maze2d-large": (6.7, 273.99),
    "antmaze": (0.0, 1.0),
    "pen": (96.262799, 3076.8331),
    "door": (-56.512833, 2880.5693),
    "hammer": (-274.856578, 12794.1348),
    "relocate": (-6.425911, 4233.8778),
    "minigrid-fourrooms": (0.01442, 2.89685),
}
_EXACT_VERSIONS = ("v0", "v1", "v2")


class References(NamedTuple):
    """The returns that count as a score of 0 and of 100.

    **Arguments:** `random`, `expert`: undiscounted returns; `source`: where they come from;
    `indicative`: true where the task differs from the one they were measured on, so that scores
    are comparable to the literature's only roughly.
    """

    random: float
    expert: float
    source: str
    indicative: bool

    def normalise(self, returns):
        """100·(return − random)/(expert − random)."""
        return 100.0 * (returns - self.random) / (self.expert - self.random)


def published_references(task: str) -> References | None:
    """D4RL's reference returns for `task`, or `None` if it has none.

    **Arguments:** `task`: an environment or dataset name such as `HalfCheetah-v5`,
    `halfcheetah-medium-v2`, `mujoco/hopper/medium-v0` or `antmaze-large-play-v0`. The v3 to v5
    tasks of Gymnasium use the constants of the D4RL task that they descend from, and are
    marked as indicative.
    """
    name = task.strip().lower().replace("/", "-")
    for prefix in ("d4rl-", "mujoco-"):
        name = name.removeprefix(prefix)
    version = re.search(r"-(v\d+)$", name)
    if "dense" in name:
        return None  # The constants of the mazes are for sparse rewards.
    for known in sorted(_PUBLISHED, key=len, reverse=True):
        if name == known or name.startswith((known + "-", known + "_")):
            random, expert = _PUBLISHED[known]
            # A Minari dataset counts its own versions; its task is one of Gymnasium's.
            descended = "/" in task and not task.lower().startswith("d4rl")
            newer = version is not None and version.group(1) not in _EXACT_VERSIONS
            indicative = descended or newer
            return References(random, expert, "D4RL (arXiv 2004.07219)", indicative)
    return None
