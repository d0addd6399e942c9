"""People and animals: rods and balls around a warm core; faces and hands are warmest."""

from itertools import pairwise
from math import hypot

from bench.scenes.heat import Surface
from bench.scenes.painter import Painter, Point, Thing
from bench.scenes.pose import Pose

Spot = tuple[float, float]  # along, up


def person(p: Painter, s: Pose, pose: str = "walk") -> None:
    """Paint a person who walks or stands at `s`, sits on a seat there, or rides a bicycle."""
    dice, weather, me = p.dice, p.weather, p.thing("person")
    k = dice.uniform(1.05, 1.4) if dice.random() < 0.12 and pose == "walk" else dice.gauss(1.70, 0.09)
    stout = dice.uniform(0.85, 1.25)
    thick = 0.18 if weather.air < 8 else 0.32
    coat = weather.clothed(dice, dice.uniform(thick, thick + 0.35))
    legs = weather.clothed(dice, dice.uniform(thick, thick + 0.3))
    skin = weather.skin(dice)
    p.cast(s.x, s.z, 0.45, k, skin.temperature - weather.air)
    side = stout * hypot(0.125 * s.s, 0.085 * s.c) * k  # half the width of the shoulders as we see it
    hip, chest, knees, feet, hands = _pose(p, k, pose)
    if p.view.scale(s.z) * k < 11:  # far away: legs, trunk, head
        p.rods(me, [(s.at(0, 0), s.at(*hip), 1.1 * side, 1.5 * side)], legs)
        p.rods(me, [(s.at(*hip), s.at(*chest), 1.6 * side, 2 * side)], coat)
        p.ball(me, s.at(chest[0], chest[1] + 0.11 * k), 0.055 * k, 0.075 * k, skin)
        return
    far, near = (0.085 * k, -0.085 * k) if s.c > 0 else (-0.085 * k, 0.085 * k)
    for i, across in enumerate((far, near)):
        hip_at, knee, foot = s.at(*hip, 0.65 * across), s.at(*knees[i], 0.7 * across), s.at(*feet[i], 0.7 * across)
        limb(p, me, [(hip_at, 0.12 * k * stout), (knee, 0.078 * k), (foot, 0.05 * k)], legs.warmer(dice.gauss(0, 0.5)))
        p.rods(me, [(foot, s.at(feet[i][0] + 0.09 * k, feet[i][1], 0.7 * across), 0.05 * k, 0.04 * k)], legs.warmer(-2))
    sleeves = skin.warmer(-1) if weather.air > 22 and dice.random() < 0.6 else coat.warmer(dice.gauss(-0.3, 0.4))
    arms = [_arm(s, chest, hands[i], 1.35 * across, 0.05 * k * stout) for i, across in enumerate((far, near))]
    limb(p, me, arms[0], sleeves)
    _trunk(p, me, s, hip, chest, side, coat)
    limb(p, me, arms[1], sleeves.warmer(0.2))
    if pose == "walk" and s.s > -0.3 and dice.random() < 0.2:  # a bag, as cool as the air
        p.ball(me, s.at(chest[0] - 0.12 * k, chest[1] - 0.12 * k), 0.09 * k, 0.13 * k, weather.of(dice, "plastic", 0.4))
    for i, across in enumerate((far, near)):
        p.ball(me, s.at(*hands[i], 1.55 * across), 0.026 * k, 0.032 * k, skin.warmer(-1.5 - dice.random() * 3))
    _head(p, me, s, chest, k, skin)


def _pose(p: Painter, k: float, pose: str) -> tuple[Spot, Spot, list[Spot], list[Spot], list[Spot]]:
    """Return (hip, chest, knees, feet, hands) as (along, up) in metres."""
    d = p.dice
    if pose == "sit":
        lean, hand = d.uniform(-0.05, 0.15) * k, d.uniform(0.42, 0.62) * k
        hands = [(0.25 * k, hand), (0.28 * k, hand)]
        return (0, 0.29 * k), (lean, 0.6 * k), [(0.25 * k, 0.3 * k)] * 2, [(0.24 * k, 0.02), (0.28 * k, 0.02)], hands
    if pose == "ride":
        up = d.uniform(0, 0.18)
        knees, feet = [(0.2, 0.72 + up), (0.12, 0.62)], [(0.05, 0.25 + up), (0.0, 0.2)]
        return (-0.22, 0.98), (0.12, 1.42), knees, feet, [(0.42, 1.06)] * 2
    step = d.uniform(0.03, 0.2) * k
    arm = d.uniform(-0.1, 0.12) * k
    hands = [(-arm, 0.46 * k), (arm, d.choice((0.46, 0.46, 0.6, 0.75)) * k)]
    knees = [(0.6 * step, 0.27 * k), (-0.3 * step, 0.27 * k)]
    return (0, 0.5 * k), (0.02 * k, 0.79 * k), knees, [(step, 0.02), (-step, 0.03)], hands


def limb(p: Painter, me: Thing, joints: list[tuple[Point, float]], surface: Surface) -> None:
    """Paint an arm or a leg through its joints, each with its width; rounded if near enough to show."""
    p.rods(me, [(a, b, wide_a, wide_b) for (a, wide_a), (b, wide_b) in pairwise(joints)], surface)
    for joint, wide in joints[:-1]:
        if p.view.scale(joint[2]) * wide > 4:
            p.ball(me, joint, wide / 2, wide / 2, surface)


def _arm(s: Pose, chest: Spot, hand: Spot, across: float, wide: float) -> list[tuple[Point, float]]:
    elbow = s.at(0.5 * (chest[0] + hand[0]) - 0.05, 0.55 * chest[1] + 0.45 * hand[1], 1.25 * across)
    return [
        (s.at(chest[0], chest[1] - 0.02, across), 1.35 * wide),
        (elbow, wide),
        (s.at(*hand, 1.15 * across), 0.75 * wide),
    ]


def _trunk(p: Painter, me: Thing, s: Pose, hip: Spot, chest: Spot, side: float, coat: Surface) -> None:
    """Paint shoulders, waist and hips as a flat shape, warmer where the cloth touches the body."""
    long = chest[1] - hip[1]

    def row(t: float, half: float) -> tuple[Point, Point]:
        x, y, z = s.at(hip[0] + t * (chest[0] - hip[0]), hip[1] + t * long)
        return (x - half * side, y, z), (x + half * side, y, z)

    rows = [
        row(-0.08, 0.8),
        row(0.1, 0.9),
        row(0.45, 0.76),
        row(0.8, 0.92),
        row(0.98, 0.98),
        row(1.08, 0.75),
        row(1.17, 0.32),
    ]
    p.face(
        me, [left for left, _ in rows] + [right for _, right in reversed(rows)], coat, rise=p.dice.uniform(-0.5, 1.5)
    )
    for t in (0.3, 0.75):
        warm = coat.warmer(p.dice.uniform(0, 0.9))
        p.ball(me, row(t, 0)[0], p.dice.uniform(0.35, 0.6) * side, p.dice.uniform(0.12, 0.3) * long, warm)


def _head(p: Painter, me: Thing, s: Pose, chest: Spot, k: float, skin: Surface) -> None:
    dice = p.dice
    neck = s.at(chest[0] + 0.01 * k, chest[1] + 0.06 * k)
    p.rods(me, [(s.at(chest[0], chest[1] + 0.035 * k), neck, 0.065 * k, 0.055 * k)], skin.warmer(-0.7))
    hair = p.weather.clothed(dice, dice.uniform(0.45, 0.8))
    x, up = chest[0] + 0.02 * k, chest[1] + 0.12 * k
    p.ball(me, s.at(x, up + 0.01 * k), 0.05 * k, 0.068 * k, hair)
    if s.s < 0.55:  # not from behind
        p.ball(me, s.at(x + 0.015 * k, up - 0.012 * k), 0.04 * k, 0.052 * k, skin, rise=1.0)


def animal(p: Painter, s: Pose) -> None:
    """Paint a dog, a cat, or outdoors sometimes a larger animal."""
    dice, weather, me = p.dice, p.weather, p.thing("animal")
    sizes = (dice.uniform(0.32, 0.68), dice.uniform(0.22, 0.3), dice.uniform(1.1, 1.5))
    tall = dice.choices(sizes, (6, 2, 0 if weather.indoors else 1))[0]
    long, fat = tall * dice.uniform(1.1, 1.5), tall * dice.uniform(0.3, 0.5)
    fur = weather.clothed(dice, dice.uniform(0.25, 0.6), 37)
    bare = Surface(fur.temperature + 0.6 * (35 - fur.temperature), 0.97, weather.air)
    back, head = tall - fat / 2, tall * dice.choice((0.75, 1.15, 1.25))
    p.cast(s.x, s.z, long * max(0.4, abs(s.c)), tall, 5)
    legs = []
    for along in (-0.42, 0.42):
        for across in (-0.3 * fat, 0.3 * fat):
            foot = s.at(long * (along + dice.uniform(-0.08, 0.08)), 0.01, across)
            legs.append((s.at(long * along * 0.9, back, across), foot, 0.16 * tall, 0.09 * tall))
    p.rods(me, legs, fur.warmer(-1.0))
    p.rods(
        me,
        [(s.at(-0.45 * long, back), s.at(-0.8 * long, tall * dice.uniform(0.5, 1.2)), 0.08 * tall, 0.05 * tall)],
        fur,
    )
    p.rods(me, [(s.at(-0.4 * long, back), s.at(0.42 * long, back), 0.9 * fat, fat)], fur)
    for along in (-0.4, 0.4):
        p.ball(me, s.at(along * long, back), 0.5 * fat, 0.52 * fat, fur)
    p.rods(me, [(s.at(0.4 * long, back), s.at(0.62 * long, head), 0.6 * fat, 0.4 * fat)], fur)
    skull = s.at(0.68 * long, head)
    p.ball(me, skull, 0.15 * tall, 0.13 * tall, fur.warmer(1))
    p.rods(me, [(skull, s.at(0.68 * long + 0.24 * tall, head - 0.06 * tall), 0.16 * tall, 0.09 * tall)], bare)
    p.ball(me, s.at(0.7 * long, head + 0.02 * tall), 0.05 * tall, 0.04 * tall, bare)
    for across in (-0.08, 0.08):
        root = s.at(0.66 * long, head + 0.08 * tall, across * tall)
        p.rods(me, [(root, s.at(0.62 * long, head + 0.2 * tall, across * tall), 0.09 * tall, 0.02)], fur.warmer(-1))
