"""A contact sheet of pseudo-labels, to judge a recipe by eye."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pretrain_sources.image_files import IGNORE

MAX_ROWS = 24
PANEL = 320  # width of a panel in pixels; narrower for tall images, whose height is at most TALLEST
TALLEST = 480
GAP = 8
LINE = 20  # height of a line of text
WIDTH = 3 * PANEL + 4 * GAP
HEAD = 4 * LINE  # title, legend, captions
LEGEND_RANKS = 9  # with more ranks the legend shows some of them
OPACITY = 0.45  # of masks over the image

PAPER, INK = (255, 255, 255), (0, 0, 0)
NO_MASK, IGNORED = (0, 0, 0), (96, 96, 96)
# Distinguishable with any colour vision: P. Tol's "light" scheme, with a dark blue instead of the greener of its two olives.
NINE = ("EE8866", "77AADD", "EEDD88", "44BB99", "FFAABB", "99DDFF", "AAAA00", "DDDDDD", "4466BB")
VIRIDIS = ("FDE725", "B4DE2C", "6DCD59", "35B779", "1F9E89", "26828E", "31688E", "3E4989", "482878", "440154")

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Row = tuple[str, Bytes, Sequence[Bools], Bytes]


def contact_sheet(rows: Sequence[Row], title: str, num_classes: int) -> bytes:
    """Draw a PNG with a row for each image: the image, its masks over it, and its label map in colours.

    Args:
        rows: name, image (H, W), masks (H, W) from the best rank, label map (H, W). Sizes may differ between rows.
        title: plain text. Title and names are shortened to fit.
        num_classes: label values are 0 (no mask), 1..num_classes-1 (ranks) and 255 (ignore).

    Raises:
        ValueError: there are no rows or more than 24, or sizes or labels of a row do not match.
    """
    if not 1 <= len(rows) <= MAX_ROWS:
        raise ValueError(f"a contact sheet has 1 to {MAX_ROWS} rows, not {len(rows)}")
    for row in rows:
        _check(row, num_classes)
    strips = [_strip(row, num_classes) for row in rows]
    sheet = Image.new("RGB", (WIDTH, HEAD + sum(strip.height for strip in strips)), PAPER)
    _head(sheet, title, num_classes)
    top = HEAD
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def label_colours(num_classes: int) -> Bytes:
    """Return the colour of each label value, (256, 3): distinct ones for up to nine ranks, else a ramp from light to dark."""
    colours = np.zeros((256, 3), np.uint8)
    colours[0], colours[IGNORE] = NO_MASK, IGNORED
    colours[1:num_classes] = _rank_colours(num_classes - 1)
    return colours


def _rank_colours(n: int) -> Bytes:
    """Return (n, 3) colours from the best rank."""
    stops = np.array([tuple(bytes.fromhex(colour)) for colour in (NINE if n <= len(NINE) else VIRIDIS)], np.uint8)
    if n <= len(NINE):
        return stops[:n]
    at = np.linspace(0, len(stops) - 1, n)
    ramp = [np.interp(at, np.arange(len(stops)), channel) for channel in stops.T]
    return np.stack(ramp, axis=1).round().astype(np.uint8)


def _check(row: Row, num_classes: int) -> None:
    name, image, masks, label = row
    shapes = {image.shape, label.shape, *(mask.shape for mask in masks)}
    if len(shapes) > 1 or image.ndim != 2 or not image.size:
        raise ValueError(f"{name}: image, masks and label map must have the same size (H, W), not {sorted(shapes)}")
    beyond = label[(label >= num_classes) & (label != IGNORE)]
    if beyond.size:
        raise ValueError(
            f"{name}: label {beyond.max()} in a map of {num_classes} classes; it must be below {num_classes}, or {IGNORE}"
        )


def _strip(row: Row, num_classes: int) -> Image.Image:
    """Draw one row of the sheet, with a line of text under each panel."""
    name, image, masks, label = row
    size = _panel_size(image.shape)
    grey = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    colours = label_colours(num_classes)
    panels = (
        (grey, name),
        (_drawn_over(grey, masks, _rank_colours(max(num_classes - 1, len(masks)))), f"masks: {len(masks)}"),
        (Image.fromarray(colours[_resized(label, size)]), _shares(label)),
    )
    strip = Image.new("RGB", (WIDTH, size[1] + LINE + GAP), PAPER)
    for column, (panel, text) in enumerate(panels):
        left = GAP + column * (PANEL + GAP)
        strip.paste(panel, (left, 0))
        _write(strip, (left, size[1] + 2), text, PANEL, 13)
    return strip


def _shares(label: Bytes) -> str:
    ignored = (label == IGNORE).mean()
    return f"{(label == 0).mean():.0%} no mask" + (f", {ignored:.0%} ignored" if ignored else "")


def _panel_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (width, height) of a panel in pixels for an image of (H, W)."""
    scale = min(PANEL / shape[1], TALLEST / shape[0])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _resized(values: Bytes | Bools, size: tuple[int, int]) -> Bytes:
    return np.asarray(Image.fromarray(values.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def _drawn_over(grey: Image.Image, masks: Sequence[Bools], colours: Bytes) -> Image.Image:
    """Draw masks as transparent colours, better ones on top, and all outlines over them, so that no mask is hidden."""
    canvas = np.asarray(grey).astype(np.float32)
    ranked = [(_resized(mask, grey.size) > 0, colour) for mask, colour in zip(masks, colours, strict=False)]
    for mask, colour in reversed(ranked):
        canvas[mask] += OPACITY * (colour - canvas[mask])
    for mask, colour in reversed(ranked):
        canvas[_outline(mask)] = colour
    return Image.fromarray(canvas.round().astype(np.uint8))


def _outline(mask: Bools) -> Bools:
    """Return the pixels of a mask (H, W) with a neighbour outside it. The image border is no outline."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: Bools = mask & ~inner
    return outline


def _head(sheet: Image.Image, title: str, num_classes: int) -> None:
    """Draw the title, the legend and the captions of the columns."""
    _write(sheet, (GAP, GAP // 2), title, WIDTH - 2 * GAP, 17)
    draw, left = ImageDraw.Draw(sheet), GAP
    for value, text in _legend(num_classes):
        box = (left, LINE + GAP + 4, left + 14, LINE + GAP + 18)
        draw.rectangle(box, fill=tuple(label_colours(num_classes)[value].tolist()), outline=INK)
        left += 36 + _write(sheet, (left + 20, LINE + GAP + 3), text, 120, 13)
    for column, text in enumerate(("image", "masks, better ones on top", "label map")):
        _write(sheet, (GAP + column * (PANEL + GAP), HEAD - LINE), text, PANEL, 13)


def _legend(num_classes: int) -> list[tuple[int, str]]:
    """Return label values and their texts in the legend."""
    shown = min(num_classes - 1, LEGEND_RANKS)
    ranks = np.linspace(1, num_classes - 1, shown).round().astype(int).tolist()
    return [(0, "no mask"), *((n, str(n)) for n in ranks), (IGNORE, "ignore")]


def _write(sheet: Image.Image, at: tuple[int, int], text: str, room: int, size: int) -> int:
    """Draw a line of text, shortened in the middle to `room` pixels; return its length in pixels."""
    font = ImageFont.load_default(size)
    text = " ".join(text.split())
    half = min((len(text) + 1) // 2, room // 4)  # letters are at least 2 pixels wide
    head, tail = text[:half], text[-half:]
    shown = text
    while font.getlength(shown) > room:
        head, tail = head[:-1], tail[1:]
        shown = f"{head}...{tail}"
    ImageDraw.Draw(sheet).text(at, shown, INK, font)
    return round(font.getlength(shown))
