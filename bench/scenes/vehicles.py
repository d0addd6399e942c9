"""Cars, vans, buses and bicycles, as solids visible from any side."""

from itertools import pairwise
from math import cos, pi, sin

from bench.scenes.heat import Surface
from bench.scenes.painter import Painter, Point, Thing
from bench.scenes.pose import Pose, block, quad

# half a length ahead of the middle, and share of the height; front last
PROFILES = {
    "sedan": (
        (-1, 0.2),
        (-0.99, 0.6),
        (-0.7, 0.66),
        (-0.42, 0.97),
        (0.08, 1),
        (0.42, 0.66),
        (0.9, 0.56),
        (1, 0.42),
        (1, 0.2),
    ),
    "hatch": ((-1, 0.2), (-0.98, 0.62), (-0.84, 0.95), (0.05, 1), (0.44, 0.65), (0.92, 0.55), (1, 0.4), (1, 0.2)),
    "van": ((-1, 0.14), (-1, 0.6), (-0.98, 1), (0.45, 1), (0.72, 0.6), (0.97, 0.48), (1, 0.14)),
    "bus": ((-1, 0.1), (-1, 0.5), (-0.99, 1), (0.97, 1), (1, 0.45), (1, 0.1)),
}
SIZES = {"sedan": (4.5, 1.45, 1.78), "hatch": (3.9, 1.5, 1.72), "van": (5.0, 2.0, 1.95), "bus": (10.5, 3.0, 2.5)}
CLOSEST_CAR = 6.0  # metres
BELT = 0.6  # share of the height where the windows begin


def car(p: Painter, s: Pose, moving: bool) -> None:
    """Paint a car, van or bus that drives along its heading or is parked."""
    dice, weather, me = p.dice, p.weather, p.thing("car")
    kind = dice.choices(tuple(PROFILES), (5, 5, 2, 0.6))[0]
    length, height, width = (side * dice.uniform(0.93, 1.07) for side in SIZES[kind])
    body, glass = weather.of(dice, "paint"), weather.of(dice, "glass")._replace(emissivity=dice.uniform(0.78, 0.9))
    warm = dice.uniform(6, 18) if moving else dice.choice((0, 0, 0, 4, 10)) * dice.random()
    glass = glass.warmer(0.2 * warm)
    half, roof = length / 2, 0.16 * (kind != "bus")
    under = [s.at(a * half, 0, c * width / 2) for a, c in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    p.cast(s.x, s.z, width if abs(s.c) < 0.5 else length, height)
    p.trace(under, 0.1 * warm - 6 * weather.sun + 0.7 * weather.clear * (1 - weather.sun))

    def spot(point: tuple[float, float], side: int) -> Point:
        narrow = 1 - roof * max(0.0, point[1] - BELT) / (1 - BELT)
        return s.at(point[0] * half, point[1] * height, side * narrow * width / 2)

    profile = PROFILES[kind]
    for i, (a, b) in enumerate(pairwise(profile)):
        flat = abs(b[0] - a[0]) * half > abs(b[1] - a[1]) * height  # roof, hood or lid
        ahead = (a[0] + b[0]) / 2
        if flat and (a[1] + b[1]) / 2 * height > p.view.height:
            continue
        if not flat and not s.faces_us(ahead * half, 0.0):
            continue
        pane = min(a[1], b[1]) >= BELT - 0.02 and abs(b[1] - a[1]) > 0.2
        hood = ahead > 0.4
        surface = glass if pane else body.warmer(warm * dice.uniform(0.5, 1) if hood else dice.gauss(0, 0.6))
        if flat and not hood and weather.sun < 0.2:  # roofs reflect the sky and lose heat to it
            surface = surface._replace(around=weather.zenith, temperature=surface.temperature - 1.5 * weather.clear)
        p.face(me, [spot(a, -1), spot(b, -1), spot(b, 1), spot(a, 1)], surface, rise=dice.gauss(0, 0.8))
        if i in (0, len(profile) - 2):
            _lights(p, me, s, ahead * half, width, height, weather.of(dice, "plastic").warmer(0.4 * warm))
    for side in (-1, 1):
        if s.faces_us(0.0, side * width / 2):
            p.face(
                me,
                [spot(point, side) for point in profile],
                body,
                rise=dice.gauss(0.5, 1),
                tilt=0.4 * warm * (1 if s.c > 0 else -1),
            )
            _seams(p, me, s, half, height, side * width / 2, body)
            _panes(p, me, [spot(q, side) for q in _windows(kind)], glass, kind)
            _wheels(p, me, s, (half, height, side * width / 2 * 1.01), kind, warm)


def _seams(p: Painter, me: Thing, s: Pose, half: float, height: float, across: float, body: Surface) -> None:
    """Paint the sill, which reflects the ground, and the gaps around the doors."""
    a, b = (-0.93 * half, across), (0.95 * half, across)
    p.face(me, quad(s, a, b, 0.2 * height, p.dice.uniform(0.32, 0.42) * height), body.warmer(p.dice.gauss(0, 1.2)))
    gaps = [
        (s.at(t * half, 0.25 * height, across), s.at(t * half, 0.62 * height, across), 0.025, 0.025)
        for t in (-0.35, 0.08, 0.42)
    ]
    if p.view.scale(s.z) > 25:
        p.rods(me, gaps, body.warmer(p.dice.gauss(0, 1.5)))


def _windows(kind: str) -> list[tuple[float, float]]:
    if kind == "bus":
        return [(-0.94, 0.5), (0.94, 0.5), (0.94, 0.9), (-0.94, 0.9)]
    rear = {"sedan": -0.6, "hatch": -0.82, "van": 0.1}[kind]
    return [
        (rear, 0.66),
        (0.32 if kind != "van" else 0.6, 0.66),
        (0.03 if kind != "van" else 0.45, 0.93),
        (rear + 0.17, 0.92),
    ]


def _panes(p: Painter, me: Thing, corners: list[Point], glass: Surface, kind: str) -> None:
    """Paint side windows, separated by pillars."""
    a, b, c, d = corners
    count = 6 if kind == "bus" else 2
    for i in range(count):
        t, u = i / count + 0.02, (i + 1) / count - 0.02
        low, high = [_between(a, b, v) for v in (t, u)], [_between(d, c, v) for v in (u, t)]
        p.face(me, [*low, *high], glass.warmer(p.dice.gauss(0, 0.6)), rise=p.dice.gauss(0, 1))


def _between(a: Point, b: Point, t: float) -> Point:
    return a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), a[2] + t * (b[2] - a[2])


def _wheels(p: Painter, me: Thing, s: Pose, spot: tuple[float, float, float], kind: str, warm: float) -> None:
    half, _, across = spot
    radius = 0.48 if kind == "bus" else 0.32
    rubber, hub = p.weather.of(p.dice, "rubber").warmer(0.3 * warm), p.weather.of(p.dice, "steel").warmer(0.2 * warm)
    for along in (-0.6, 0.64):
        for size, surface in ((radius, rubber), (0.55 * radius, hub)):
            rim = [(along * half + size * cos(t), radius + size * sin(t)) for t in (i * pi / 6 for i in range(12))]
            p.face(me, s.upright(rim, across), surface)


def _lights(p: Painter, me: Thing, s: Pose, along: float, width: float, height: float, surface: Surface) -> None:
    """Paint lamps and number plate at one end."""
    for across in (-0.36, 0.36):
        a, b = (along, (across - 0.09) * width), (along, (across + 0.09) * width)
        p.face(me, quad(s, a, b, 0.42 * height, 0.5 * height), surface)
    p.face(me, quad(s, (along, -0.14 * width), (along, 0.14 * width), 0.26 * height, 0.33 * height), surface.warmer(-2))


def bicycle(p: Painter, s: Pose) -> None:
    """Paint two rings and a frame; the background shows through."""
    dice, weather, me = p.dice, p.weather, p.thing("bicycle")
    k = dice.uniform(0.88, 1.08)
    rubber, steel = weather.of(dice, "rubber"), weather.of(dice, "steel")
    p.cast(s.x, s.z, 1.5 * abs(s.c) + 0.2, 0.5)
    for along in (-0.52, 0.52):
        rim = [(k * (along + 0.34 * cos(t)), k * (0.35 + 0.34 * sin(t))) for t in (i * pi / 9 for i in range(18))]
        p.loop(me, s.upright(rim), 0.06, rubber)
        p.rods(me, [(s.at(k * along, 0.32 * k), s.at(k * along, 0.38 * k), 0.07, 0.07)], steel)
    spots = {
        "rear": (-0.52, 0.35),
        "crank": (-0.06, 0.3),
        "seat": (-0.22, 0.9),
        "head": (0.36, 0.88),
        "front": (0.52, 0.35),
    }
    bars = [
        ("rear", "crank"),
        ("crank", "seat"),
        ("rear", "seat"),
        ("crank", "head"),
        ("seat", "head"),
        ("head", "front"),
    ]
    at = {name: s.at(k * a, k * b) for name, (a, b) in spots.items()}
    p.rods(me, [(at[a], at[b], 0.055, 0.055) for a, b in bars], steel)
    p.rods(me, [(s.at(-0.36 * k, 0.95 * k), s.at(-0.1 * k, 0.95 * k), 0.08, 0.06)], rubber)
    p.rods(
        me,
        [
            (s.at(0.36 * k, 1.0 * k, -0.28), s.at(0.36 * k, 1.0 * k, 0.28), 0.05, 0.05),
            (at["head"], s.at(0.34 * k, k), 0.05, 0.05),
        ],
        steel,
    )
    if dice.random() < 0.3:
        block(p, me, s.near(0.48, 0.0, up=0.75), (0.3, 0.25, 0.35), weather.of(dice, "plastic"))
