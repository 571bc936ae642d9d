"""Searches of Headwater in a process of its own: prints one line of JSON.

python pace_headwater.py METHOD SEEDS
"""

import json
import sys

import numpy as np
from work import BOXES, FIRST, searched

import headwater as hw
from headwater.environments.black_boxes.surfaces import Branin, Hartmann

# The functions of `work.py` are those of the library.
for name, box in (("branin", Branin()), ("hartmann", Hartmann())):
    function, bounds, *_ = BOXES[name]
    low, high = np.asarray(bounds).T
    point = low + (high - low) * np.random.default_rng(0).uniform(size=len(low))
    own = float(box.mean_value(None, np.float32(point), None))
    np.testing.assert_allclose(own, function(point), rtol=1e-4)


def begin(seed, bounds):
    space = {f"x{place}": each for place, each in enumerate(bounds)}
    settings = {} if sys.argv[1] == "RandomSearch" else {"initial_points": FIRST}
    method = hw.build_method(sys.argv[1], settings)
    campaign = hw.Campaign(space, method=method, seed=seed)
    asked = []

    def ask():
        asked.append(campaign.ask())
        return list(asked[-1].point.values())

    return ask, lambda value: campaign.tell(asked[-1].number, value)


print(json.dumps({"version": hw.__version__, "found": searched(begin, range(int(sys.argv[2])))}))
