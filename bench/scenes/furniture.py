"""Objects in rooms: tables, chairs, monitors, lamps, bins, and background objects."""

from math import cos, pi, sin

from bench.scenes.heat import Surface
from bench.scenes.living import person
from bench.scenes.painter import Painter
from bench.scenes.pose import Pose, block, quad


def table(p: Painter, s: Pose, size: tuple[float, float, float]) -> None:
    """Paint a table or a desk of (length, height, width)."""
    dice, me = p.dice, p.thing("table")
    length, height, width = size
    surface, legs = p.weather.of(dice, "wood"), p.weather.of(dice, dice.choice(("steel", "wood")))
    p.cast(s.x, s.z, length * max(0.4, abs(s.c)), 0.4 * height)
    if dice.random() < 0.2:  # round, on one foot
        p.rods(me, [(s.at(0, 0), s.at(0, height), 0.1, 0.1), (s.at(-0.25, 0.03), s.at(0.25, 0.03), 0.06, 0.06)], legs)
        rim = [s.at(0.5 * length * cos(t), height, 0.5 * length * sin(t)) for t in (i * pi / 9 for i in range(18))]
        p.face(me, [(x, y - 0.04, z) for x, y, z in rim], surface.warmer(-0.4))
        p.face(me, rim, surface)
        return
    if dice.random() < 0.35:  # panels instead of legs
        for along in (-0.47, 0.47):
            block(
                p, me, s.near(along * length, 0), (0.04, height - 0.03, 0.9 * width), surface.warmer(dice.gauss(0, 0.3))
            )
    else:
        feet = sorted(
            ((a * length, c * width) for a in (-0.46, 0.46) for c in (-0.44, 0.44)),
            key=lambda q: -s.at(q[0], 0, q[1])[2],
        )
        p.rods(me, [(s.at(a, 0, c), s.at(a, height, c), 0.055, 0.055) for a, c in feet], legs)
    block(p, me, s, (length, 0.04, width), surface, up=height - 0.04)
    for _ in range(dice.choice((0, 0, 1, 2))):  # where a cup or a hand was
        spot = s.at(dice.uniform(-0.4, 0.4) * length, height, dice.uniform(-0.35, 0.35) * width)
        if height < p.view.height:
            p.ball(me, spot, 0.06, 0.025, surface.warmer(dice.uniform(0.5, 2.5)))


def chair(p: Painter, s: Pose, taken: bool = False) -> None:
    """Paint a chair that faces along the heading; warm where somebody sat."""
    dice, weather, me = p.dice, p.weather, p.thing("chair")
    surface, legs = weather.of(dice, dice.choice(("wood", "plastic", "board"))), weather.of(dice, "steel")
    seat, wide, tall = dice.uniform(0.42, 0.5), dice.uniform(0.4, 0.5), dice.uniform(0.8, 1.05)
    p.cast(s.x, s.z, wide, 0.3)
    if dice.random() < 0.45:  # on castors
        ends = [s.at(0.27 * cos(t), 0.04, 0.27 * sin(t)) for t in (i * 2 * pi / 5 + 0.3 for i in range(5))]
        p.rods(
            me, [(s.at(0, 0.09), end, 0.05, 0.04) for end in ends] + [(s.at(0, 0.09), s.at(0, seat), 0.06, 0.06)], legs
        )
    else:
        feet = [(a * wide / 2, c * wide / 2) for a in (-0.95, 0.95) for c in (-0.9, 0.9)]
        p.rods(me, [(s.at(a, 0, c), s.at(0.9 * a, seat, 0.9 * c), 0.035, 0.035) for a, c in feet], legs)
    warm = surface.warmer(dice.choice((0.0, 0.0, 2.0, 4.0)) * dice.random())

    def back() -> None:
        low = seat + dice.choice((0.03, 0.15))
        posts = [
            (s.at(-0.45 * wide, seat, c * wide), s.at(-0.52 * wide, tall, c * wide), 0.035, 0.035)
            for c in (-0.42, 0.42)
        ]
        p.rods(me, posts, legs)
        a, b = (-0.47 * wide, -0.46 * wide), (-0.47 * wide, 0.46 * wide)
        p.face(me, quad(s, a, b, low, tall), warm.warmer(-0.3), rise=-0.6)

    def cushion() -> None:
        block(p, me, s, (wide, 0.05, wide), warm, up=seat - 0.05)

    parts = (back, cushion) if s.s < 0 else (cushion, back)  # heading to us: the back is behind
    parts[0]()
    if taken and s.s >= 0:
        person(p, s, "sit")
    parts[1]()
    if taken and s.s < 0:
        person(p, s, "sit")


def monitor(p: Painter, s: Pose) -> None:
    """Paint a screen on a foot that faces along the heading; warm and uneven if switched on."""
    dice, weather, me = p.dice, p.weather, p.thing("monitor")
    wide = dice.uniform(0.42, 0.75)
    tall = wide * dice.uniform(0.55, 0.65)
    case = weather.of(dice, "plastic").warmer(dice.choice((0, 1.5)))
    on = dice.random() < 0.65
    heat = dice.uniform(3, 11) if on else dice.gauss(0, 0.6)
    p.rods(
        me, [(s.at(0, 0.02), s.at(0, 0.16), 0.06, 0.06), (s.at(0, 0.02, -0.11), s.at(0, 0.02, 0.11), 0.05, 0.05)], case
    )
    a, b = (0.0, -wide / 2), (0.0, wide / 2)
    p.face(me, quad(s, a, b, 0.12, 0.12 + tall), case)
    in_a, in_b = (0.0, -0.46 * wide), (0.0, 0.46 * wide)
    if s.faces_us(1.0, 0.0):
        screen = Surface(case.temperature + heat, 0.9, weather.air + dice.uniform(-1, 3), 0.5, 0.1)
        p.face(
            me,
            quad(s, in_a, in_b, 0.14, 0.1 + tall),
            screen,
            rise=dice.uniform(-0.5, 2.5) * on,
            tilt=dice.gauss(0, 0.8),
        )
    else:
        vent = case.warmer(0.8 * heat)
        p.face(me, quad(s, (0.0, -0.2 * wide), (0.0, 0.2 * wide), 0.2, 0.12 + 0.7 * tall), vent, rise=2.0 * on)


def standing_lamp(p: Painter, s: Pose, tall: float) -> None:
    """Paint a floor lamp, or a desk lamp if `tall` is small; all of it is of class lamp."""
    dice, weather, me = p.dice, p.weather, p.thing("lamp")
    metal = weather.of(dice, "steel")
    on, k = dice.random() < 0.6, tall**0.5
    shade = weather.of(dice, "board").warmer(dice.uniform(3, 16) * on)
    p.rods(
        me,
        [(s.at(0, 0), s.at(0, 0.85 * tall), 0.03, 0.03), (s.at(-0.12 * k, 0.02), s.at(0.12 * k, 0.02), 0.05, 0.05)],
        metal,
    )
    p.rods(me, [(s.at(0, 0.75 * tall), s.at(0, tall), 0.36 * k, 0.22 * k)], shade)
    if on:
        p.ball(me, s.at(0, 0.84 * tall), 0.08 * k, 0.06 * k, shade.warmer(dice.uniform(2, 9)))


def hanging_lamp(p: Painter, s: Pose, ceiling: float) -> None:
    """Paint a lamp on a wire, a tube, or a panel in the ceiling."""
    dice, weather, me = p.dice, p.weather, p.thing("lamp")
    on = dice.random() < 0.7
    head = weather.of(dice, "board").warmer(dice.uniform(3, 18) * on)
    kind = dice.choice(("wire", "tube", "panel", "panel"))
    if kind == "wire":
        low = ceiling - dice.uniform(0.4, 1.0)
        p.rods(me, [(s.at(0, low), s.at(0, ceiling), 0.015, 0.015)], weather.of(dice, "plastic"))
        p.rods(me, [(s.at(0, low), s.at(0, low + 0.22), 0.42, 0.12)], head)
        p.ball(me, s.at(0, low), 0.2, 0.04, head.warmer(dice.uniform(1, 8) * on))
        return
    wide, long = (0.16, 1.3) if kind == "tube" else (0.6, dice.choice((0.6, 1.2)))
    corners = [
        s.at(a * long, ceiling - 0.02, c * wide) for a, c in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
    ]
    p.face(me, corners, head)
    inner = [s.at(a * long, ceiling - 0.02, c * wide) for a, c in ((-0.4, -0.3), (0.4, -0.3), (0.4, 0.3), (-0.4, 0.3))]
    p.face(me, inner, head.warmer(dice.uniform(0.5, 4) * on))


def waste_basket(p: Painter, s: Pose) -> None:
    """Paint an indoor trash can."""
    dice, me = p.dice, p.thing("trash can")
    tall, surface = dice.uniform(0.28, 0.65), p.weather.of(dice, "plastic")
    p.cast(s.x, s.z, 0.3, 0.2)
    p.rods(me, [(s.at(0, 0), s.at(0, tall), 0.24, 0.32)], surface)
    p.ball(me, s.at(0, tall), 0.16, 0.045, surface.warmer(dice.gauss(0, 0.8)))


def clutter(p: Painter, s: Pose) -> None:
    """Paint a background object on a table: a cup, a kettle, a book, a box."""
    dice, it = p.dice, p.stuff("background")
    if dice.random() < 0.5:
        surface = p.weather.of(dice, "plastic").warmer(dice.choice((0, 0, 12, 25)) * dice.random())
        tall = dice.uniform(0.09, 0.25)
        p.rods(it, [(s.at(0, 0), s.at(0, tall), 0.7 * tall, 0.6 * tall)], surface)
    else:
        size = (dice.uniform(0.12, 0.35), dice.uniform(0.03, 0.3), dice.uniform(0.12, 0.3))
        block(p, it, s, size, p.weather.of(dice, "board"))


def cupboard(p: Painter, s: Pose) -> None:
    """Paint a cupboard, a shelf, a pile of boxes or a warm machine (background)."""
    dice, it = p.dice, p.stuff("background")
    size = (dice.uniform(0.5, 1.6), dice.choice((0.5, 0.8, 1.2, 1.9)) * dice.uniform(0.9, 1.1), dice.uniform(0.35, 0.6))
    surface = p.weather.of(dice, "board").warmer(dice.choice((0, 0, 0, 0, 4)) * dice.random())
    p.cast(s.x, s.z, size[0], 0.4, surface.temperature - p.weather.air)
    block(p, it, s, size, surface)
    for i in range(dice.randrange(0, 4)):
        up = (i + 0.5) / 4 * size[1]
        side = -size[2] / 2 * 1.01 if s.faces_us(0, -size[2] / 2) else size[2] / 2 * 1.01
        p.face(
            it,
            quad(s, (-0.45 * size[0], side), (0.45 * size[0], side), up, up + 0.2 * size[1]),
            surface.warmer(dice.gauss(0, 0.4)),
        )
