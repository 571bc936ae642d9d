"""`headwater campaign add`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json


def command(
    file: Annotated[Path, tyro.conf.Positional, option("FILE")],
    table: Annotated[Path, tyro.conf.Positional, option("TABLE")],
    /,
    value: Annotated[str, option("COLUMN")] = "value",
    json: Flag = False,
) -> None:
    """Add experiments that were made before, or by others, as experience to begin with.

    All of them or, where one is none of this campaign, not any. Giving the same table twice adds
    the same experiments twice.

    Args:
        file: The campaign.
        table: A table (CSV or Parquet) with a column for each quantity and one of values; where
            there are several fidelities, with a column `fidelity`, too.
        value: The column of values.
        json: Print as JSON.
    """
    from headwater.api.campaigns.campaign import Campaign
    from headwater.api.campaigns.tables import read_experiments

    campaign = Campaign.open(file)
    points, values, fidelities = read_experiments(table, value, campaign.space.fidelities)
    campaign.add(points, values, fidelities)
    if json:
        print_json({"added": len(points), "earlier": len(campaign.earlier)})
        return
    print(f"{len(points)} experiments of before added; {len(campaign.earlier)} in all")
