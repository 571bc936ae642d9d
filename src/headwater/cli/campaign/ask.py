"""`headwater campaign ask`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json
from headwater.core.errors import SpecificationError


def command(
    file: Annotated[Path, tyro.conf.Positional, option("FILE")],
    /,
    count: Annotated[int, option("N", "-n")] = 1,
    json: Flag = False,
) -> None:
    """Ask which experiment to make next; it is in the file before it is printed.

    Several may be asked for before the first is told; each is then chosen as if those under way had
    brought what is expected of them. What was asked for and not told yet is listed by `headwater
    campaign show`.

    Args:
        file: The campaign.
        count: Experiments to ask for.
        json: Print as JSON.
    """
    from headwater.api.campaigns.campaign import Campaign

    if count < 1:
        raise SpecificationError(f"--count is {count}: at least one experiment can be asked for")
    campaign = Campaign.open(file)
    found = []
    for _ in range(count):
        trial = campaign.ask()
        found.append({"number": trial.number, "point": trial.point, "fidelity": trial.fidelity})
        if not json:
            quantities = "  ".join(f"{name} = {value!r}" for name, value in trial.point.items())
            if campaign.space.fidelities > 1:
                quantities += f"  at fidelity {trial.fidelity}"
            # Each as soon as it is known: choosing takes seconds.
            print(f"experiment {trial.number}:  {quantities}", flush=True)
    if json:
        print_json(found)
        return
    print(f"tell what comes out: headwater campaign tell {file} {found[0]['number']} VALUE")
