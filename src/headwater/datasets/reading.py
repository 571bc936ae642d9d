"""How a file was read, in words."""

from typing import Any

_SHOWN = 6
"""Columns of a role that are listed; of more, the first and the last."""

ROLE_OF_LOOKS = {
    "whether anything follows": "continues",
    "the end of an episode": "dones",
    "the start of an episode": "starts",
    "the number of an episode": "episodes",
    "what follows a row": "next_observations",
    "the step within an episode": "steps",
    "the probability of the logged action": "propensities",
}
"""What a name of a column can look like, and the role that it would then play."""


def reading_rows(
    metadata: dict[str, Any], further_rewards: tuple[str, ...] = ()
) -> list[tuple[str, str]]:
    """Names and values for a table: which columns were used for what, and which were not.

    **Arguments:** `metadata`: of a dataset that was read. Empty if nothing is known of columns;
    `further_rewards`: columns that a method reads as rewards beside the one of the dataset.
    """
    reading = metadata.get("reading")
    rows: list[tuple[str, str]] = []
    if isinstance(reading, dict):
        used = [f"{role}: {_listed(names)}" for role, names in reading["columns"].items()]
        used += [f"further rewards: {', '.join(further_rewards)}"] if further_rewards else []
        if used:
            rows.append(("columns used", "; ".join(used)))
        ignored, looks = (
            {name: said for name, said in reading[part].items() if name not in further_rewards}
            for part in ("ignored", "looks")
        )
        told = {*ignored, *looks, *further_rewards}
        plain = [name for name in reading["unused"] if name not in told]
        if plain:
            rows.append(("not used", _listed(plain)))
        rows.extend(("not used", f"{name}: {reason}") for name, reason in ignored.items())
        for name, what in looks.items():
            role = ROLE_OF_LOOKS[what]
            rows.append(
                (
                    "not used",
                    f"{name}, which looks like {what}: if it is, say columns={{'{role}': "
                    f"'{name}'}} (`--column {role}={name}`)",
                )
            )
        rows.extend(("read as", note) for note in reading["notes"])
    unmarked = _count(metadata, "unmarked_ends")
    if unmarked:
        stated = reading.get("episodes_end") if isinstance(reading, dict) else None
        rows.append(
            (
                "ends",
                f"{unmarked:,} {'ends' if unmarked > 1 else 'end'} of episodes show in a number, a "
                "start or a counter alone, and are "
                + (
                    f"{stated}, as you say"
                    if stated
                    else "taken as truncated; if the process ended there, say "
                    "episodes_end='terminal' (`--episodes-end terminal`)"
                ),
            )
        )
    dropped = dropped_sentence(metadata)
    if dropped is not None:
        rows.append(("dropped", dropped))
    return rows


def dropped_sentence(metadata: dict[str, Any]) -> str | None:
    """What of the data was left out, if anything, and how much reward stood there."""
    rows = _count(metadata, "dropped_rows")
    if not rows:
        return None
    sentence = f"{rows:,} last rows of truncated episodes had no known successor and were dropped"
    rewarded = _count(metadata, "dropped_reward_rows")
    if rewarded:
        total = metadata.get("dropped_reward_sum")
        sentence += f"; {rewarded:,} of them had rewards"
        if isinstance(total, int | float):
            sentence += f", together {total:.6g}"
    return sentence


def _count(metadata: dict[str, Any], name: str) -> int:
    value = metadata.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _listed(names: list[str]) -> str:
    if len(names) > _SHOWN:
        return f"{names[0]} to {names[-1]} ({len(names)} columns)"
    return ", ".join(names)
