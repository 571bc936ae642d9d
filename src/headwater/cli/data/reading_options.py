"""Options that say how a file of logged transitions is to be read, for every command that does."""

import dataclasses
from typing import Annotated, Any, Literal

import tyro

from headwater.cli.frame import read_settings

_Kind = Literal["terminal", "truncated"]


def _option(text: str, value: str | None = None, **more: Any) -> Any:
    return tyro.conf.arg(help=text, metavar=value, help_behavior_hint="", **more)


_Column = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    _option(
        "Which column plays which role, as ROLE=COLUMN or ROLE=FAMILY_*; may be repeated. The "
        "roles: observations, actions, rewards, next_observations, terminals, truncations, dones, "
        "ends, starts, continues, episodes, steps, propensities, log_propensities, "
        "action_confidence; and unused, to leave columns alone.",
        "ROLE=COLUMN",
    ),
]


@dataclasses.dataclass(frozen=True)
class ReadingOptions:
    """What is said of a file beyond its content; see `headwater.load`."""

    column: _Column = ()
    action_low: Annotated[
        tuple[float, ...],
        _option("Lower bounds of the actions: one number, or one for each component.", "X…"),
    ] = ()
    action_high: Annotated[
        tuple[float, ...], _option("Upper bounds of the actions, likewise.", "X…")
    ] = ()
    action_bounds: Annotated[
        Literal["data"] | None, _option("Take the bounds of each component from the data.", "data")
    ] = None
    action_labels: Annotated[
        tuple[int, ...],
        _option("The numbers of discrete actions, in order, where these are not 0, 1, 2 ….", "N…"),
    ] = ()
    horizon: Annotated[int | None, _option("Time limit of an episode in steps.", "N")] = None
    dones: Annotated[
        _Kind | None,
        _option('What a column that only says "done" means.', "{terminal,truncated}"),
    ] = None
    never_terminal: Annotated[bool, _option("The process never ends by itself.")] = False
    episodes_end: Annotated[
        _Kind | None,
        _option(
            "How episodes end where only their number, a start or a counter shows that they do; by "
            "default truncated.",
            "{terminal,truncated}",
        ),
    ] = None
    episode_per_row: Annotated[bool, _option("Every row is an episode of its own.")] = False
    last_row: Annotated[
        Literal["step", "observation"] | None,
        _option(
            "What the last row of an episode is: a step like any other, or, as in RLDS, the last "
            "observation alone.",
            "{step,observation}",
        ),
    ] = None

    missing_actions: Annotated[
        Literal["keep", "drop"] | None,
        _option(
            "What becomes of rows whose action is empty: keep them, to have it inferred, or drop "
            "them.",
            "{keep,drop}",
        ),
    ] = None

    def given(self) -> dict[str, Any] | None:
        """The options of `headwater.load` that were given; `None` if there are none."""
        columns = {
            role: names.split(",") if "," in names else names
            for role, names in read_settings(self.column).items()
        }
        options: dict[str, Any] = {"columns": columns}
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            options[field.name] = list(value) if isinstance(value, tuple) else value
        # Not by equality: a horizon of 0 is a mistake to be told.
        found = {
            name: value
            for name, value in options.items()
            if value is not None and value is not False and value != [] and value != {}
        }
        return found or None


Reading = Annotated[
    ReadingOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="reading-of-the-data", help="")
]
"""A parameter of a command that reads logged transitions."""
AS_IT_IS = ReadingOptions()
"""Nothing is said beyond the content."""
