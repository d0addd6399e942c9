"""A contact sheet of rendered scenes, each beside its coloured labels: python tests/benchmarks/scenes_sheet.py OUT.png [FIRST]

FIRST is the number of the first of the thirty frames; they are those of `bench data make scenes --seed 0` at 240x320.
"""

import sys

import numpy as np
from PIL import Image

from bench.scenes import draw
from bench.scenes.painter import CLASSES

ROWS, COLUMNS, SIZE = 6, 5, (240, 320)


def colours() -> np.ndarray:
    """(21, 3) uint8: one colour for each class, background black."""
    hue = np.arange(len(CLASSES)) * 0.382 % 1
    rgb = 140 + 110 * np.cos(2 * np.pi * (hue[:, None] + np.array([0, 1 / 3, 2 / 3])))
    rgb[0] = 0
    return rgb.astype(np.uint8)


if __name__ == "__main__":
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    sheet, palette = Image.new("RGB", (COLUMNS * 2 * SIZE[1], ROWS * SIZE[0])), colours()
    for i in range(ROWS * COLUMNS):
        scene = draw("labelled", first + i, SIZE, seed=0)
        x, y = i % COLUMNS * 2 * SIZE[1], i // COLUMNS * SIZE[0]
        sheet.paste(Image.fromarray(scene.thermal).convert("RGB"), (x, y))
        sheet.paste(Image.fromarray(palette[scene.labels]), (x + SIZE[1], y))
    sheet.save(sys.argv[1])
