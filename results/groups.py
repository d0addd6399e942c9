"""Names of groups of images: images of one group are not independent, and groups may nest in larger ones, as flights in dates."""

from collections.abc import Sequence

WITHIN = " / "  # between the larger group and the smaller one, in a group's name


def nested(*parts: str) -> str:
    """Return the name of a group. parts: the larger group first, if there is one."""
    return WITHIN.join(part.replace(WITHIN, "/") for part in parts)


def larger(groups: Sequence[str]) -> list[str] | None:
    """Return the larger group of each; None if they do not nest."""
    if not groups or any(WITHIN not in name for name in groups):
        return None
    return [name.split(WITHIN, 1)[0] for name in groups]
