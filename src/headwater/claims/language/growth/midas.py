"""What growing a decoder by copies of its middle block saves."""

from headwater.evidence.claim import Claim
from headwater.evidence.growth import SMALL, SMOKE, STACKED, grow

CLAIMS = (
    Claim(
        name="midas-saves-layers",
        statement=(
            "A decoder grown in three stages by repeating its middle block is, after the same "
            "number of layer updates, at least 0.03 nats per token better than one trained whole, "
            "and at most 0.03 worse than one trained whole for as many updates."
        ),
        methods=("SFT",),
        paper="saunshi2024inductive",
        where="the comparison of pre-training costs; margins are those of a run of 6 layers",
        scales={
            "smoke": {"operators": ("midas",), **SMOKE, "layers": 2, "stages": 2},
            "small": {"operators": ("midas",), **SMALL, **STACKED},
        },
        experiment=grow,
        learned=(
            "On these texts the loss falls suddenly, when copying is discovered, and how soon "
            "that is differs from run to run by hundreds of updates: over four runs the grown "
            "decoder is 0.41 nats worse at the same cost, with an interval from -0.10 to 0.68. "
            "Nothing is decided, and nothing speaks for growing here."
        ),
    ),
)
