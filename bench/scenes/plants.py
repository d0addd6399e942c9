"""Trees, hedges and distant woods: ragged crowns with gaps, or bare branches in winter."""

from math import cos, pi, sin

import numpy as np

from bench.scenes.heat import Surface
from bench.scenes.painter import Painter, Point, Thing
from bench.scenes.pose import Pose

Blob = tuple[float, float, float, float]  # right, up, half width, half height in metres


def tree(p: Painter, s: Pose, bare: bool) -> None:
    """Paint a tree; without leaves if `bare`."""
    dice, weather, me = p.dice, p.weather, p.thing("tree")
    tall = dice.uniform(3.5, 13)
    bark = weather.of(dice, "bark")
    lean = dice.gauss(0, 0.03) * tall
    if bare:
        p.cast(s.x, s.z, 0.5, 0.4 * tall)
        p.rods(me, _branches(p, s, tall, lean), bark)
        return
    fork = tall * dice.uniform(0.2, 0.45)
    wide = (tall - fork) * dice.uniform(0.28, 0.6)
    p.cast(s.x, s.z, 1.6 * wide, 0.5 * tall)
    p.rods(me, [(s.at(0, 0), s.at(lean, fork + 0.3 * wide), 0.06 * tall * dice.uniform(0.6, 1.2), 0.035 * tall)], bark)
    middle, half = (fork + tall) / 2, (tall - fork) / 2
    pointed = dice.random() < 0.25  # a conifer
    blobs: list[Blob] = []
    for _ in range(dice.randrange(5, 10)):
        up, r = dice.uniform(-0.75, 0.75), dice.uniform(0.35, 0.6)
        reach = wide * (0.5 * (1 - up) if pointed else (1 - up * up) ** 0.5) * 0.75
        blobs.append(
            (lean + dice.uniform(-reach, reach), middle + up * half, (r if not pointed else 0.3) * wide, 0.4 * half)
        )
    crown(p, me, s, blobs, weather.of(dice, "leaves"))


def hedge(p: Painter, s: Pose, long: float) -> None:
    """Paint a row of shrubs across the view."""
    tall = p.dice.uniform(0.5, 1.8)
    me, count = p.thing("tree"), max(2, int(long / tall))
    p.cast(s.x, s.z, long, tall)
    blobs = [
        ((i / count - 0.5) * long, 0.45 * tall * p.dice.uniform(0.8, 1.2), 0.9 * tall, 0.55 * tall)
        for i in range(count)
    ]
    crown(p, me, s, blobs, p.weather.of(p.dice, "leaves"))


def crown(p: Painter, me: Thing, s: Pose, blobs: list[Blob], leaves: Surface) -> None:
    """Paint foliage: a union of ellipses with a noisy edge, holes, and sunlit and shaded clumps."""
    rows, columns = p.view.size
    scale = p.view.scale(s.z)
    (x, y), (_, foot) = p.view.project([(s.x, s.up, s.z), (s.x, 0.0, s.z)])
    boxes = [(x + a * scale, y - b * scale, max(1.0, w * scale), max(1.0, h * scale)) for a, b, w, h in blobs]
    left, right = (
        int(max(0, min(b[0] - 1.3 * b[2] for b in boxes))),
        int(min(columns, max(b[0] + 1.3 * b[2] for b in boxes) + 1)),
    )
    top, low = (
        int(max(0, min(b[1] - 1.3 * b[3] for b in boxes))),
        int(min(rows, max(b[1] + 1.3 * b[3] for b in boxes) + 1, foot)),
    )
    if right <= left or low <= top:
        return
    across, down = np.arange(left, right, dtype=np.float32), np.arange(top, low, dtype=np.float32)[:, None]
    inside = np.full((low - top, right - left), -9, np.float32)
    for bx, by, w, h in boxes:
        np.maximum(inside, 1 - ((across - bx) / w) ** 2 - ((down - by) / h) ** 2, out=inside)
    r, c = (int(p.dice.random() * (n + 1)) for n in (rows - inside.shape[0], columns - inside.shape[1]))
    noise = p.textures["leaf"][r : r + inside.shape[0], c : c + inside.shape[1]]
    mask = inside + 0.42 * noise > -0.05
    p.masked((left, top), mask, p.part(me, leaves, s.z))
    contrast = 0.6 + 1.8 * p.weather.sun
    lit = mask & (noise + 0.7 * p.weather.sun_from * (across - x) / (1 + boxes[0][2]) > 0.9)
    p.masked((left, top), lit, p.part(me, leaves.warmer(contrast * p.dice.uniform(0.3, 1)), s.z))
    p.masked((left, top), mask & (noise < -0.8), p.part(me, leaves.warmer(-contrast * p.dice.uniform(0.3, 1)), s.z))


def _branches(p: Painter, s: Pose, tall: float, lean: float) -> list[tuple[Point, Point, float, float]]:
    dice = p.dice
    depth = 5 if p.view.scale(s.z) * tall > 70 else 4
    rods = []
    tips = [(0.0, 0.0, pi / 2 - lean / tall, 0.3 * tall, 0.035 * tall)]
    for level in range(depth):
        ahead = []
        for x, y, angle, length, wide in tips:
            end = (x + length * cos(angle), y + length * sin(angle))
            rods.append((s.at(x, y), s.at(*end), wide, 0.7 * wide))
            for turn in (-1, 1) if level else (-1, 0, 1):
                bend = turn * dice.uniform(0.25, 0.6) + dice.gauss(0, 0.1)
                ahead.append((*end, angle + bend, length * dice.uniform(0.6, 0.85), 0.6 * wide))
        tips = ahead
    return rods


def woods(p: Painter, z: float) -> None:
    """Paint a line of trees at the horizon across the view; one instance."""
    dice = p.dice
    half = 1.2 * p.view.half_width(z)
    count = 24
    tall = dice.uniform(0.015, 0.09) * z
    heights = [tall * dice.uniform(0.5, 1.1) for _ in range(count)]
    blobs = [
        ((i / count - 0.5) * 2 * half, 0.3 * h, 1.5 * half / count * dice.uniform(0.8, 1.6), h)
        for i, h in enumerate(heights)
    ]
    crown(p, p.thing("tree"), Pose(0.0, z), blobs, p.weather.of(dice, "leaves"))
