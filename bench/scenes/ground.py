"""The ground of an outdoor scene: strips of road, sidewalk, grass, water along a way, with markings, patches and tracks."""

from collections.abc import Callable
from functools import partial
from math import cos, pi, sin
from random import Random
from typing import NamedTuple

from bench.scenes.heat import Surface
from bench.scenes.painter import Painter
from bench.scenes.pose import Pose

FAR = 300.0  # metres: the ground ends here


class Strip(NamedTuple):
    """Ground of one kind between two distances to the right of the camera, all along the way."""

    kind: str
    left: float
    right: float


class Way:
    """The coordinates of the street: `u` metres to its right and `v` metres along it, from the camera."""

    def __init__(self, turn: float) -> None:
        self.turn, self.c, self.s = turn, cos(turn), sin(turn)

    def stand(self, u: float, v: float, turned: float = 0.0) -> Pose:
        """Return a pose; the heading is relative to the way, 0 goes along it."""
        return Pose(u * self.c + v * self.s, v * self.c - u * self.s, pi / 2 - self.turn + turned)

    def across(self, x: float, z: float) -> float:
        """Return u of a place."""
        return x * self.c - z * self.s


def draw_strips(dice: Random, way: Way) -> list[Strip]:
    """Draw the ground from left to right: a road or a path in the middle, and strips on each side.

    A camera that looks across the way is on the near side of it.
    """
    middle = dice.choices(("road", "path"), (4, 1))[0]
    half = dice.uniform(2.8, 7.5) if middle == "road" else dice.uniform(1, 2.2)
    out = [Strip("road" if middle == "road" else "sidewalk", -half, half)]
    for side in (-1, 1):
        edge, kinds = half, []
        if middle == "road" and dice.random() < 0.3:
            kinds.append(("grass", dice.uniform(0.6, 2)))
        if middle == "road" and dice.random() < 0.8:
            kinds.append(("sidewalk", dice.uniform(1.4, 4.5)))
        if abs(way.s) > 0.25 or dice.random() < 0.45:
            least = max(1.0, 9 * abs(way.s) - half)  # so that no wall fills the view
            kinds.append((dice.choice(("grass", "grass", "earth", "sidewalk")), dice.uniform(least, least + 5)))
        kinds += dice.choices(
            ([("houses", FAR)], [("park", FAR)], [("river", dice.uniform(8, 40)), ("park", FAR)], [("field", FAR)]),
            (6, 3, 1.3, 1),
        )[0]
        for kind, wide in kinds:
            out.append(Strip(kind, edge, edge + wide) if side > 0 else Strip(kind, -edge - wide, -edge))
            edge += wide
    left, right = (pick(0.85 * edge for edge in _edges(out)) for pick in (min, max))
    share = dice.random() if abs(way.s) < 0.25 else dice.uniform(0, 0.15) if way.s < 0 else dice.uniform(0.85, 1)
    camera = left + share * (right - left)
    return [Strip(s.kind, s.left - camera, s.right - camera) for s in out]


def _edges(strips: list[Strip]) -> list[float]:
    """Return the edges of the ground that people and cars use."""
    return [edge for s in strips if s.kind in ("road", "sidewalk", "grass", "earth") for edge in (s.left, s.right)]


def paint_ground(p: Painter, way: Way, strips: list[Strip]) -> None:
    """Paint sky, soil, strips, kerbs, markings and stains."""
    dice, weather = p.dice, p.weather
    rows, columns = p.view.size
    cloud = (1 - abs(2 * weather.clear - 1)) * dice.uniform(0.2, 2)
    p.flat(
        p.stuff("sky"),
        [(0, 0), (columns, 0), (columns, rows), (0, rows)],
        Surface(0.0, 1.0, mottle=cloud + 0.1, sky=1.0),
        1.0,
    )
    under = dice.choice(("grass", "earth"))
    surfaces = {
        "road": weather.ground(dice, "asphalt"),
        "sidewalk": weather.ground(dice, dice.choice(("concrete", "asphalt"))),
        "grass": weather.ground(dice, "grass"),
        "earth": weather.ground(dice, "earth"),
        "river": Surface(weather.water, 0.98, 0.0, 0.05, 0.15, 0.0, 0.25, 1.0, dice.uniform(0.7, 1.0)),
    }
    surfaces |= {
        "houses": surfaces[under],
        "park": surfaces["grass"],
        "field": surfaces[dice.choice(("grass", "earth"))],
    }
    classes = {"earth": "background", "houses": "grass" if under == "grass" else "background", "park": "grass"}
    classes["field"] = "grass" if surfaces["field"] is surfaces["grass"] else "background"

    def lay(name: str, left: float, right: float, surface: Surface, start: float = -FAR, end: float = FAR) -> None:
        thing = p.stuff(classes.get(name, name))
        corners = [way.stand(u, v) for u, v in ((left, start), (right, start), (right, end), (left, end))]
        p.face(thing, [s.at(0, 0) for s in corners], surface)

    for strip in sorted(strips, key=lambda s: -abs(s.left + s.right)):
        lay(strip.kind, strip.left, strip.right, surfaces[strip.kind])
    road = next((s for s in strips if s.kind == "road"), None)
    if road and dice.random() < 0.3:  # a crossing
        start = dice.uniform(6, 40)
        lay("road", -60, 60, surfaces["road"], start, start + dice.uniform(5, 10))
    if road:
        kerbs = [
            edge for edge, out in ((road.left, -0.3), (road.right, 0.3)) if kind_at(strips, edge + out) == "sidewalk"
        ]
        for edge in kerbs:
            lay("sidewalk", edge - 0.12, edge + 0.12, surfaces["sidewalk"].warmer(dice.uniform(-2, 2)))
        _mark_road(p, way, road, partial(lay, "road"), surfaces["road"])


def _mark_road(p: Painter, way: Way, road: Strip, lay: Callable[..., None], asphalt: Surface) -> None:
    """Paint lines, a zebra crossing, repaired patches, and warm wheel tracks."""
    dice = p.dice
    paint = asphalt.warmer(dice.uniform(-2.5, 0.5))
    if dice.random() < 0.7:
        middle, dash = (road.left + road.right) / 2, dice.uniform(2, 5)
        for i in range(-4, 14):
            lay(middle - 0.08, middle + 0.08, paint, 2 * i * dash, (2 * i + 1) * dash)
    if dice.random() < 0.3:  # a zebra crossing
        v, u = dice.uniform(4, 25), road.left + 0.3
        while u < road.right:
            lay(u, u + 0.5, paint, v, v + 3)
            u += 1.0
    for _ in range(dice.randrange(0, 5)):  # repaired patches
        u, v = dice.uniform(road.left, road.right - 1), dice.uniform(2, 40)
        lay(
            u,
            min(road.right, u + dice.uniform(0.5, 3)),
            asphalt.warmer(dice.gauss(0, 1.2)),
            v,
            v + dice.uniform(0.6, 8),
        )
    for u in (road.left * 0.5 + road.right * 0.5 + side for side in (-2.4, -0.9, 0.9, 2.4)):  # wheel tracks
        if road.left < u < road.right:
            p.trace(
                [way.stand(a, v).at(0, 0) for a, v in ((u - 0.2, 0), (u + 0.2, 0), (u + 0.2, 80), (u - 0.2, 80))],
                dice.gauss(0.3, 0.6),
            )


def kind_at(strips: list[Strip], u: float) -> str:
    """Return the type of ground at a place; empty beyond the last strip."""
    return next((s.kind for s in strips if s.left <= u < s.right), "")
