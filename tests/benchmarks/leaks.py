"""Planted copies of real test images among real frames of other dates, and the time that a large corpus takes. JSON lines.

python tests/benchmarks/leaks.py recall DATA [PICTURES]     PICTURES: a folder for pairs that were called alike and are not planted
python tests/benchmarks/leaks.py scale DATA                 100,000 JPEGs lie in a temporary folder meanwhile (0.5 GB)
"""

import io
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from pretrain_sources.image_files import decode_thermal  # noqa: E402
from pretrain_sources.leak_search import LeakSearch, chance, prepare, read_frames, side_by_side  # noqa: E402

CORPUS, TESTS, PLANTED = 100_000, 1000, 500
Pixels = np.ndarray
Named = list[tuple[str, Pixels]]
Read = list[tuple[str, Pixels | Exception]]  # the error in place of an image that cannot be read
Change = Callable[[Pixels, np.random.Generator], Pixels]


def crop(image: Pixels, rng: np.random.Generator, side: float) -> Pixels:
    height, width = (round(n * side) for n in image.shape)
    top, left = (int(rng.integers(n - kept + 1)) for n, kept in zip(image.shape, (height, width), strict=True))
    return image[top : top + height, left : left + width]


def resized(image: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def jpeg(image: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def gamma(image: Pixels, power: float) -> Pixels:
    return np.round(255 * (image / 255) ** power).astype(np.uint8)


def noise(image: Pixels, rng: np.random.Generator, sigma: float) -> Pixels:
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).round().astype(np.uint8)


PLAIN: dict[str, Change] = {
    "exact": lambda a, rng: a,
    "flipped left-right": lambda a, rng: a[:, ::-1],
    "flipped up-down": lambda a, rng: a[::-1],
    "flipped both ways": lambda a, rng: a[::-1, ::-1],
    "cropped to 80 % a side": lambda a, rng: crop(a, rng, 0.8),
    "cropped to 90 % a side": lambda a, rng: crop(a, rng, 0.9),
    "320x256": lambda a, rng: resized(a, 320, 256),
    "160x128": lambda a, rng: resized(a, 160, 128),
    "JPEG of quality 30": lambda a, rng: jpeg(a, 30),
    "gamma 0.6": lambda a, rng: gamma(a, 0.6),
    "gamma 1.6": lambda a, rng: gamma(a, 1.6),
    "inverted": lambda a, rng: 255 - a,
    "noise of 5": lambda a, rng: noise(a, rng, 5),
    "noise of 10": lambda a, rng: noise(a, rng, 10),
}
COMBINED: dict[str, Change] = {
    "stretched to 160x120": lambda a, rng: resized(a, 160, 120),
    "cropped to 4:3": lambda a, rng: a[16:496],
    "flipped, cropped to 80 %, 160x128, quality 30": lambda a, rng: jpeg(
        resized(crop(a[:, ::-1], rng, 0.8), 160, 128), 30
    ),
    "cropped to 80 %, gamma 1.6, inverted": lambda a, rng: 255 - gamma(crop(a, rng, 0.8), 1.6),
    "up-down, cropped to 80 %, 320x256, gamma 0.6, noise of 10": lambda a, rng: noise(
        gamma(resized(crop(a[::-1], rng, 0.8), 320, 256), 0.6), rng, 10
    ),
}
BEYOND: dict[str, Change] = {
    "cropped to 70 % a side": lambda a, rng: crop(a, rng, 0.7),
    "cropped to 60 % a side": lambda a, rng: crop(a, rng, 0.6),
    "turned by 5 degrees": lambda a, rng: np.asarray(Image.fromarray(a).rotate(5, Image.Resampling.BILINEAR)),
    "turned by a right angle": lambda a, rng: np.rot90(a),
    "letterboxed to a square": lambda a, rng: np.pad(a, ((64, 64), (0, 0))),
    "64x51": lambda a, rng: resized(a, 64, 51),
    "160x128, noise of 20": lambda a, rng: noise(resized(a, 160, 128), rng, 20),
    "contrast of a tenth": lambda a, rng: (a // 10 + 100).astype(np.uint8),
}


def files(folder: Path) -> list[tuple[str, Path]]:
    return [(path.stem, path) for path in sorted(folder.glob("*.jpg"))]


def whole(folder: Path) -> list[tuple[str, Pixels]]:
    return [(name, decode_thermal(path.read_bytes())) for name, path in files(folder)]


def result(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def recall(frames: Path, pictures: Path | None) -> None:
    tests, rng = whole(frames / "images/test"), np.random.default_rng(0)
    pool = list(read_frames(files(frames / "unlabelled")))
    prepared = prepare(tests, read_frames(files(frames / "images/train")))
    clean = prepared.find(pool)
    share = len(clean.touched) / len(tests)
    bar = {"threshold": round(clean.threshold, 3), "expected_false_alarms": round(clean.expected_false_alarms, 3)}
    result(what="falsely flagged", kind="the pool alone", share=share, pool=len(pool), **bar, notes=clean.notes)
    alarms("train frames, then the pool", prepared, prepare(tests, pool))
    alarms("half of the pool, then the other", prepare(tests, pool[::2]), prepare(tests, pool[1::2]))
    if pictures:
        of = dict(tests)
        for n, suspect in enumerate(clean.suspects):
            other = decode_thermal((frames / "unlabelled" / f"{suspect.corpus_id}.jpg").read_bytes())
            Image.fromarray(side_by_side(of[suspect.test_id], other)).save(pictures / f"{n:03d}.png")
    for what, changes in (("found", PLAIN), ("found, combined", COMBINED), ("found, beyond the aim", BEYOND)):
        shares = []
        for kind, change in changes.items():
            copies = [(name, np.ascontiguousarray(change(image, rng))) for name, image in tests]
            shares.append(share_found(what, kind, prepared, pool, copies))
        result(what=what, kind="all of these", share=round(sum(shares) / len(shares), 4))
    for side in (0.9, 0.8):
        cut = [(name, np.ascontiguousarray(crop(image, rng, side))) for name, image in tests]
        part = prepare(cut, read_frames(files(frames / "images/train")))
        share_found("found, beyond the aim", f"of which the test image is {side:.0%} a side", part, pool, tests)


def share_found(what: str, kind: str, prepared: LeakSearch, pool: Read, copies: Named) -> float:
    """Of the test images, each with its copy; `neighbours`: those that are like the copy of another frame of the flight."""
    found = prepared.find([*pool, *((f"copy of {name}", image) for name, image in copies)])
    right = [suspect for suspect in found.suspects if suspect.corpus_id == f"copy of {suspect.test_id}"]
    copied = [suspect for suspect in found.suspects if suspect.corpus_id.startswith("copy of ")]
    neighbours = {suspect.test_id for suspect in copied if suspect not in right}
    least = min((suspect.similarity for suspect in right), default=0.0)
    result(
        what=what,
        kind=kind,
        share=round(len(right) / len(copies), 4),
        least_similarity=round(least, 3),
        neighbours=len(neighbours),
        like_the_pool=len(found.suspects) - len(copied),
    )
    return len(right) / len(copies)


def alarms(kind: str, prepared: LeakSearch, corpus: LeakSearch) -> None:
    """How many pairs pass thresholds that are set for more false alarms than the module's own. corpus: prepared with it."""
    floor, chance.FLOOR = chance.FLOOR, 0.0
    for expected in (1, 3, 10, 30):
        least, at_most = prepared.chance.threshold(corpus.chance.pairs, expected)
        seen = sum(look.similarity >= least for look in corpus.chance.looked)
        result(what="false alarms", kind=kind, expected=round(at_most, 2), seen=seen, threshold=round(least, 3))
    chance.FLOOR = floor


def parts(name: str, image: Pixels) -> Iterator[tuple[str, Pixels]]:
    """A frame and its four quarters."""
    height, width = (n // 2 for n in image.shape)
    yield name, image
    for down in (0, 1):
        for across in (0, 1):
            cut = image[down * height : (down + 1) * height, across * width : (across + 1) * width]
            yield f"{name} {down}{across}", np.ascontiguousarray(cut)


def write_corpus(folder: Path, pool: list[Pixels], tests: list[tuple[str, Pixels]]) -> dict[str, str]:
    """JPEGs of 160x120: parts of pool frames, all different, and some copies of test images; returns their ids -> test id."""
    kinds = list((PLAIN | COMBINED).values())

    def write(number: int) -> tuple[str, str] | None:
        rng = np.random.default_rng(number)
        planted = number % (CORPUS // PLANTED) == 0
        if planted:
            test, image = tests[int(rng.integers(len(tests)))]
            image = kinds[int(rng.integers(len(kinds)))](image, rng)
        else:
            image = crop(pool[number % len(pool)], rng, rng.uniform(0.3, 0.9))
            image = gamma(image[:, :: rng.choice((-1, 1))], rng.uniform(0.6, 1.6))
        Image.fromarray(resized(np.ascontiguousarray(image), 160, 120)).save(folder / f"{number:06d}.jpg", quality=90)
        return (f"{number:06d}", test) if planted else None

    with ThreadPoolExecutor() as threads:
        return dict(row for row in threads.map(write, range(CORPUS)) if row)


def scale(frames: Path, folder: Path) -> None:
    mine = [row for split in ("test", "val") for frame in whole(frames / f"images/{split}") for row in parts(*frame)]
    distinct = [row for frame in whole(frames / "images/train") for row in parts(*frame)][::2]
    tests = mine[:TESTS]
    began = time.perf_counter()
    planted = write_corpus(folder, [image for _, image in whole(frames / "unlabelled")], tests)
    print(f"corpus written in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    began, busy = time.perf_counter(), time.process_time()
    prepared = prepare(tests, distinct)
    ready = time.perf_counter() - began
    found = prepared.find(read_frames(files(folder)), lambda done: print(done, end="\r", file=sys.stderr))
    took, busy = time.perf_counter() - began, time.process_time() - busy
    wrong = [suspect for suspect in found.suspects if suspect.corpus_id not in planted]
    right = {suspect.test_id for suspect in found.suspects if planted.get(suspect.corpus_id) == suspect.test_id}
    result(
        what="corpus searched",
        corpus=found.corpus_images,
        tests=found.test_images,
        s=round(took, 1),
        cpu_s=round(busy, 1),  # tells on a machine that others use too
        prepare_s=round(ready, 1),
        peak_gib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        copied=len(set(planted.values())),
        share_of_them_found=round(len(right) / len(set(planted.values())), 4),
        falsely_flagged=len({suspect.test_id for suspect in wrong}),
        suspects_not_planted=[[suspect.test_id, suspect.corpus_id, round(suspect.similarity, 3)] for suspect in wrong],
        threshold=round(found.threshold, 3),
        expected_false_alarms=round(found.expected_false_alarms, 3),
        notes=found.notes,
    )


def main() -> None:
    words = sys.argv[1:]
    if len(words) not in (2, 3) or words[0] not in ("recall", "scale"):
        sys.exit(__doc__)
    frames = Path(words[1]) / "hit-uav"
    if words[0] == "recall":
        recall(frames, Path(words[2]) if len(words) == 3 else None)
    else:
        with tempfile.TemporaryDirectory() as name:
            scale(frames, Path(name))


if __name__ == "__main__":
    main()
