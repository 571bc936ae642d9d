"""What growing a decoder by copies of its last layers saves."""

from headwater.evidence.claim import Claim
from headwater.evidence.growth import SMALL, SMOKE, STACKED, grow

CLAIMS = (
    Claim(
        name="gradual-stacking-saves-layers",
        statement=(
            "A decoder grown in three stages by copying its last layers on top is, after the same "
            "number of layer updates, at least 0.03 nats per token better than one trained whole, "
            "and at most 0.03 worse than one trained whole for as many updates, which costs 1.29 "
            "times as much."
        ),
        methods=("SFT",),
        paper="reddi2023efficient",
        where="the comparison with training from scratch; margins are those of a run of 6 layers",
        scales={
            "smoke": {"operators": ("gradual-stacking",), **SMOKE, "layers": 2, "stages": 2},
            "small": {"operators": ("gradual-stacking", "random"), **SMALL, **STACKED},
        },
        experiment=grow,
        learned=(
            "On these texts the loss falls suddenly, when copying is discovered, and how soon "
            "that is differs from run to run by hundreds of updates: over four runs the grown "
            "decoder is 0.44 nats worse at the same cost, with an interval from -0.10 to 0.78. "
            "Nothing is decided, and nothing speaks for growing here."
        ),
    ),
)
