"""Buildings with storeys, windows, doors and roofs; fences; distant skylines."""

from collections.abc import Callable

from bench.scenes.heat import Surface
from bench.scenes.painter import Painter, Point, Thing
from bench.scenes.pose import Pose, quad

Place = tuple[float, float]

MOST_WINDOWS = 140  # on one wall


def building(p: Painter, s: Pose, size: tuple[float, float, float]) -> None:
    """Paint a house of (length, height, depth) centred at `s`: the visible walls, and the roof if it slopes."""
    dice, weather, me = p.dice, p.weather, p.thing("building")
    length, height, depth = size
    material = dice.choice(("brick", "plaster", "concrete"))
    style = (dice.uniform(2.7, 3.6), dice.uniform(1.8, 4.2), dice.uniform(0.35, 0.75), dice.uniform(0.35, 0.65))
    gable = height < 9 and dice.random() < 0.6
    a, c = length / 2, depth / 2
    walls = [
        ((-a, c), (a, c), (0.0, c)),
        ((-a, -c), (a, -c), (0.0, -c)),
        ((a, -c), (a, c), (a, 0.0)),
        ((-a, -c), (-a, c), (-a, 0.0)),
    ]
    seen = [wall for wall in walls if s.faces_us(*wall[2])]
    if gable:
        ridge = height + dice.uniform(0.25, 0.45) * depth
        roof = weather.of(dice, "roof")
        for side in (1, -1):
            slope = [
                s.at(-a, height - 0.2, side * c),
                s.at(a, height - 0.2, side * c),
                s.at(a, ridge, 0),
                s.at(-a, ridge, 0),
            ]
            p.face(me, slope, roof._replace(around=weather.zenith).warmer(dice.gauss(0, 1)), rise=dice.gauss(0, 1.5))
    for first, last, normal in seen:
        x, _, _ = s.at(*normal[:1], 0, normal[1])
        lit = max(0.0, min(1.0, 0.5 - 0.8 * weather.sun_from * (1 if x > 0 else -1))) * dice.uniform(0.6, 1)
        wall = weather.of(dice, material, lit).warmer(0.06 * weather.heated)
        if gable and normal[0]:
            p.face(
                me,
                [
                    s.at(first[0], height - 0.1, first[1]),
                    s.at(last[0], height - 0.1, last[1]),
                    s.at(normal[0], ridge, 0),
                ],
                wall,
            )
        p.face(me, quad(s, first, last, 0.0, height), wall, rise=-dice.uniform(0, 1.5), tilt=dice.gauss(0, 0.8))
        _storeys(p, me, s, (first, last), height, wall, style)
        if dice.random() < 0.75:
            _doors(p, s, (first, last), wall)


def _along(first: tuple[float, float], last: tuple[float, float], t: float) -> tuple[float, float]:
    return first[0] + t * (last[0] - first[0]), first[1] + t * (last[1] - first[1])


def _storeys(
    p: Painter,
    me: Thing,
    s: Pose,
    ends: tuple[tuple[float, float], tuple[float, float]],
    height: float,
    wall: Surface,
    style: tuple[float, ...],
) -> None:
    """Paint slabs between storeys, and a grid of windows where large enough to see."""
    dice, weather = p.dice, p.weather
    first, last = ends
    storey, bay, wide, tall = style
    length = abs(last[0] - first[0]) + abs(last[1] - first[1])
    a, b = s.at(first[0], 0, first[1]), s.at(last[0], 0, last[1])
    if min(a[2], b[2]) < 0.5:
        a, b = (q if q[2] >= 0.5 else (q[0], 0.0, 0.5) for q in (a, b))
    z = min(a[2], b[2])
    floors, bays = max(1, int(height / storey)), max(1, int(length / bay))
    if dice.random() < 0.5 and p.view.scale(z) * 0.3 > 1:
        slab = wall.warmer(dice.uniform(-1, 1) + 0.05 * weather.heated)
        for i in range(1, floors):
            p.face(me, quad(s, first, last, i * storey - 0.12, i * storey + 0.14), slab)
    glass = weather.of(dice, "glass").warmer(0.12 * weather.heated)
    panes = [glass.warmer(dice.gauss(0, 0.7) + dice.choice((0, 0, 0.1)) * weather.heated) for _ in range(3)]
    panes.append(glass._replace(emissivity=0.75, around=weather.air - 0.35 * (weather.air - weather.zenith)))
    (ax, _), (bx, _) = p.view.project([a, b])
    if abs(ax - bx) / bays * wide < 1.2 or floors * bays > 12 * MOST_WINDOWS:
        return
    windows: list[list[Point]] = []
    low = (1 - tall) * 0.55 * storey
    for i in range(floors):
        for j in range(bays):
            if dice.random() < 0.06:
                continue
            middle = (j + 0.5) / bays
            t, u = middle - wide / bays / 2, middle + wide / bays / 2
            windows.append(
                quad(
                    s,
                    _along(first, last, t),
                    _along(first, last, u),
                    i * storey + low,
                    i * storey + low + tall * storey,
                )
            )
    seen = [w for w in windows if w[0][2] > 0.5 and w[1][2] > 0.5 and abs(w[0][0]) < 1.3 * p.view.half_width(w[0][2])]
    if weather.heated > 6 and dice.random() < 0.6:  # radiators under the windows warm the wall
        warm = [
            [(x, y - 0.9 * low, z) for x, y, z in (w[0], w[1])] + [w[1], w[0]]
            for w in seen[:MOST_WINDOWS]
            if dice.random() < 0.4
        ]
        p.faces(me, warm, [wall.warmer(dice.uniform(0.02, 0.1) * weather.heated) for _ in range(2)] if warm else [])
    p.faces(me, seen[:MOST_WINDOWS], panes)


def _doors(p: Painter, s: Pose, ends: tuple[tuple[float, float], tuple[float, float]], wall: Surface) -> None:
    """Paint one or a few doors at street level."""
    first, last = ends
    length = abs(last[0] - first[0]) + abs(last[1] - first[1])
    count = p.dice.randrange(1, max(2, min(5, int(length / 5) + 1)))
    for i in range(count):
        t = (i + p.dice.uniform(0.25, 0.75)) / count
        wide = p.dice.choice((1.0, 1.2, 1.8, 2.6)) / length
        door(
            p,
            quad(s, _along(first, last, t), _along(first, last, min(1.0, t + wide)), 0.0, p.dice.uniform(2.0, 2.4)),
            wall,
        )


def door(p: Painter, corners: list[Point], wall: Surface) -> None:
    """Paint a door in an upright quad (two lower corners first): a frame, a leaf, a pane or an open gap, a handle."""
    dice, weather = p.dice, p.weather
    if min(q[2] for q in corners) < 0.6:
        return
    me = p.thing("door")
    leaf = weather.of(dice, dice.choice(("wood", "steel", "glass", "board")), 0.5).warmer(0.08 * weather.heated)
    p.face(me, corners, wall.warmer(dice.uniform(-0.8, 0.8)))
    open_ = dice.random() < 0.15
    inner = leaf.warmer(0.4 * weather.heated + dice.gauss(0, 0.6)) if open_ else leaf
    p.face(me, inset(corners, 0.08, 0.0, 0.92, 0.95), inner, rise=dice.gauss(0, 1.2))
    if open_:
        return
    if dice.random() < 0.5:
        low = dice.choice((0.15, 0.5))
        p.face(me, inset(corners, 0.25, low, 0.75, 0.85), weather.of(dice, "glass", 0.5).warmer(0.12 * weather.heated))
    p.face(me, inset(corners, 0.8, 0.42, 0.88, 0.52), weather.of(dice, "steel", 0.5))


def inset(corners: list[Point], left: float, low: float, right: float, high: float) -> list[Point]:
    """Return the part of a quad between shares of its width and height."""
    a, b, c, d = corners

    def at(t: float, u: float) -> Point:
        x, y, z = ((1 - u) * ((1 - t) * a[i] + t * b[i]) + u * ((1 - t) * d[i] + t * c[i]) for i in range(3))
        return x, y, z

    return [at(left, low), at(right, low), at(right, high), at(left, high)]


def fence(p: Painter) -> Callable[[Place, Place], None]:
    """Return a function that paints a piece of a random fence from place to place (x, z)."""
    dice, weather, it = p.dice, p.weather, p.stuff("fence")
    tall, kind = dice.uniform(0.8, 2.0), dice.choice(("pickets", "pickets", "rails", "boards", "mesh"))
    surface = weather.of(dice, dice.choice(("wood", "steel", "paint")))

    def piece(a: Place, b: Place) -> None:
        def at(t: float, up: float) -> Point:
            return a[0] + t * (b[0] - a[0]), up * tall, a[1] + t * (b[1] - a[1])

        (ax, _), (bx, _) = p.view.project([at(0, 0), at(1, 0)])
        rods = [(at(t, 0), at(t, 1), 0.1, 0.1) for t in (0, 1)]
        rods += [(at(0, up), at(1, up), 0.07, 0.07) for up in ((0.15, 0.9) if kind != "rails" else (0.3, 0.6, 0.9))]
        if kind == "boards":
            p.face(it, [at(0, 0.03), at(1, 0.03), at(1, 1), at(0, 1)], surface, tilt=dice.gauss(0, 1))
            return
        if kind == "pickets":
            count = min(25, int(abs(ax - bx) / 3.2))
            rods += [(at(i / count, 0.05), at(i / count, 1), 0.06, 0.05) for i in range(count)]
        elif kind == "mesh":
            count = min(8, int(abs(ax - bx) / 7))
            for t, u in ((i / count, (i + 1) / count) for i in range(count)):
                rods += [(at(t, 0), at(u, 1), 0.01, 0.01), (at(u, 0), at(t, 1), 0.01, 0.01)]
        p.rods(it, rods, surface)

    return piece


def skyline(p: Painter, z: float) -> None:
    """Paint distant buildings as silhouettes at the horizon."""
    dice, half = p.dice, p.view.half_width(z)
    for _ in range(dice.randrange(2, 8)):
        x, wide, tall = dice.uniform(-half, half), dice.uniform(0.05, 0.3) * half, dice.uniform(0.03, 0.16) * z
        me, s = p.thing("building"), Pose(x, z)
        wall = p.weather.of(dice, "concrete")
        p.face(me, quad(s, (-wide / 2, 0), (wide / 2, 0), 0, tall), wall, rise=dice.gauss(0, 1))
        storeys = int(min(p.view.scale(z) * tall / 4, 12))
        lines = [
            (
                s.at(-0.42 * wide, (i + 0.5) * tall / storeys),
                s.at(0.42 * wide, (i + 0.5) * tall / storeys),
                0.3 * tall / storeys,
                0.3 * tall / storeys,
            )
            for i in range(storeys)
        ]
        if lines and dice.random() < 0.7:
            p.rods(me, lines, wall.warmer(dice.gauss(0, 1.2)))
