"""The contact sheet, read back from its bytes."""

import io

import numpy as np
import pytest
from PIL import Image

from pretrain_sources.corpus.contact_sheet import GAP, HEAD, PANEL, WIDTH, Row, contact_sheet, label_colours


def row(h: int = 64, w: int = 80, ranks: int = 2, name: str = "frame.png") -> Row:
    """Make stripes: the left of the label map is 0, then a stripe for each rank, the last one is ignored."""
    label = np.repeat(np.linspace(0, ranks + 1.999, w).astype(np.uint8)[None], h, axis=0)
    masks = [label == rank for rank in range(1, ranks + 1)]
    label[label == ranks + 1] = 255
    return name, np.full((h, w), 100, np.uint8), masks, label


def read(png: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB"))


def column(sheet: np.ndarray, number: int) -> np.ndarray:
    """Return a line of pixels through the middle of the first row's panel, (PANEL, 3)."""
    left = GAP + number * (PANEL + GAP)
    return sheet[HEAD + 100, left : left + PANEL]


def test_grows_with_the_rows():
    heights = [read(contact_sheet([row()] * n, "t", 3)).shape[0] for n in (1, 2, 24)]
    assert heights[1] - heights[0] == (heights[2] - heights[0]) / 23 > 256
    assert read(contact_sheet([row()], "t", 3)).shape[1] == WIDTH


def test_contents_of_the_panels():
    sheet = read(contact_sheet([row()], "t", 3))
    colours = label_colours(3)
    middles = column(sheet, 2)[[PANEL // 8, 3 * PANEL // 8, 5 * PANEL // 8, 7 * PANEL // 8]]
    assert (middles == colours[[0, 1, 2, 255]]).all()
    assert (column(sheet, 0) == 100).all()
    over = column(sheet, 1).astype(int)
    assert (over[PANEL // 8] == 100).all()
    veil = over[3 * PANEL // 8]
    assert np.abs(veil - (0.55 * 100 + 0.45 * colours[1])).max() <= 1
    edge = np.flatnonzero((column(sheet, 2) == colours[1]).all(axis=1))[[0, -1]]
    assert (over[edge] == colours[1]).all()


def test_legend_has_the_colour_of_every_rank():
    head = read(contact_sheet([row()], "t", 10))[:HEAD].reshape(-1, 3)
    for colour in label_colours(10)[[*range(10), 255]]:
        assert (head == colour).all(axis=1).sum() > 50


def test_a_mask_under_another_keeps_its_outline():
    label = np.zeros((64, 80), np.uint8)
    inner, outer = label.astype(bool), label.astype(bool)
    inner[20:40, 20:60], outer[10:50, 10:70] = True, True
    sheet = read(contact_sheet([("a", label, [outer, inner], label)], "t", 3))
    panel = sheet[HEAD : HEAD + 256, GAP + PANEL + GAP : GAP + PANEL + GAP + PANEL]
    for colour in label_colours(3)[1:3]:
        assert (panel == colour).all(axis=2).any()


@pytest.mark.parametrize("num_classes", [2, 10, 11, 100])
def test_colours_of_all_classes_differ(num_classes):
    used = label_colours(num_classes)[[*range(num_classes), 255]]
    assert len(np.unique(used, axis=0)) == num_classes + 1


def test_same_bytes_twice():
    assert contact_sheet([row(), row(33, 21)], "t", 3) == contact_sheet([row(), row(33, 21)], "t", 3)


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 900), (900, 1), (7, 5), (513, 641)])
def test_images_of_odd_sizes(h, w):
    one = read(contact_sheet([row()], "t", 3)).shape[0]
    assert one < read(contact_sheet([row(), row(h, w)], "t", 3)).shape[0] < one + 520


@pytest.mark.parametrize("ranks", [1, 12, 254])
def test_any_number_of_ranks(ranks):
    read(contact_sheet([row(w=600, ranks=ranks)], "t", ranks + 1))
    read(contact_sheet([(*row(w=600, ranks=ranks)[:2], [], np.zeros((64, 600), np.uint8))], "t", ranks + 1))


def test_long_names_are_shortened_and_stay_in_their_column():
    long = row(name="a very long name\n" * 5000)
    sheet = read(contact_sheet([long], "title " * 5000, 3))
    short = read(contact_sheet([row()], "t", 3))
    assert sheet.shape == short.shape
    assert (sheet[HEAD:, GAP + PANEL :] == short[HEAD:, GAP + PANEL :]).all()
    assert (sheet[:, :GAP] == 255).all()
    assert (sheet[:, -GAP:] == 255).all()


def test_binary_maps_have_more_masks_than_classes():
    name, image, masks, label = row(ranks=5)
    sheet = read(contact_sheet([(name, image, masks, np.minimum(label, 1))], "t", 2))
    assert len(np.unique(column(sheet, 1), axis=0)) > 5


@pytest.mark.parametrize("count", [0, 25])
def test_wrong_number_of_rows(count):
    with pytest.raises(ValueError, match=f"1 to 24 rows, not {count}"):
        contact_sheet([row()] * count, "t", 3)


def test_inconsistent_rows_are_refused():
    name, image, masks, label = row()
    with pytest.raises(ValueError, match=r"frame\.png: image, masks and label map must have the same size"):
        contact_sheet([(name, image, masks, label[1:])], "t", 3)
    with pytest.raises(ValueError, match=r"frame\.png: label 2 in a map of 2 classes"):
        contact_sheet([(name, image, masks, label)], "t", 2)
