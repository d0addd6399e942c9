"""Streets, paths, parks and river banks, by day and by night, at any angle to the way."""

from collections.abc import Callable
from functools import partial
from math import pi
from random import Random

import numpy as np

from bench.scenes import kerbside
from bench.scenes.buildings import building, fence, skyline
from bench.scenes.ground import FAR, Strip, Way, draw_strips, kind_at, paint_ground
from bench.scenes.heat import draw_weather
from bench.scenes.painter import Painter, Size, View
from bench.scenes.plants import hedge, tree, woods
from bench.scenes.pose import Pose
from bench.scenes.props import Prop, strewn
from bench.scenes.vehicles import CLOSEST_CAR, car


def street(rng: np.random.Generator, dice: Random, size: Size) -> Painter:
    """Paint a random outdoor scene, seen from on or beside the way."""
    rows, columns = size
    weather = draw_weather(dice)
    focal = columns * dice.choice((dice.uniform(0.8, 1.2), dice.uniform(1.1, 2.0)))
    height = dice.choice((dice.uniform(1.2, 2.0), dice.uniform(1.5, 3.5), dice.uniform(4, 9)))
    horizon = rows * (dice.uniform(0.22, 0.6) if height < 4 else dice.uniform(-0.05, 0.35))
    view = View(size, focal, horizon, height, dice.gauss(0, 0.02))
    p = Painter(view, weather, rng, dice)
    turn = dice.choice((dice.gauss(0, 0.2), dice.uniform(0.3, 1.2), dice.gauss(pi / 2, 0.12))) * dice.choice((-1, 1))
    way = Way(turn)
    strips = draw_strips(dice, way)
    paint_ground(p, way, strips)
    bare = weather.air < 6 and dice.random() < 0.7
    _beyond(p, way, strips)
    props = [*_rows(p, way, strips, bare), *strewn(p, lambda x, z: kind_at(strips, way.across(x, z)), turn)]
    for _, paint in sorted(props, key=lambda prop: -prop[0]):
        paint()
    return p


def _beyond(p: Painter, way: Way, strips: list[Strip]) -> None:
    """Paint the distance and the houses along the way; far ones first."""
    dice = p.dice
    if dice.random() < 0.35:
        skyline(p, dice.uniform(150, 250))
    if dice.random() < 0.7:
        woods(p, dice.uniform(80, 200))
    houses: list[tuple[Pose, tuple[float, float, float]]] = []
    for strip in strips:
        if strip.kind != "houses":
            continue
        right = strip.left > -0.5 * FAR and strip.right > 0 and abs(strip.left) < abs(strip.right)
        edge, side = (strip.left, 1) if right else (strip.right, -1)
        gap, tall = dice.choice((0.0, 3.0, 8.0)), dice.choice((6.0, 12.0, 22.0))
        v = -25.0 - dice.random() * 15
        while v < 130:
            length, depth = dice.uniform(8, 26), dice.uniform(8, 14)
            set_back = dice.uniform(0.1, 3) + depth / 2
            houses.append(
                (way.stand(edge + side * set_back, v + length / 2), (length, tall * dice.uniform(0.6, 1.2), depth))
            )
            v += length + gap * dice.random()
    for s, size in sorted(houses, key=lambda house: -(house[0].x ** 2) - house[0].z ** 2):
        reach = (size[0] + size[2]) / 2
        if s.z > -reach and abs(s.x) - reach < p.view.half_width(max(0.0, s.z + reach)):
            building(p, s, size)


def _rows(p: Painter, way: Way, strips: list[Strip], bare: bool) -> list[Prop]:  # noqa: C901 - a case for each kind of strip
    """List objects in rows: trees, poles, lamps, parked cars, fences, hedges; and the trees of a park."""
    dice = p.dice
    props: list[Prop] = []
    nearest = 0.75 * p.view.nearest()

    def add(u: float, v: float, paint: Callable[[Pose], None]) -> None:
        s = way.stand(u, v)
        if s.z > nearest and abs(s.x) < p.view.half_width(s.z) + 5:
            props.append((s.z, partial(paint, s)))

    def row(u: float, step: float, paint: Callable[[Pose], None], skip: float = 0.15) -> None:
        v = -60 + step * dice.random()
        while v < 110:
            if dice.random() > skip:
                add(u + dice.gauss(0, 0.15), v + dice.gauss(0, 0.1) * step, paint)
            v += step

    for strip in strips:
        wide = strip.right - strip.left
        if strip.kind == "road":
            for edge, side in ((strip.left, 1), (strip.right, -1)):
                if dice.random() < 0.4 and wide > 5:
                    skip = dice.uniform(0.2, 0.75)
                    row(edge + side * 1.1, 6.0, partial(_parked, p), skip)
        elif strip.kind in ("sidewalk", "grass", "earth") and wide < 50:
            u = dice.choice((strip.left + 0.3, strip.right - 0.3))
            if dice.random() < 0.4:
                row(u, dice.uniform(14, 35), partial(kerbside.pole, p))
            elif dice.random() < 0.5:
                row(u, dice.uniform(12, 30), partial(kerbside.street_lamp, p))
            if dice.random() < 0.35:
                row(dice.uniform(strip.left, strip.right), dice.uniform(6, 16), partial(tree, p, bare=bare))
            if dice.random() < 0.25:
                props += _fence_pieces(p, way, dice.choice((strip.left, strip.right)), nearest)
        elif strip.kind in ("park", "field"):
            side = 1 if abs(strip.left) < abs(strip.right) else -1
            edge = strip.left if side > 0 else strip.right
            count = dice.randrange(4, 16) if strip.kind == "park" else dice.randrange(0, 3)
            for _ in range(count):
                add(edge + side * dice.uniform(0.5, 60), dice.uniform(-70, 90), partial(tree, p, bare=bare))
            for _ in range(dice.randrange(0, 4)):
                long = dice.uniform(2, 10)
                add(edge + side * dice.uniform(0.5, 15), dice.uniform(-20, 50), partial(hedge, p, long=long))
            if dice.random() < 0.4:
                props += _fence_pieces(p, way, edge + side * dice.uniform(0.1, 2), nearest)
    return props


def _parked(p: Painter, s: Pose) -> None:
    if s.z > CLOSEST_CAR:
        car(p, s, moving=False)


def _fence_pieces(p: Painter, way: Way, u: float, nearest: float) -> list[Prop]:
    """Cut a fence along the way into pieces, so that objects can be before and behind it."""
    dice = p.dice
    start, end = dice.uniform(-50, 10), dice.uniform(20, 80)
    draw = fence(p)
    pieces: list[Prop] = []
    for i in range(int((end - start) / 4)):
        a, b = (way.stand(u, start + 4 * (i + k)) for k in (0, 1))
        if min(a.z, b.z) > max(3.5, 0.5 * nearest):
            pieces.append(((a.z + b.z) / 2, partial(draw, (a.x, a.z), (b.x, b.z))))
    return pieces
