"""Painting polygons in space, far ones first, into a map of parts; each part has a class, an instance and a surface."""

from math import cos, hypot, sin
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bench.scenes.heat import Surface, Weather
from bench.targets import shipped_targets

Size = tuple[int, int]  # height, width in pixels
Point = tuple[float, float, float]  # metres: right, up from the ground, ahead
Pixel = tuple[float, float]  # column, row
Floats = NDArray[np.float32]

CLASSES = shipped_targets()["scenes"].classes
NEAR = 0.3  # metres; nothing nearer is painted
OCTAVE = 0.62  # amplitude of a texture's octave relative to the coarser one before it


class Thing(NamedTuple):
    """The instance and class of a part. Instance 0 is stuff: sky, road, background."""

    instance: int
    label: int


class View(NamedTuple):
    """A pinhole camera `height` metres above the ground; pitch moves the horizon, so that verticals stay vertical."""

    size: Size
    focal: float  # pixels
    horizon: float  # row of the horizon at the middle column
    height: float  # metres
    roll: float  # radians

    def project(self, points: list[Point]) -> list[Pixel]:
        """Project points ahead of the camera to pixels."""
        rows, columns = self.size
        cx, cy, c, s, f = columns / 2, rows / 2, cos(self.roll), sin(self.roll), self.focal
        out = []
        for x, y, z in points:
            dx, dy = f * x / z, self.horizon - cy + f * (self.height - y) / z
            out.append((cx + c * dx - s * dy, cy + s * dx + c * dy))
        return out

    def scale(self, z: float) -> float:
        """Return pixels per metre at a distance."""
        return self.focal / z

    def nearest(self) -> float:
        """Return the distance of the ground at the bottom row, in metres."""
        return max(2.0, self.focal * self.height / max(1.0, self.size[0] - self.horizon))

    def half_width(self, z: float) -> float:
        """Return the metres from the middle of the view to its edge at a distance."""
        return self.size[1] / 2 / self.focal * z


class Part(NamedTuple):
    """A row of the table of parts; temperature = base + right * column + down * row."""

    thing: Thing
    surface: Surface
    base: float
    right: float = 0.0
    down: float = 0.0


class Painter:
    """Paints the map of parts of one frame.

    Attributes:
        ids: image of part numbers. relief: image at half size, degrees that shadows and warm traces add to the ground.
        textures: name -> (H, W) float32 of zero mean and unit variance.
    """

    def __init__(self, view: View, weather: Weather, rng: np.random.Generator, dice: Random) -> None:
        self.view, self.weather, self.dice = view, weather, dice
        rows, columns = view.size
        self.ids = Image.new("I", (columns, rows))
        self.relief = Image.new("F", ((columns + 1) // 2, (rows + 1) // 2))
        self.parts: list[Part] = []
        self.instances = 0
        self.fog = dice.choice((0.0005, 0.001, 0.004, 0.012))  # share of the signal lost to the air in each metre
        self.textures = draw_textures(view, rng)
        self._pen, self._soft = ImageDraw.Draw(self.ids), ImageDraw.Draw(self.relief)

    def stuff(self, name: str) -> Thing:
        """Return a class without instances."""
        return Thing(0, CLASSES.index(name))

    def thing(self, name: str) -> Thing:
        """Return a new instance of a class."""
        self.instances += 1
        return Thing(self.instances, CLASSES.index(name))

    def part(
        self,
        thing: Thing,
        surface: Surface,
        z: float = 1.0,
        box: list[Pixel] | None = None,
        rise: float = 0,
        tilt: float = 0,
    ) -> int:
        """Add a part and return its number. It gets `rise` degrees warmer over the height of `box`, `tilt` over its width."""
        lost = 0.0 if surface.ground or surface.sky else min(0.9, self.fog * z)
        base, right, down = surface.temperature + lost * (self.weather.air - surface.temperature), 0.0, 0.0
        if box is not None and (rise or tilt):
            xs, ys = [p[0] for p in box], [p[1] for p in box]
            right, down = tilt / max(2.0, max(xs) - min(xs)), -rise / max(2.0, max(ys) - min(ys))
            base -= right * (min(xs) + max(xs)) / 2 + down * (min(ys) + max(ys)) / 2
        self.parts.append(Part(thing, surface, base, right, down))
        return len(self.parts) - 1

    def face(self, thing: Thing, points: list[Point], surface: Surface, rise: float = 0.0, tilt: float = 0.0) -> None:
        """Paint a flat polygon in space."""
        seen = points if all(p[2] >= NEAR for p in points) else clip(points)
        if len(seen) >= 3:
            pixels = self.view.project(seen)
            z = sum(p[2] for p in seen) / len(seen)
            self._pen.polygon(pixels, fill=self.part(thing, surface, z, pixels, rise, tilt))

    def faces(self, thing: Thing, polygons: list[list[Point]], surfaces: list[Surface]) -> None:
        """Paint many small polygons, each with one of a few random surfaces."""
        z = sum(p[0][2] for p in polygons) / max(1, len(polygons))
        numbers = [self.part(thing, surface, z) for surface in surfaces]
        for points in polygons:
            if all(p[2] >= NEAR for p in points):
                self._pen.polygon(self.view.project(points), fill=numbers[int(self.dice.random() * len(numbers))])

    def flat(self, thing: Thing, pixels: list[Pixel], surface: Surface, z: float, rise: float = 0.0) -> None:
        """Paint a polygon given in pixels."""
        self._pen.polygon(pixels, fill=self.part(thing, surface, z, pixels, rise))

    def rods(self, thing: Thing, rods: list[tuple[Point, Point, float, float]], surface: Surface) -> None:
        """Paint bars between points, with widths in metres at both ends; never thinner than a pixel."""
        rods = [rod for rod in rods if rod[0][2] >= NEAR and rod[1][2] >= NEAR]
        if not rods:
            return
        number = self.part(thing, surface, rods[0][0][2])
        for a, b, wide_a, wide_b in rods:
            (ax, ay), (bx, by) = self.view.project([a, b])
            half_a, half_b = wide_a * self.view.focal / a[2] / 2, wide_b * self.view.focal / b[2] / 2
            if half_a + half_b < 1.5:
                self._pen.line([(ax, ay), (bx, by)], fill=number)
                continue
            length = hypot(bx - ax, by - ay) + 1e-6
            nx, ny = (ay - by) / length, (bx - ax) / length
            half_a, half_b = max(half_a, 0.5), max(half_b, 0.5)
            corners = [(ax + nx * half_a, ay + ny * half_a), (bx + nx * half_b, by + ny * half_b)]
            corners += [(bx - nx * half_b, by - ny * half_b), (ax - nx * half_a, ay - ny * half_a)]
            self._pen.polygon(corners, fill=number)

    def loop(self, thing: Thing, points: list[Point], wide: float, surface: Surface) -> None:
        """Paint a closed line, width in metres."""
        if all(p[2] >= NEAR for p in points):
            z = points[0][2]
            width = max(1, round(wide * self.view.scale(z)))
            self._pen.line(self.view.project([*points, points[0]]), fill=self.part(thing, surface, z), width=width)

    def ball(
        self,
        thing: Thing,
        centre: Point,
        wide: float,
        tall: float,
        surface: Surface,
        rise: float = 0.0,
        tilt: float = 0.0,
    ) -> None:
        """Paint an ellipse that faces the camera; half axes in metres."""
        if centre[2] < NEAR:
            return
        (x, y), s = self.view.project([centre])[0], self.view.scale(centre[2])
        box = [(x - wide * s, y - tall * s), (x + wide * s, y + tall * s)]
        self._pen.ellipse(box, fill=self.part(thing, surface, centre[2], box, rise, tilt))

    def masked(self, corner: tuple[int, int], mask: NDArray[np.bool_], number: int) -> None:
        """Assign the pixels under a mask (h, w), with its corner at (column, row), to a part."""
        self.ids.paste(number, corner, Image.fromarray(mask.astype(np.uint8) * np.uint8(255)))

    def trace(self, points: list[Point], degrees: float) -> None:
        """Paint a soft patch on the ground: a shadow, a warm trace, or a reflection in a smooth floor."""
        seen = clip(points)
        if len(seen) >= 3:
            self._soft.polygon([(x / 2, y / 2) for x, y in self.view.project(seen)], fill=degrees)

    def cast(self, x: float, z: float, wide: float, tall: float, degrees: float = 0.0) -> None:
        """Paint the effect of an object of a width and height on the ground: shadow, warmth, reflection."""
        weather, half = self.weather, wide / 2
        if weather.sun > 0.05:
            dx, dz = -1.3 * tall * weather.sun_from, 0.5 * tall
            foot, far = (
                [(x - half, 0.0, z), (x + half, 0.0, z)],
                [(x + half + dx, 0.0, z + dz), (x - half + dx, 0.0, z + dz)],
            )
            self.trace(foot + far, -7 * weather.sun)
        elif weather.indoors:
            thin = 0.4 * half
            self.trace(
                [(x - half, 0, z), (x + half, 0, z), (x + thin, -0.7 * tall, z), (x - thin, -0.7 * tall, z)],
                0.03 * degrees,
            )
        self.trace(
            [(x - half, 0, z - half), (x + half, 0, z - half), (x + half, 0, z + half), (x - half, 0, z + half)],
            0.015 * degrees - 4 * weather.sun,
        )


def clip(points: list[Point]) -> list[Point]:
    """Clip a polygon at the near plane (Sutherland and Hodgman 1974)."""
    out: list[Point] = []
    for a, b in zip(points, [*points[1:], points[0]], strict=True):
        if a[2] >= NEAR:
            out.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            t = (NEAR - a[2]) / (b[2] - a[2])
            out.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), NEAR))
    return out


def draw_textures(view: View, rng: np.random.Generator) -> dict[str, Floats]:
    """Draw four fields (H, W) of zero mean and about unit variance; `soil` gets finer towards the horizon."""
    rows, columns = view.size
    unit = max(rows, columns) / 320
    ahead = np.clip((np.arange(rows) - view.horizon) / max(8.0, rows - view.horizon), 0.01, None)
    lines = np.minimum((rows - 1) * (1 - np.log(ahead) / np.log(0.01)), rows - 1).astype(np.int64)
    soil = fractal(rng, view.size, 14 * unit, 36 * unit, 4)[np.maximum(lines, 0)]
    return {
        "mottle": fractal(rng, view.size, 70 * unit, 70 * unit, 4),
        "leaf": fractal(rng, view.size, 8 * unit, 8 * unit, 3),
        "streak": fractal(rng, view.size, 60 * unit, 6 * unit, 2),
        "soil": soil,
    }


def fractal(rng: np.random.Generator, size: Size, tall: float, wide: float, octaves: int) -> Floats:
    """Draw fractal noise (H, W); the arguments give the pixels of the coarsest cells, and each octave halves them."""
    field: Floats = np.zeros((1, 1), np.float32)
    for octave in range(octaves):
        h, w = (int(side / max(1.0, cell / 2**octave)) + 2 for side, cell in zip(size, (tall, wide), strict=True))
        grid = rng.standard_normal((h, w), np.float32) * np.float32(OCTAVE**octave)
        field = grid + np.asarray(Image.fromarray(field).resize((w, h), Image.Resampling.BICUBIC))
    field *= np.float32(1.2 / sum(OCTAVE ** (2 * octave) for octave in range(octaves)) ** 0.5)
    return np.asarray(Image.fromarray(field).resize((size[1], size[0]), Image.Resampling.BILINEAR))
