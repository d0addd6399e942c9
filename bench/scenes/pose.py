"""Position and heading of objects, and solids built from them."""

from math import cos, sin

from bench.scenes.heat import Surface
from bench.scenes.painter import Painter, Point, Thing


class Pose:
    """A place on the ground (metres) and a heading (radians): `at` maps (along, up, across) to a point in space."""

    def __init__(self, x: float, z: float, heading: float = 0.0, up: float = 0.0) -> None:
        self.x, self.z, self.up, self.heading = x, z, up, heading
        self.c, self.s = cos(heading), sin(heading)

    def at(self, along: float, up: float, across: float = 0.0) -> Point:
        """Return a point in space."""
        return (self.x + along * self.c - across * self.s, self.up + up, self.z + along * self.s + across * self.c)

    def here(self, x: float, z: float) -> tuple[float, float]:
        """Return (along, across) of a place."""
        return (x - self.x) * self.c + (z - self.z) * self.s, (z - self.z) * self.c - (x - self.x) * self.s

    def near(self, along: float, across: float, turn: float = 0.0, up: float = 0.0) -> "Pose":
        """Return a pose relative to this one."""
        x, _, z = self.at(along, 0, across)
        return Pose(x, z, self.heading + turn, self.up + up)

    def faces_us(self, along: float, across: float) -> bool:
        """Return whether a side whose outward normal, and whose middle, is (along, across) faces the camera."""
        x, _, z = self.at(along, 0, across)
        return x * (along * self.c - across * self.s) + z * (along * self.s + across * self.c) < 0

    def upright(self, points: list[tuple[float, float]], across: float = 0.0) -> list[Point]:
        """Map points (along, up) of an upright plane to space."""
        return [self.at(along, up, across) for along, up in points]


def quad(s: Pose, a: tuple[float, float], b: tuple[float, float], low: float, high: float) -> list[Point]:
    """Return the upright rectangle over the line from a to b, both (along, across)."""
    return [s.at(a[0], low, a[1]), s.at(b[0], low, b[1]), s.at(b[0], high, b[1]), s.at(a[0], high, a[1])]


def block(
    p: Painter, thing: Thing, s: Pose, size: tuple[float, float, float], surface: Surface, up: float = 0.0
) -> None:
    """Paint a box of (length, height, width) whose bottom is `up` above the ground: the visible sides and top."""
    half, height, wide = size[0] / 2, size[1], size[2] / 2
    for a, b, side in (
        ((half, -wide), (half, wide), (half, 0.0)),
        ((-half, -wide), (-half, wide), (-half, 0.0)),
        ((-half, wide), (half, wide), (0.0, wide)),
        ((-half, -wide), (half, -wide), (0.0, -wide)),
    ):
        if s.faces_us(*side):
            p.face(thing, quad(s, a, b, up, up + height), surface.warmer(p.dice.gauss(0, 0.4)), p.dice.gauss(0, 0.6))
    if s.up + up + height < p.view.height:
        corners = ((-half, -wide), (half, -wide), (half, wide), (-half, wide))
        p.face(thing, [s.at(a, up + height, c) for a, c in corners], surface.warmer(p.dice.gauss(0, 0.6)))
