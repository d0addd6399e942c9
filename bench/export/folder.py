"""Predictions for a folder of images, as the test images of the run were predicted.

DIR/labels/<path of the image>.png     label maps: 8-bit index PNGs at the size of the image
DIR/overlays/<path of the image>.png   the image with the classes in colours, and DIR/legend.png
DIR/predictions.json                   run, classes with their index and colour, and what was left out
"""

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backbones.network import Network
from bench import BenchError, DivergedError
from bench.spec import Protocol
from bench.targets.frames import Coding, DeepImageError, open_image
from bench.train import devices
from bench.train.batches import Decoded, fitted
from bench.train.devices import DeviceError
from bench.train.kept import About
from bench.train.loop import predict
from pretrain_sources.image_files import ImageError, Pixels, counted
from pretrain_sources.lists import SUFFIXES
from pretrain_sources.pool import walk
from results.charts import class_colours, legend, painted
from results.store import cannot_write
from safe_io.files import MOST_TEXT_BYTES, read_regular, write_whole

LABELS, OVERLAYS, LEGEND, ABOUT = "labels", "overlays", "legend.png", "predictions.json"
AT_ONCE = 32  # images in memory
OPACITY = 0.5  # of a class over the image
SCALED = "the run learned from 8-bit images: save it with 8 bits, scaled as those were"


@dataclass
class Predicted:
    """What became of the images of a folder.

    Attributes:
        images: number of label maps. left_out: image -> why it has none. notes: on files that were skipped or converted.
    """

    images: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def predict_folder(
    network: Network,
    about: About,
    folder: Path,
    out: Path,
    overlay: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Predicted:
    """Predict every image below `folder`; write label maps and, with `overlay`, colours over the images into `out`.

    An image that cannot be used is left out. Calling it again for the same run writes the same files.

    Raises:
        BenchError: the folder has no image that can be used, two images would give one file, `out` holds something else, or
            the network's output is not finite. PoolError: the folder cannot be read. StoreError: `out` cannot be written.
    """
    names, skipped = images_in(folder, out)
    _refuse_other(out, about)
    protocol, note = protocol_here(about.protocol)
    done, colours = Predicted(notes=[*skipped, *note]), class_colours(len(about.classes))
    try:
        _write_about(out, about, colours, done)  # first: it marks the folder as this run's
        if overlay:
            write_whole(out / LEGEND, _png(legend(about.classes, colours)))
        with devices.computing(protocol):
            for name, image, labels in _predicted(network, about, protocol, folder, names, done):
                file = f"{os.path.splitext(name)[0]}.png"
                write_whole(out / LABELS / file, _png(labels), sync=False)
                if overlay:
                    write_whole(out / OVERLAYS / file, _png(drawn_over(image, labels, colours)), sync=False)
                done.images += 1
                report(done.images + len(done.left_out), len(names))
        _write_about(out, about, colours, done)
    except OSError as error:
        raise cannot_write(out, error) from error
    except DivergedError as error:
        raise BenchError(str(error)) from error
    if not done.images:
        _refuse_all(folder, done)
    return done


def images_in(folder: Path, out: Path) -> tuple[list[str], list[str]]:
    """Return (paths of the images below `folder`, notes on other files).

    Raises:
        BenchError: there are none, two differ only in their suffix, or `out` is the folder or inside it.
    """
    if not folder.is_dir():
        raise BenchError(f"no folder {folder}")
    inside = folder.resolve() in (out.resolve(), *out.resolve().parents)
    if inside:
        raise BenchError(f"--out {out} is the folder of the images or inside it: choose another folder")
    files, notes = walk(folder)
    first: dict[str, str] = {}
    for name, _ in files:
        stem = os.path.splitext(name)[0]
        if stem in first:
            raise BenchError(f"{folder}: {first[stem]} and {name} would give one label map: rename or remove one")
        first[stem] = name
    if not first:
        raise BenchError(f"no images in {folder}: it must hold {', '.join(SUFFIXES)} files, also in subfolders")
    return list(first.values()), notes


def protocol_here(protocol: Protocol) -> tuple[Protocol, list[str]]:
    """Return the protocol to predict with on this machine, and a note if that is not the run's own."""
    try:
        devices.device_of(protocol)
    except DeviceError:
        how = f"the run was on a GPU in {protocol.precision}, this is a CPU in fp32: a few pixels may differ"
        return protocol.model_copy(update={"device": "cpu", "precision": "fp32"}), [how]
    return protocol, []


def drawn_over(image: Pixels, labels: Pixels, colours: Pixels) -> Pixels:
    """Return the image (H, W) with the colours of its classes (H, W, 3); the background, class 0, stays grey."""
    grey = np.repeat(image[..., None], 3, axis=2).astype(np.float32)
    over = (labels > 0)[..., None] * OPACITY
    return np.asarray((grey + over * (painted(labels, colours) - grey)).round(), dtype=np.uint8)


def _predicted(
    network: Network, about: About, protocol: Protocol, folder: Path, names: Sequence[str], done: Predicted
) -> Iterator[tuple[str, Pixels, Pixels]]:
    """Yield (path, image, label map (H, W)) of each image that can be read; add the others and notes to `done`."""
    noted: list[tuple[str, str]] = []
    for begin in range(0, len(names), AT_ONCE):
        frames = []
        for name in names[begin : begin + AT_ONCE]:
            try:
                image = open_image(read_regular(folder / name), Coding(about.images), name)
            except (OSError, ImageError) as error:
                done.left_out[name] = _why(error)
                continue
            noted += [(name, f"images {note}") for note in image.notes]
            # the image as stored in place of a label, whose size a prediction gets
            frames.append(
                Decoded(name, "", fitted(image.pixels, image.pixels, protocol.image_px, False)[0], image.pixels)
            )
        for frame, labels in predict(network, frames, protocol, lambda *_, **__: None):
            yield frame.id, frame.label, labels
    done.notes += counted(noted)


def _why(error: OSError | ImageError) -> str:
    if isinstance(error, DeepImageError):
        return f"{error.what}, and {SCALED}"
    return str(error) if isinstance(error, ImageError) else error.strerror or str(error)


def _refuse_all(folder: Path, done: Predicted) -> None:
    raise BenchError(f"no image in {folder} can be used: {'; '.join(left_out_lines(done))}")


def left_out_lines(done: Predicted) -> list[str]:
    """Return a line for each reason why images were left out."""
    return counted((name, f"left out: {why}") for name, why in done.left_out.items())


def _refuse_other(out: Path, about: About) -> None:
    """Refuse an output folder that holds anything but predictions of this run.

    Raises:
        BenchError: it does, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise BenchError(f"--out {out} is a file: choose a folder")
    if out.is_dir() and any(out.iterdir()) and _run_of(out) != about.run:
        raise BenchError(f"--out {out} already holds something else: choose another folder, or delete it")


def _run_of(out: Path) -> object:
    try:
        known = json.loads(read_regular(out / ABOUT, MOST_TEXT_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return known.get("run") if isinstance(known, Mapping) else None


def _write_about(out: Path, about: About, colours: Pixels, done: Predicted) -> None:
    classes = [
        {"index": index, "name": name, "colour": f"#{bytes(colour).hex()}"}
        for index, (name, colour) in enumerate(zip(about.classes, colours, strict=True))
    ]
    content: dict[str, Any] = about.model_dump(include={"run", "source", "backbone", "replicate", "target"})
    content |= {"protocol": about.protocol.name, "network_sha256": about.network_sha256, "classes": classes}
    content |= {"images": done.images, "left_out": done.left_out}
    write_whole(out / ABOUT, (json.dumps(content, indent=1) + "\n").encode())


def _png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
