"""Unusual image files: what `pretrain_sources.image_files` refuses, converts and notes."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from pretrain_sources.image_files import (
    FileFacts,
    ImageError,
    ImageFile,
    SizeMismatchError,
    UnknownLabelError,
    class_pixels,
    counted,
    decode_label,
    decode_thermal,
    read_image,
    read_label,
)

HEIGHT, WIDTH = 20, 24
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
GREY = (RAMP * 200 + 20).astype(np.uint8)
DEEP = (RAMP * 60000).astype(np.uint16)
LABELS = (RAMP * 4.99).astype(np.uint8)  # classes 0 to 4


def saved(pixels: np.ndarray | Image.Image, form: str, **options: Any) -> bytes:
    image, buffer = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels), io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def png(
    depth: int, kind: int, rows: list[bytes], size: tuple[int, int] = (WIDTH, HEIGHT), interlaced: bool = False
) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, interlaced))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[274] = orientation
    return tags.tobytes()


def transparent(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels).convert("RGBA")
    image.putalpha(Image.fromarray(np.where(RAMP > 0.5, 255, 0).astype(np.uint8)))
    return image


def with_palette(index: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(index)
    image.putpalette(colours)
    return image


def saved_array(*arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    for array in arrays:
        np.save(buffer, array)
    return buffer.getvalue()


# -- masks that are refused; once all but those marked "already" were read silently -------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(saved(LABELS, "JPEG", quality=95), "JPEG, whose compression can change labels", id="jpeg"),
        pytest.param(saved(LABELS, "GIF"), "GIF, whose compression", id="gif, whose writers renumber"),
        pytest.param(saved(LABELS, "WEBP", lossless=True), "WEBP, whose compression", id="webp"),
        pytest.param(saved(LABELS, "TIFF", compression="jpeg"), "TIFF, whose compression", id="jpeg in a tiff"),
        pytest.param(tiff(np.stack([LABELS] * 3), photometric="minisblack"), "3 pages", id="pages"),
        pytest.param(saved(LABELS, "PNG", save_all=True, append_images=[Image.fromarray(GREY)]), "2 pages", id="apng"),
        pytest.param(saved(LABELS, "PNG", exif=exif(3)), "EXIF orientation 3", id="png upside down"),
        pytest.param(tiff(LABELS, extratags=[(274, "H", 1, 6, True)]), "EXIF orientation 6", id="tiff turned"),
        pytest.param(tiff(LABELS, photometric="miniswhite"), "white-is-zero", id="white is zero"),
        pytest.param(tiff(LABELS.astype(np.int8)), "signed values of 8 bits", id="signed"),
        pytest.param(
            tiff(
                np.dstack([LABELS, GREY]), photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"]
            ),
            "1 more channels",
            id="a channel of unknown meaning",
        ),
        pytest.param(png(16, 0, [bytes(2 * WIDTH)] * HEIGHT), "mask of mode I;16", id="16 bits, already"),
        pytest.param(png(1, 0, [b"\x55" * (WIDTH // 8)] * HEIGHT), "mask of mode 1", id="1 bit, already"),
        pytest.param(png(2, 0, [b"\x1b" * (WIDTH // 4)] * HEIGHT), "grey PNG of 2 bits", id="2 bits, already"),
        pytest.param(saved(np.dstack([LABELS, LABELS, GREY]), "PNG"), "mask of mode RGB", id="colours, already"),
        pytest.param(saved(Image.fromarray(LABELS).convert("LA"), "PNG"), "mask of mode LA", id="alpha, already"),
        pytest.param(saved(LABELS, "PNG")[:-40], "truncated", id="cut off, already"),
        pytest.param(b"", "the file is empty", id="empty"),
    ],
)
def test_masks_that_can_change_a_label_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as wrong:
        decode_label(data)
    assert wrong.value.what in str(wrong.value)


def test_the_refusal_of_a_rotated_mask_has_a_fix() -> None:
    with pytest.raises(ImageError) as wrong:
        read_label(saved(LABELS, "PNG", exif=exif(6)))
    assert wrong.value.mend == (
        "if it is aligned as stored: exiftool -Orientation= FILE; otherwise: mogrify -auto-orient FILE"
    )


@pytest.mark.parametrize(
    "data",
    [
        saved(LABELS, "PNG"),
        saved(LABELS, "PNG", icc_profile=b"a profile"),
        saved(LABELS, "BMP"),
        saved(LABELS, "TIFF", compression="tiff_lzw"),
        tiff(LABELS, byteorder=">"),
        tiff(np.pad(LABELS, ((0, 12), (0, 8))), tile=(16, 16)),
        saved(with_palette(LABELS, [i * 7 % 256 for i in range(768)]), "PNG"),
        saved(with_palette(LABELS, [i * 7 % 256 for i in range(768)]), "PNG", bits=4),
        saved(LABELS, "PNG", transparency=0),
        saved(LABELS, "PNG", exif=exif(1)),
    ],
)
def test_masks_with_intact_labels_are_read(data: bytes) -> None:
    assert np.array_equal(read_label(data).pixels[:HEIGHT, :WIDTH], LABELS)


def test_an_interlaced_mask_is_read() -> None:
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # Adam7
    rows = [row.tobytes() for y, x, down, across in passes for row in LABELS[y::down, x::across]]
    assert np.array_equal(decode_label(png(8, 0, rows, interlaced=True)), LABELS)


def test_a_palette_of_other_greys_is_noted_and_the_index_is_the_label() -> None:
    renumbered = with_palette(LABELS, [v for grey in (0, 7, 9, 12, 20) for v in (grey,) * 3])  # as optimisers write it
    found = read_label(saved(renumbered, "PNG"))
    assert np.array_equal(found.pixels, LABELS)
    assert found.notes == ("have a grey palette that differs from the indices; the index is the label",)
    own = with_palette(LABELS, [v for grey in range(256) for v in (grey,) * 3])
    assert read_label(saved(own, "PNG")).notes == ()
    assert read_label(saved(LABELS, "PNG", transparency=0)).notes == (
        "have transparent pixels or colours, which are read as labels like others",
    )


def test_unknown_labels_are_reported_with_their_pixels() -> None:
    def pixels(label: list[int], num_classes: int) -> tuple[int, ...]:
        facts = FileFacts("PNG")
        label_file = ImageFile(np.array([label], np.uint8), facts)
        return class_pixels(label_file, ImageFile(np.zeros((1, len(label)), np.uint8), facts), num_classes)

    label = [0] * 5 + [9] * 2 + [33] * 7 + [255] * 100
    with pytest.raises(UnknownLabelError, match=r"^label 9 on 2 px, 33 on 7 px$"):
        pixels(label, 9)
    assert pixels(label, 34) == (5, *[0] * 8, 2, *[0] * 23, 7, 100)
    with pytest.raises(UnknownLabelError, match=r"and 7 more$"):
        pixels([*label, *range(40, 50)], 9)


def test_a_label_map_has_the_size_of_its_image() -> None:
    label, image = (ImageFile(np.zeros(shape, np.uint8), FileFacts("PNG")) for shape in ((10, 24), (20, 24)))
    with pytest.raises(SizeMismatchError, match=r"^24x10, its image 24x20$"):
        class_pixels(label, image, 2)


# -- images that are refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(tiff(np.stack([GREY] * 5), photometric="minisblack"), "5 pages", id="five pages"),
        pytest.param(tiff(np.stack([DEEP] * 5), photometric="minisblack"), "5 pages", id="five deep pages"),
        pytest.param(saved(GREY, "GIF", save_all=True, append_images=[Image.fromarray(LABELS)]), "2 pages", id="gif"),
        pytest.param(saved(GREY, "WEBP", save_all=True, append_images=[Image.fromarray(LABELS)]), "2 pages", id="webp"),
        pytest.param(saved(GREY, "PNG", save_all=True, append_images=[Image.fromarray(LABELS)]), "2 pages", id="apng"),
        pytest.param(tiff((RAMP * 200 - 100).astype(np.int8)), "signed values of 8 bits", id="signed"),
        pytest.param(saved(transparent(GREY), "PNG"), "alpha channel hides some pixels", id="see-through"),
        pytest.param(saved(transparent(GREY), "TIFF"), "alpha channel hides some pixels", id="see-through tiff"),
        pytest.param(
            tiff(np.dstack([GREY] * 4), photometric="rgb", extrasamples=["assocalpha"]), "alpha", id="premultiplied"
        ),
        pytest.param(
            tiff(np.dstack([DEEP, DEEP]), photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]),
            "16 bits, of which only 8 would be read",
            id="deep with alpha",
        ),
        pytest.param(
            tiff(np.stack([DEEP] * 3), photometric="rgb", planarconfig="separate"), "separate planes", id="deep planes"
        ),
        pytest.param(
            tiff(np.dstack([GREY] * 5), photometric="minisblack", planarconfig="contig"), "more channels", id="bands"
        ),
        pytest.param(saved_array(RAMP, RAMP), "data after its first array", id="two arrays"),
        pytest.param(saved_array(np.dstack([GREY, GREY, GREY, LABELS])), "alpha channel hides", id="array with alpha"),
        pytest.param(tiff(np.where(RAMP > 0.5, np.inf, RAMP).astype(np.float32)), "not finite", id="infinite"),
        pytest.param(saved(DEEP, "PNG")[:-40], "truncated", id="deep, cut off"),
        pytest.param(saved(GREY, "BMP")[:-40], "truncated", id="bmp, cut off"),
        pytest.param(saved(GREY, "TIFF")[:100], "truncated", id="tiff, cut off"),
        pytest.param(tiff(DEEP)[:-40], "not a readable image", id="deep tiff, cut off"),
        pytest.param(b"II*\0\x08\0\0\0", "not a readable image", id="nothing but a head"),
    ],
)
def test_images_that_can_change_a_grey_value_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_thermal(data)


def test_a_decompression_bomb_is_refused() -> None:
    bomb = png(8, 0, [bytes(20_000)], size=(20_000, 20_000))
    for read in (decode_thermal, decode_label):
        with pytest.raises(ImageError, match="decompression bomb"):
            read(bomb)


@pytest.mark.filterwarnings("ignore")  # of Pillow, about damaged tags and large sizes
@pytest.mark.parametrize(
    "form", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "JPEG2000", "PPM", "16-bit PNG", "16-bit TIFF"]
)
def test_damaged_files_raise_only_image_errors(form: str) -> None:
    data = saved(DEEP if form.startswith("16") else GREY, form.removeprefix("16-bit "))
    rng = np.random.default_rng(0)
    for _ in range(150):
        spoiled = bytearray(data[: rng.integers(1, len(data) + 1)])
        for place in rng.integers(0, len(spoiled), rng.integers(0, 4)):
            spoiled[place] = rng.integers(256)
        for read in (decode_thermal, decode_label):
            with contextlib.suppress(ImageError):
                assert read(bytes(spoiled)).ndim == 2


# -- images that are converted, with a note --------------------------------------------------------------------------------


def test_plain_images_have_no_notes() -> None:
    for form, name in (("PNG", "a.png"), ("JPEG", "a.JPG"), ("BMP", "a.bmp"), ("TIFF", "a.tif")):
        found = read_image(saved(GREY, form), name)
        assert found.notes == ()
        assert found.facts.format == form
    assert np.array_equal(read_image(saved(GREY, "PNG")).pixels, GREY)


WHITE = "are white-is-zero TIFFs and are inverted, so that high values are white"
SIXTEEN = "have 16 bits and are scaled to 8 by each image's own percentiles"
ALPHA = "have a constant alpha channel, which is ignored"
COLOURED = "are coloured (false colours?) and are converted to grey"


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (saved(GREY, "JPEG"), ["hold JPEG under the name .png"]),
        (png(16, 0, [row.tobytes() for row in DEEP.astype(">u2")]), [SIXTEEN]),
        (png(16, 4, [np.dstack([r, r * 0 + 9]).astype(">u2").tobytes() for r in DEEP]), [SIXTEEN, ALPHA]),
        (png(4, 0, [b"\x1f" * (WIDTH // 2)] * HEIGHT), ["have only 4 bits"]),
        (saved(Image.fromarray(GREY).convert("RGBA"), "PNG"), [ALPHA]),
        (saved(np.dstack([GREY, GREY // 2, GREY]), "PNG"), [COLOURED]),
        (saved(with_palette(GREY, [i * 7 % 256 for i in range(768)]), "PNG"), [COLOURED]),
        (saved(np.full_like(GREY, 9), "PNG"), ["have a single grey value"]),
        (png(8, 0, [bytes(WIDTH)] * HEIGHT), ["have a single grey value"]),
    ],
)
def test_conversions_are_noted(data: bytes, notes: list[str]) -> None:
    assert list(read_image(data, "a.png").notes) == notes


def test_a_cmyk_jpeg_is_noted() -> None:
    assert (
        "are CMYK and are converted to grey" in read_image(saved(Image.fromarray(GREY).convert("CMYK"), "JPEG")).notes
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda o: saved(GREY, "PNG", exif=exif(o)), id="png"),
        pytest.param(lambda o: saved(GREY, "JPEG", exif=exif(o), quality=100), id="jpeg"),
        pytest.param(lambda o: saved(GREY, "TIFF", exif=exif(o)), id="tiff"),
        pytest.param(lambda o: saved(DEEP, "PNG", exif=exif(o)), id="deep png"),
        pytest.param(lambda o: tiff(DEEP, extratags=[(274, "H", 1, o, True)]), id="deep tiff"),
        pytest.param(lambda o: tiff(RAMP.astype(np.float32), extratags=[(274, "H", 1, o, True)]), id="float tiff"),
    ],
)
def test_every_orientation_is_applied(make: Callable[[int], bytes], orientation: int) -> None:
    stored = Image.open(io.BytesIO(saved(GREY, "PNG", exif=exif(orientation))))
    wanted = np.asarray(ImageOps.exif_transpose(stored)).astype(float)
    found = read_image(make(orientation))
    assert np.corrcoef(found.pixels.ravel().astype(float), wanted.ravel())[0, 1] > 0.999
    assert ("are rotated or mirrored by their EXIF orientation" in found.notes) == (orientation > 1)
    assert found.facts.orientation == orientation


def test_a_rotated_jpeg_is_rotated_at_reduced_size_too() -> None:
    large = np.kron(GREY, np.ones((20, 20), np.uint8))
    whole = read_image(saved(large, "JPEG", exif=exif(6))).pixels
    small = read_image(saved(large, "JPEG", exif=exif(6)), side=100).pixels
    assert whole.shape == (480, 400)
    assert small.shape == (120, 100)
    assert small[5, -5] == pytest.approx(whole[20, -20], abs=3)


def test_unreadable_exif_is_noted() -> None:
    data = saved(GREY, "JPEG", exif=b"Exif\0\0" + b"no such thing")
    assert "have unreadable EXIF data: their orientation is unknown" in read_image(data).notes
    assert read_image(saved(GREY, "PNG", exif=exif(0))).notes == ()


@pytest.mark.parametrize("pixels", [GREY, DEEP, RAMP.astype(np.float32)], ids=["8 bits", "16 bits", "float"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero_means_the_same_at_any_depth(pixels: np.ndarray, order: str) -> None:
    black = read_image(tiff(pixels, byteorder=order))
    white = read_image(tiff(pixels, byteorder=order, photometric="miniswhite"))
    assert np.abs(white.pixels.astype(int) + black.pixels - 255).max() <= 1
    assert WHITE in white.notes
    assert WHITE not in black.notes


def test_deep_colours_in_a_tiff_are_not_cut_to_eight_bits() -> None:
    low = (RAMP * 200).astype(np.uint16)  # all of it in the lower byte
    grey = read_image(tiff(np.dstack([low] * 3), photometric="rgb")).pixels
    assert np.abs(grey - decode_thermal(tiff(low)).astype(int)).max() <= 1
    assert len(np.unique(grey)) > 100


def test_previews_are_noted_and_ignored() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(GREY)
        writer.write(GREY[::2, ::2], subfiletype=1)
    found = read_image(buffer.getvalue())
    assert np.array_equal(found.pixels, GREY)
    assert found.notes == ("have further pictures (previews), which are ignored",)
    first_small = io.BytesIO()
    with tifffile.TiffWriter(first_small) as writer:
        writer.write(GREY[::2, ::2], subfiletype=1)
        writer.write(GREY)
    with pytest.raises(ImageError, match="its first page is a reduced copy of another page"):
        read_image(first_small.getvalue())
    pair = saved(GREY, "MPO", save_all=True, append_images=[Image.fromarray(LABELS)])
    assert read_image(pair, "a.jpg").notes == found.notes


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (DEEP, {}),
        (DEEP, {"byteorder": ">"}),
        (DEEP, {"bigtiff": True}),
        (DEEP, {"compression": "zlib"}),
        (DEEP.astype(np.uint32) * 60_000, {}),
        ((RAMP * 20000 - 10000).astype(np.int16), {}),
        ((RAMP * 20000 - 10000).astype(np.int32), {}),
        (RAMP * 40 + 273, {}),
        (np.dstack([DEEP] * 3), {"photometric": "rgb"}),
    ],
)
def test_deep_tiffs_of_any_kind_give_the_same_picture(pixels: np.ndarray, options: dict[str, Any]) -> None:
    expected = np.clip((RAMP - 0.005) / 0.99, 0, 1) * 255
    assert np.abs(decode_thermal(tiff(pixels, **options)) - expected).max() <= 1.5


def test_facts_come_from_the_header_not_the_name() -> None:
    assert read_image(saved(DEEP, "PNG"), "a.jpg").facts == FileFacts("PNG", "I;16", 16)
    assert read_label(saved(LABELS, "BMP"), "a.png").notes == ("hold BMP under the name .png",)


def test_counted() -> None:
    rows = [("a", "are x"), ("b", "are y"), ("c", "are x")]
    assert counted(rows) == ["2 are x (first: a)", "1 are y (first: b)"]
