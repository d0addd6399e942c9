"""Rooms and corridors: walls, doors and windows, furniture, people. Walls, floor and ceiling are background."""

from math import pi
from random import Random

import numpy as np

from bench.scenes import furniture as f
from bench.scenes.buildings import door, inset
from bench.scenes.heat import Surface, draw_room
from bench.scenes.living import animal, person
from bench.scenes.painter import Painter, Size, View
from bench.scenes.pose import Pose, quad


def indoor(rng: np.random.Generator, dice: Random, size: Size) -> Painter:
    """Paint a random room, seen from a place in it."""
    rows, columns = size
    corridor = dice.random() < 0.25
    wide, deep = (
        (dice.uniform(1.8, 3.2), dice.uniform(9, 25)) if corridor else (dice.uniform(3.5, 9), dice.uniform(4.5, 11))
    )
    ceiling = dice.uniform(2.4, 3.3)
    height = dice.uniform(1.1, min(2.3, ceiling - 0.3))
    focal = columns * dice.uniform(0.75, 1.35)
    view = View(size, focal, rows * dice.uniform(0.15, 0.5), height, dice.gauss(0, 0.012))
    p = Painter(view, draw_room(dice), rng, dice)
    turn = dice.gauss(0, 0.1) if corridor else dice.gauss(0, 0.35)
    # the middle of the room as seen from the camera; the room's first axis points right, its second ahead
    origin = Pose(0.0, 0.0, turn)
    x, _, z = origin.at(dice.uniform(-0.3, 0.3) * wide, 0, deep * dice.uniform(0.38, 0.48))
    room = Pose(x, z, turn)
    _shell(p, room, wide, deep, ceiling)
    found: list[tuple[str, Pose]] = []

    def put(name: str, along: float, across: float, turned: float) -> None:
        s = room.near(along, across, turned)
        if s.z > (2.3 if name == "person" else 1.6) and abs(s.x) < p.view.half_width(s.z) + 0.6:
            found.append((name, s))

    a, c = wide / 2, deep / 2
    for _ in range(dice.randrange(0, 3) if corridor else dice.randrange(1, 7)):
        along, across = dice.uniform(-a + 0.6, a - 0.6), dice.uniform(-c + 0.8, c - 0.6)
        put("cupboard" if corridor else "desk", along, across, dice.choice((0, pi / 2)) + dice.gauss(0, 0.1))
    most = {"person": 4, "chair": 4, "waste_basket": 3, "cupboard": 3, "lamp": 2, "animal": 2, "hanging": 6}
    for name, count in most.items():
        for _ in range(dice.randrange(0, count)):
            for _ in range(5):  # somewhere in the room, and in view
                z = dice.uniform(1.8, deep)
                along, across = room.here(dice.uniform(-1, 1) * p.view.half_width(z), z)
                if abs(along) < a - 0.3 and abs(across) < c - 0.3 and (name != "animal" or dice.random() < 0.1):
                    put(name, along, across, dice.uniform(0, 2 * pi))
                    break
    for name, s in sorted(found, key=lambda item: -item[1].z):
        if name == "desk":
            _desk(p, s)
        elif name == "hanging":
            f.hanging_lamp(p, Pose(s.x, s.z, turn), ceiling)
        elif name == "lamp":
            f.standing_lamp(p, s, dice.uniform(1.2, 1.8))
        elif name == "chair":
            f.chair(p, s, taken=dice.random() < 0.3)
        else:
            {"person": person, "animal": animal, "waste_basket": f.waste_basket, "cupboard": f.cupboard}[name](p, s)
    return p


def _desk(p: Painter, s: Pose) -> None:
    """Paint a table with chairs, monitors and small objects; far ones first."""
    dice = p.dice
    length, height, width = dice.uniform(0.9, 2.2), dice.uniform(0.68, 0.78), dice.uniform(0.6, 1.0)
    seats = [
        (dice.uniform(-0.3, 0.3) * length, side * (0.5 * width + dice.uniform(0.1, 0.45)), -side * pi / 2)
        for side in (-1, 1)
    ]
    chairs = [s.near(a, c, turn + dice.gauss(0, 0.3)) for a, c, turn in seats if dice.random() < 0.7]
    for chair in chairs:
        if chair.z > s.z:
            f.chair(p, chair, taken=dice.random() < 0.35)
    f.table(p, s, (length, height, width))
    tops = [
        s.near(dice.uniform(-0.4, 0.4) * length, dice.uniform(-0.3, 0.3) * width, 0.0, up=height)
        for _ in range(dice.randrange(0, 5))
    ]
    turn = dice.choice((-1, 1)) * pi / 2
    for top in sorted(tops, key=lambda q: -q.z):
        kind = dice.random()
        if kind < 0.55:
            f.monitor(p, top.near(0, 0, turn + dice.gauss(0, 0.25)))
        elif kind < 0.65:
            f.standing_lamp(p, top, 0.45)
        else:
            f.clutter(p, top)
    for chair in chairs:
        if chair.z <= s.z and chair.z > 1.0:
            f.chair(p, chair, taken=dice.random() < 0.35)


def _shell(p: Painter, room: Pose, wide: float, deep: float, ceiling: float) -> None:
    """Paint floor, ceiling and walls, and the objects on them."""
    dice, weather, it = p.dice, p.weather, p.stuff("background")
    a, c = wide / 2, deep / 2
    floor = weather.ground(dice, dice.choice(("concrete", "wood", "board")))
    floor = floor._replace(
        gloss=dice.choice((0.0, 0.2, 0.5)), soil=0.08, temperature=weather.air - dice.uniform(0, 1.5)
    )
    corners = ((-a, -c), (a, -c), (a, c), (-a, c))
    p.face(it, [room.at(u, 0, v) for u, v in corners], floor)
    p.face(it, [room.at(u, ceiling, v) for u, v in corners], weather.of(dice, "board").warmer(dice.uniform(-0.3, 1.2)))
    for first, last in zip(corners, (*corners[1:], corners[0]), strict=True):
        wall = weather.of(dice, dice.choice(("plaster", "board")))._replace(streak=0.04)
        p.face(
            it,
            quad(room, first, last, 0, ceiling),
            wall.warmer(dice.gauss(0, 0.4)),
            rise=dice.uniform(0, 1.2),
            tilt=dice.gauss(0, 0.4),
        )
        p.face(it, quad(room, first, last, 0, 0.1), wall.warmer(dice.gauss(-0.4, 0.4)))
        _hang(p, room, (first, last), ceiling, wall)


def _hang(
    p: Painter, room: Pose, ends: tuple[tuple[float, float], tuple[float, float]], ceiling: float, wall: Surface
) -> None:
    """Paint doors, windows, radiators, pictures and boards along one wall."""
    dice, weather, it = p.dice, p.weather, p.stuff("background")
    first, last = ends
    length = abs(first[0] - last[0]) + abs(first[1] - last[1])
    spots = max(1, int(length / dice.uniform(1.6, 2.6)))
    for i in range(spots):
        t, u = (i + 0.1) / spots, (i + 0.9) / spots
        whole = inset(quad(room, first, last, 0, ceiling), t, 0, u, 1)
        if min(q[2] for q in whole) < 0.6:
            continue
        step = length / spots * 0.8
        kind = dice.choices(("none", "door", "window", "picture", "screen"), (3, 3, 2, 2, 0.6))[0]
        if kind == "door":
            share = min(1.0, dice.uniform(0.8, 1.1) / step)
            door(p, inset(whole, 0.5 - share / 2, 0, 0.5 + share / 2, dice.uniform(2.0, 2.2) / ceiling), wall)
        elif kind == "window":
            outside = Surface(
                weather.air - 0.12 * weather.heated + dice.gauss(0, 0.5), 0.85, weather.air - 0.3 * weather.heated, 0.1
            )
            p.face(it, inset(whole, 0.05, 0.33, 0.95, 0.88), wall.warmer(-0.05 * weather.heated))
            for left, right in ((0.08, 0.48), (0.52, 0.92)):
                p.face(
                    it, inset(whole, left, 0.36, right, 0.85), outside.warmer(dice.gauss(0, 0.4)), rise=dice.gauss(0, 1)
                )
            if dice.random() < 0.6:
                hot = wall.warmer(dice.choice((0.5, 6, 14)) * dice.random())
                p.face(it, inset(whole, 0.12, 0.05, 0.88, 0.28), hot, rise=1.5)
        elif kind == "picture":
            low, tall = dice.uniform(0.4, 0.55), dice.uniform(0.1, 0.3)
            p.face(
                it,
                inset(whole, dice.uniform(0, 0.4), low, dice.uniform(0.6, 1), low + tall),
                weather.of(dice, "board").warmer(dice.gauss(0, 0.4)),
            )
        elif kind == "screen":  # a television on the wall
            me, heat = p.thing("monitor"), dice.choice((0, 3, 8)) * dice.random()
            share = min(0.9, 1.2 / step) / 2
            p.face(me, inset(whole, 0.5 - share, 0.42, 0.5 + share, 0.66), wall.warmer(dice.gauss(0, 0.5)))
            p.face(me, inset(whole, 0.52 - share, 0.435, 0.48 + share, 0.645), wall.warmer(heat), rise=0.3 * heat)
