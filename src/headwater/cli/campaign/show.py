"""`headwater campaign show`."""

from pathlib import Path
from typing import Annotated

import tyro

from headwater.cli.arguments import Flag, option
from headwater.cli.frame import print_json, print_table


def command(
    file: Annotated[Path, tyro.conf.Positional, option("FILE")],
    /,
    out: Annotated[Path | None, option("FILE", "-o")] = None,
    json: Flag = False,
) -> None:
    """Show a campaign: every experiment, the best, and the point of the best expected value.

    Args:
        file: The campaign.
        out: Write it as an HTML page (`.html`) or as a figure (`.png`), too.
        json: Print as JSON.
    """
    from headwater.api.campaigns.campaign import Campaign
    from headwater.reports.campaign import experiment_columns, experiment_rows, standing

    campaign = Campaign.open(file)
    summary = campaign.summary()
    if out is not None:
        campaign.report(out)
    if json:
        best = summary.best
        print_json(
            {
                "minimise": campaign.minimise,
                "most": campaign.most,
                "method": summary.settings,
                "earlier": [trial._asdict() for trial in summary.earlier],
                "trials": [trial._asdict() for trial in summary.trials],
                "best": None if best is None else {"point": best.point, "value": best.value},
                "recommended": summary.recommended,
                "page": None if out is None else str(out),
            }
        )
        return
    print_table("", experiment_columns(summary), experiment_rows(summary))
    print(standing(summary))
    if summary.recommended is not None:
        quantities = "  ".join(f"{name} = {value!r}" for name, value in summary.recommended.items())
        print(f"recommended:  {quantities}")
    if out is not None:
        print(f"written: {out}")
