"""From painted parts to the 8-bit image of a thermal camera: radiance, optics, sensor, gain control.

Radiance follows Vollmer and Moellmann, Infrared Thermal Imaging (Wiley, 2nd ed. 2018): emission of a surface plus
reflection, here at one wavelength in the middle of the 8-14 um window. The noise is split into pixels, rows and columns as in
D'Agostino and Webb, Three-dimensional analysis framework and measurement methodology for imaging system noise (SPIE 1488,
1991).
"""

from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bench.scenes.painter import Floats, Painter, View, fractal

C2_OVER_WAVELENGTH = 1438.8  # K: second radiation constant over 10 um
KELVIN = 273.15
TEXTURES = ("mottle", "leaf", "streak", "soil")


def planck(celsius: Floats) -> Floats:
    """Compute black-body radiance at 10 um, in units of 2hc^2 / wavelength^5."""
    return np.asarray(1 / np.expm1(C2_OVER_WAVELENGTH / (celsius + KELVIN)), np.float32)


def radiance(painter: Painter, ids: NDArray[np.int32]) -> Floats:
    """Compute (H, W) radiance e B(T) + (1 - e) B(T mirrored); e falls at grazing angles by Schlick's approximation (1994)."""
    view, weather = painter.view, painter.weather
    rows, columns = view.size
    table = np.array([(p.base, p.right, p.down, *p.surface[1:]) for p in painter.parts], np.float32)
    names = ("base", "right", "down", "emissivity", "around", *TEXTURES, "ground", "gloss", "sky")
    column = dict(zip(names, table.T, strict=True))

    def of(name: str) -> Floats:
        return np.take(column[name], ids)

    row = np.arange(rows, dtype=np.float32)[:, None]
    heat = of("base") + of("right") * np.arange(columns, dtype=np.float32) + of("down") * row
    for name in TEXTURES:
        heat += of(name) * painter.textures[name]
    up = (view.horizon - row) / np.float32(view.focal)  # tangent of the elevation
    ground = of("ground")
    soft = painter.relief.resize((columns, rows), Image.Resampling.BILINEAR)
    heat += ground * np.asarray(soft)
    if weather.indoors:
        mirrored = of("around") + ground * np.float32(weather.air)
    else:
        heat += of("sky") * sky(painter, up)
        mirrored = of("around") + ground * sky(painter, -up)
    cosine = np.sin(np.arctan(np.maximum(-up, 0.0)))
    emissivity = of("emissivity") * (1 - of("gloss") * (1 - cosine) ** 5)
    return np.asarray(emissivity * planck(heat) + (1 - emissivity) * planck(mirrored), np.float32)


def sky(painter: Painter, up: Floats) -> Floats:
    """Compute the apparent sky temperature in degrees Celsius at tan(elevation) `up`: cold overhead, the air's at the horizon."""
    weather = painter.weather
    depth = np.float32(weather.zenith - weather.air + 1.5)
    return np.asarray(weather.air - 1.5 + depth * (1 - np.exp(-np.maximum(up, 0.0) / 0.35)), np.float32)


def expose(scene: Floats, view: View, rng: np.random.Generator, dice: Random) -> NDArray[np.uint8]:
    """Simulate the camera image, (H, W) uint8, with random blur, shading, noise and gain control."""
    rows, columns = view.size
    unit = max(rows, columns) / 320
    cool, warm = planck(np.array([20, 21], np.float32))
    kelvin = warm - cool  # radiance of one degree
    blur = dice.uniform(0.55, 1.4) * max(0.6, unit**0.5)
    signal = ndimage.gaussian_filter(scene / kelvin, blur, truncate=2.5)
    if sharpening := dice.choice((0.0, 0.0, 0.4, 0.9)):  # edge enhancement, with its halos
        signal += np.float32(sharpening) * (signal - ndimage.uniform_filter(signal, 2 * round(2 * blur) + 1))
    noise = dice.choice((0.04, 0.06, 0.09, 0.13, 0.2))  # degrees
    signal += noise * rng.standard_normal(view.size, np.float32)
    fixed = noise * dice.uniform(0.15, 0.7)
    signal += fixed * rng.standard_normal((1, columns), np.float32)
    signal += 0.5 * fixed * rng.standard_normal((rows, 1), np.float32)
    signal += noise * dice.uniform(0, 2.5) * fractal(rng, view.size, rows, columns, 2)  # uneven housing temperature
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in view.size)
    signal += dice.uniform(-0.8, 0.4) * (y[:, None] ** 2 + x**2)  # vignetting, over- or undercorrected
    for _ in range(dice.choice((0, 0, 0, 1, 3))):  # dead pixels
        signal[int(dice.random() * rows), int(dice.random() * columns)] += dice.choice((-8, 8))
    return gain(signal, dice)


def gain(signal: Floats, dice: Random) -> NDArray[np.uint8]:
    """Map degrees to 8 bits, by percentiles, plateau equalisation or a mixture of both.

    Plateau equalisation: Vickers, Plateau equalization algorithm for real-time display of high-quality infrared
    imagery (Optical Engineering 35, 1996).
    """
    sample = signal[::3, ::3]
    low, high = np.percentile(sample, (dice.uniform(0, 2), dice.uniform(97.5, 100)))
    least = dice.uniform(4, 9)  # degrees; a narrower scene is not stretched further
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    share = np.clip((signal - np.float32(low)) / np.float32(high - low), 0, 1)
    mixing = dice.choice((0.0, 0.0, 0.3, 0.6, 0.9))
    if mixing:
        counts, edges = np.histogram(sample, bins=512, range=(float(low), float(high)))
        capped = np.minimum(counts, max(1.0, dice.uniform(1.5, 6) * counts.mean()))
        steps = np.concatenate([[0.0], np.cumsum(capped)]) / capped.sum()
        equal = np.interp(np.linspace(0, 1, 1025), (edges - low) / (high - low), steps).astype(np.float32)
        share = np.float32(1 - mixing) * share + np.float32(mixing) * equal[(share * 1024).astype(np.int32)]
    floor, ceiling = dice.uniform(0, 35), dice.uniform(215, 255)
    return np.asarray(floor + share * (ceiling - floor) + 0.5, np.uint8)
