"""`headwater campaign tell`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json
from headwater.core.errors import SpecificationError


def command(
    file: Annotated[Path, tyro.conf.Positional, option("FILE")],
    number: Annotated[int, tyro.conf.Positional, option("NUMBER")],
    value: Annotated[float | None, tyro.conf.Positional, option("VALUE")] = None,
    /,
    failed: Flag = False,
    json: Flag = False,
) -> None:
    """Tell what came out of an experiment that was asked for.

    Args:
        file: The campaign.
        number: The experiment, as `headwater campaign ask` numbered it.
        value: What came out of it.
        failed: Nothing came out of it, and nothing is learned from it.
        json: Print as JSON.
    """
    from headwater.api.campaigns.campaign import Campaign

    if (value is None) is not failed:
        raise SpecificationError(f"tell either the value of experiment {number} or --failed")
    campaign = Campaign.open(file)
    campaign.tell(number, value)
    best = campaign.best
    if json:
        told = None if best is None else {"point": best.point, "value": best.value}
        print_json({"best": told, "pending": [trial.number for trial in campaign.pending]})
        return
    shown = "no value so far" if best is None else f"the best value so far is {best.value:g}"
    print(f"experiment {number}: {'failed' if failed else f'{value:g}'}; {shown}")
