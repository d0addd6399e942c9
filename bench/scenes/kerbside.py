"""Objects along a street: poles, lamps, cones, bins, and background objects."""

from math import pi

from bench.scenes.painter import Painter
from bench.scenes.pose import Pose, block, quad


def pole(p: Painter, s: Pose) -> None:
    """Paint a mast: for wires with cross-arms, for a sign, for traffic lights, or bare."""
    dice, weather, me = p.dice, p.weather, p.thing("pole")
    kind = dice.choice(("arms", "sign", "signals", "bare"))
    tall = {"arms": dice.uniform(6, 10), "sign": dice.uniform(2.2, 3.2), "signals": dice.uniform(3, 5)}.get(
        kind, dice.uniform(2.5, 9)
    )
    wide = {"arms": 0.28, "sign": 0.08, "signals": 0.16}.get(kind, dice.uniform(0.1, 0.22))
    surface = weather.of(dice, dice.choice(("wood", "concrete", "steel", "paint")))
    p.cast(s.x, s.z, wide, tall)
    p.rods(me, [(s.at(0, 0), s.at(0, tall), wide, 0.75 * wide)], surface)
    if kind == "arms":
        reach = dice.uniform(0.7, 1.2)
        p.rods(
            me,
            [(s.at(-reach, tall - d), s.at(reach, tall - d), 0.12, 0.12) for d in (0.3, 1.1)[: dice.choice((1, 2))]],
            surface.warmer(0.5),
        )
        knobs = [(s.at(a * reach, tall - 0.3), s.at(a * reach, tall), 0.1, 0.08) for a in (-0.9, -0.4, 0.4, 0.9)]
        p.rods(me, knobs, surface.warmer(-1))
        if dice.random() < 0.3:
            p.rods(
                me, [(s.at(0.25, tall - 2.4), s.at(0.25, tall - 1.4), 0.45, 0.45)], surface.warmer(dice.uniform(1, 9))
            )
    elif kind == "sign":
        plate = weather.of(dice, "steel")
        if dice.random() < 0.5:
            p.ball(me, s.at(0, tall - 0.1), 0.33, 0.33, plate)
        else:
            p.rods(me, [(s.at(0, tall - 0.35), s.at(0, tall + 0.2), 0.6, 0.6)], plate)
    elif kind == "signals":
        p.rods(me, [(s.at(0, tall - 0.9), s.at(0, tall), 0.34, 0.34)], weather.of(dice, "plastic"))
        p.ball(me, s.at(0, tall - dice.choice((0.2, 0.45, 0.7))), 0.1, 0.1, surface.warmer(dice.uniform(3, 12)))


def street_lamp(p: Painter, s: Pose) -> None:
    """Paint a lamp on its pole: two instances. Warm if switched on."""
    dice, weather = p.dice, p.weather
    mast, lamp = p.thing("pole"), p.thing("lamp")
    s = s.near(0, 0, pi / 2)  # its arm reaches across the way
    lit = weather.sun < 0.05 and dice.random() < 0.7
    metal = weather.of(dice, "steel")
    head = metal.warmer(dice.uniform(6, 22) if lit else dice.gauss(0, 1.5))
    if dice.random() < 0.35:  # a globe in a park
        tall = dice.uniform(2.6, 4)
        p.rods(mast, [(s.at(0, 0), s.at(0, tall), 0.12, 0.08)], metal)
        p.ball(lamp, s.at(0, tall + 0.2), 0.26, 0.28, head, rise=3 * lit)
        return
    tall, reach = dice.uniform(5, 9), dice.uniform(0.8, 2.0) * dice.choice((-1, 1))
    p.cast(s.x, s.z, 0.16, tall)
    p.rods(mast, [(s.at(0, 0), s.at(0, tall), 0.18, 0.1), (s.at(0, tall), s.at(reach, tall + 0.3), 0.09, 0.08)], metal)
    p.rods(lamp, [(s.at(reach - 0.1, tall + 0.25), s.at(reach + 0.75, tall + 0.35), 0.28, 0.2)], head)


def cone(p: Painter, s: Pose) -> None:
    """Paint a traffic cone with a foot and a reflecting band."""
    dice, me = p.dice, p.thing("traffic cone")
    tall = dice.uniform(0.45, 0.95)
    surface = p.weather.of(dice, "plastic")
    p.cast(s.x, s.z, 0.4 * tall, tall)
    block(p, me, s, (0.5 * tall, 0.06 * tall, 0.5 * tall), surface.warmer(-0.7))
    p.rods(me, [(s.at(0, 0.05 * tall), s.at(0, tall), 0.4 * tall, 0.08 * tall)], surface)
    band = surface._replace(emissivity=0.72)
    p.rods(me, [(s.at(0, 0.55 * tall), s.at(0, 0.75 * tall), 0.23 * tall, 0.165 * tall)], band)


def trash_can(p: Painter, s: Pose) -> None:
    """Paint a trash can: on wheels, round, or a basket on a post."""
    dice, weather, me = p.dice, p.weather, p.thing("trash can")
    surface = weather.of(dice, dice.choice(("plastic", "steel", "paint")))
    kind, tall = dice.choice(("wheels", "round", "basket")), dice.uniform(0.75, 1.15)
    p.cast(s.x, s.z, 0.55, tall)
    if kind == "wheels":
        block(p, me, s, (0.5, 0.88 * tall, 0.5), surface, up=0.06)
        block(p, me, s, (0.58, 0.1 * tall, 0.58), surface.warmer(dice.gauss(0, 1.5)), up=0.06 + 0.88 * tall)
        for across in (-0.22, 0.22):
            p.ball(me, s.at(-0.22, 0.1, across), 0.1, 0.1, weather.of(dice, "rubber"))
        return
    low = 0.35 * tall if kind == "basket" else 0.0
    if low:
        p.rods(me, [(s.at(0, 0), s.at(0, tall), 0.07, 0.07)], surface.warmer(-1))
    p.rods(me, [(s.at(0, low), s.at(0, tall), 0.42, 0.52)], surface)
    p.ball(me, s.at(0, tall), 0.26, 0.07, surface.warmer(dice.gauss(0, 2)))
    p.rods(me, [(s.at(0, 0.62 * tall), s.at(0, 0.7 * tall), 0.49, 0.5)], surface.warmer(dice.gauss(0, 1)))


def oddment(p: Painter, s: Pose) -> None:
    """Paint a background object: a cabinet, a bollard, a sack, a bench, a statue."""
    dice, weather, it = p.dice, p.weather, p.stuff("background")
    kind = dice.choice(("cabinet", "bollard", "sack", "bench", "statue"))
    if kind == "cabinet":
        block(
            p,
            it,
            s,
            (dice.uniform(0.5, 1.4), dice.uniform(0.6, 1.6), 0.45),
            weather.of(dice, "paint").warmer(dice.choice((0, 0, 5))),
        )
    elif kind == "bollard":
        p.rods(it, [(s.at(0, 0), s.at(0, dice.uniform(0.5, 1)), 0.18, 0.14)], weather.of(dice, "concrete"))
    elif kind == "sack":
        wide = dice.uniform(0.25, 0.5)
        p.ball(it, s.at(0, 0.6 * wide), wide, 0.65 * wide, weather.of(dice, "plastic"), rise=dice.gauss(0, 2))
    elif kind == "bench":
        wood = weather.of(dice, "wood")
        for along in (-0.7, 0.7):
            block(p, it, s.near(along, 0), (0.08, 0.42, 0.4), weather.of(dice, "steel"))
        block(p, it, s, (1.7, 0.06, 0.42), wood, up=0.42)
        p.face(it, quad(s, (-0.85, 0.2), (0.85, 0.2), 0.6, 0.85), wood.warmer(0.5))
    else:
        stone = weather.of(dice, "concrete")
        block(p, it, s, (0.8, 0.9, 0.8), stone)
        p.rods(it, [(s.at(0, 0.9), s.at(0, 2.1), 0.5, 0.4)], stone.warmer(0.7))
        p.ball(it, s.at(0, 2.25), 0.13, 0.17, stone.warmer(1))
