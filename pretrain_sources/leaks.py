"""Near-duplicates of a target's test images among many others: a source that has seen the test images is marked.

Every image becomes a fingerprint: the slow waves (a cosine transform) of a small, histogram-equalised thumbnail. The few test
images are flipped and cropped beforehand, so the many others are decoded and fingerprinted once. Equalising takes out gain and
gamma, the sign of the correlation tells an inverted frame. The best candidates of each test image get a second look: aligned, and
their gradients correlated, which frames of little texture or of like layout do not survive.

How alike two frames may be by chance is learnt from images that are known to be distinct from the test images.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dct

from pretrain_sources.images import Pixels, read_image
from safe_io.files import read_regular

SIDE = 128  # of a thumbnail in pixels; it is square, whatever the image's shape
LEAST_SIDE = 32  # pixels; a smaller image has too little in it to be told from others
BLANK = 4  # grey levels; a thumbnail that spans fewer, once smoothed, shows nothing
WAVES = 10  # half waves across the frame; the fingerprint holds the slower ones
CROPS = (1.0, 0.93, 0.86, 0.8)  # sides of the crops of a test image; the further in, the more positions
LOOKS = 4  # corpus images a test image that get the second look
CHANCE_LOOKS = 2  # distinct images a test image that get one, and one test image for each distinct image
LEAST_DISTINCT = 30  # images without which no threshold can be had
MOST_DISTINCT = 1000  # of them that are used
TAIL = 0.1  # share of the looks at distinct images that the chance likeness is fitted to
LEAST_TAIL = 20  # of those, at least
EXPECTED = 0.1  # false alarms that the threshold is set for, in the whole run
FLOOR = 0.5  # no threshold lies below; half of what the gradients show is shared
CEILING = 0.99  # nor above, so that an exact copy is found whatever the distinct images are like
HIGH = 0.85  # a threshold above would let altered copies through: measured on frames that were cropped and changed
MOST_ALIKE = 0.9999  # similarities above count as this one
LEAST_SHARED = 0.5  # share of the corpus image that must lie in the test image once they are aligned
WHOLE = 0.97  # a side above is called the whole frame
CHUNK = 32  # test images in one matrix product, which takes all cores
UNREADABLE = "unreadable, so not compared; copy again"
BLOCK = 512  # corpus images that are compared at once
READ_AHEAD = 256  # images in memory that are decoded beside the comparing
NAMED = 5  # images of one kind that a note names

Floats = NDArray[np.float32]
Frame = tuple[str, Pixels | Exception]  # id, and grey values (H, W) or why there are none


class LeaksError(Exception):
    """No judgement can be had; the message says why and what to do."""


@dataclass(frozen=True)
class Suspect:
    """A corpus image that shows what a test image shows. `similarity`: correlation of their gradients once aligned, up to 1."""

    test_id: str
    corpus_id: str
    similarity: float
    how: str  # what was done to the test image, as far as can be told


@dataclass(frozen=True)
class Leaks:
    """What was found. `expected_false_alarms`: pairs that would pass the threshold if no test image had leaked, an upper bound."""

    suspects: tuple[Suspect, ...]  # at most four a test image, by test id, the most similar first
    test_images: int
    corpus_images: int
    threshold: float  # least similarity of a suspect
    expected_false_alarms: float
    unreadable: tuple[str, ...]  # corpus images that could not be read, so that nothing is known of them
    notes: tuple[str, ...]  # what a reader of the result must know

    @property
    def touched(self) -> tuple[str, ...]:
        """Test images with a suspect."""
        return tuple(sorted({suspect.test_id for suspect in self.suspects}))


def read_frames(paths: Iterable[tuple[str, Path]]) -> Iterator[Frame]:
    """Images by id, decoded in threads and no larger than is needed here; the error in place of one that cannot be read."""
    rows = iter(paths)
    with ThreadPoolExecutor() as threads:
        ready: Iterator[Frame] = iter(())
        while batch := list(itertools.islice(rows, READ_AHEAD)):
            coming = threads.map(_read, batch)
            yield from ready
            ready = coming
        yield from ready


def _read(row: tuple[str, Path]) -> Frame:
    name, path = row
    try:
        return name, read_image(read_regular(path), side=SIDE).pixels
    except (OSError, ValueError) as error:
        return name, error


def find_leaks(
    test: Iterable[Frame],
    corpus: Iterable[Frame],
    distinct: Iterable[Frame] = (),
    groups: Mapping[str, str] | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Leaks:
    """Corpus images that are near-duplicates of test images; `prepare` says which are found, and serves several corpora.

    Raises:
        LeaksError: as `prepare` and `Prepared.find` do.
    """
    return prepare(test, distinct, groups).find(corpus, report)


def prepare(
    test: Iterable[Frame], distinct: Iterable[Frame] = (), groups: Mapping[str, str] | None = None
) -> "Prepared":
    """Makes ready to find test images that were copied, flipped, cropped down to 80 % a side, rescaled, stretched, inverted,
    compressed, or given other gain, gamma or noise. The next frames of a flight or film are found too, where they show the same.

    Mostly missed: crops below 70 % a side, right-angle turns, added borders, and test images that are a part (below 90 % a side) of
    a corpus image.

    Args:
        test: grey values (H, W), uint8. About 150 KB of memory each are held.
        distinct: images of the test images' kind that show none of them, such as the target's train images of other dates; the
            first 1,000 are used.
        groups: group of each test image. Without `distinct`, test images of different groups are held to be distinct.

    Raises:
        LeaksError: no test image can be compared, one cannot be read or is no (H, W) of uint8, two have one id, or there are
            fewer than 30 distinct images.
    """
    tests = _Thumbs.of(_checked(test))
    notes = _notes("test", tests.refused)
    if not tests.ids:
        raise LeaksError(
            " ".join(["there is no test image to compare: give those that must not have been seen", *notes])
        )
    prints = _expanded(tests.thumbs)
    return Prepared(tests, prints, _chance(tests, prints, distinct, groups, notes), tuple(notes))


@dataclass(frozen=True)
class Prepared:
    """Test images that can be looked for in one corpus after the other."""

    tests: "_Thumbs"
    prints: Floats
    chance: "_Chance"
    notes: tuple[str, ...]

    def find(self, corpus: Iterable[Frame], report: Callable[[int], None] = lambda done: None) -> Leaks:
        """The near-duplicates in a corpus of images (H, W) of any sizes, seen once, a block at a time.

        report: called with the number of corpus images seen so far.

        Raises:
            LeaksError: there is no corpus image, or one is no (H, W) of uint8.
        """
        best, seen, refused = _Best(len(self.tests.ids)), 0, dict[str, list[str]]()
        rows = iter(corpus)
        while block := list(itertools.islice(rows, BLOCK)):
            seen += len(block)
            thumbs = _Thumbs.of(block)
            for why, names in thumbs.refused.items():
                refused.setdefault(why, []).extend(names)
            if thumbs.ids:
                best.add(_similarities(self.prints, _fingerprints(thumbs.soft())), thumbs)
            report(seen)
        if not seen:
            raise LeaksError("there is no corpus image: give the images that the source was made from")
        threshold, expected = self.chance.threshold(len(self.tests.ids) * seen)
        notes = [*self.notes, *_notes("corpus", refused), *self._doubts(threshold)]
        suspects = [look for look in _looks(best.pairs(), self.tests, self.prints) if look.similarity >= threshold]
        suspects.sort(key=lambda suspect: (suspect.test_id, -suspect.similarity, suspect.corpus_id))
        total = len(self.tests.ids) + sum(map(len, self.tests.refused.values()))
        unreadable = tuple(refused.get(UNREADABLE, ()))
        return Leaks(tuple(suspects), total, seen, threshold, expected, unreadable, tuple(notes))

    def _doubts(self, threshold: float) -> Iterator[str]:
        """What speaks against the threshold."""
        if threshold > HIGH:
            yield (
                f"the distinct images are so few or so much like the test images that the threshold is {threshold:.2f}: copies "
                "that were altered may be missed; give more distinct images, of other places"
            )
        if alike := [
            f"{look.corpus_id} ({look.test_id})" for look in self.chance.looked if look.similarity >= threshold
        ]:
            yield _note("distinct", "not distinct, for it shows what a test image shows", alike)


def _checked(test: Iterable[Frame]) -> Iterator[Frame]:
    names = set()
    for name, pixels in test:
        if isinstance(pixels, Exception):
            raise LeaksError(f"test image {name} cannot be read ({pixels}): copy it again")
        if name in names:
            raise LeaksError(f"two test images have the id {name}; give each an id of its own")
        names.add(name)
        yield name, pixels


def _notes(role: str, refused: Mapping[str, Sequence[str]]) -> list[str]:
    return [_note(role, why, names) for why, names in refused.items()]


def _note(role: str, what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} {role} image{'s' * (len(names) > 1)}: {what}: {', '.join(names[:NAMED])}{more}"


def side_by_side(test_image: Pixels, corpus_image: Pixels, height: int = 256) -> Pixels:
    """(height, W) the two images, each in its own shape, with a white line between them; for a person to judge."""
    panels = [
        np.asarray(Image.fromarray(image).resize((max(1, round(image.shape[1] * height / image.shape[0])), height)))
        for image in (test_image, corpus_image)
    ]
    line = np.full((height, 8), 255, np.uint8)
    return np.concatenate([panels[0], line, panels[1]], axis=1)


# ---- thumbnails and fingerprints


@dataclass
class _Thumbs:
    """Thumbnails (N, SIDE, SIDE) of the images that can be compared, and the names of those that cannot, by reason."""

    ids: list[str]
    thumbs: Pixels
    refused: dict[str, list[str]]

    @classmethod
    def of(cls, frames: Iterable[Frame]) -> "_Thumbs":
        ids, thumbs, refused = [], [], dict[str, list[str]]()
        for name, pixels in frames:
            thumb, why = (None, UNREADABLE) if isinstance(pixels, Exception) else _thumb(name, pixels)
            if thumb is None:
                refused.setdefault(why, []).append(name)
            else:
                ids.append(name)
                thumbs.append(thumb)
        return cls(ids, np.array(thumbs, np.uint8).reshape(-1, SIDE, SIDE), refused)

    def soft(self) -> Pixels:
        return np.array([_soft(thumb) for thumb in self.thumbs], np.uint8).reshape(-1, SIDE, SIDE)


def _thumb(name: str, pixels: Pixels) -> tuple[Pixels | None, str]:
    """(thumbnail, "") of an image, or (None, why it cannot be compared)."""
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise LeaksError(
            f"{name}: an array of shape {pixels.shape} and type {pixels.dtype}, not (H, W) of uint8; "
            "read it with pretrain_sources.images.decode_thermal"
        )
    if min(pixels.shape) < LEAST_SIDE:
        return None, f"a side below {LEAST_SIDE} pixels, so not compared"
    thumb = np.asarray(cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA))
    return (None, "blank, so not compared") if np.ptp(_smooth(thumb)) < BLANK else (thumb, "")


def _smooth(thumb: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(thumb, (0, 0), 1.0))


def _soft(thumb: Pixels) -> Pixels:
    """A thumbnail with less noise and an even histogram: gain, offset and gamma leave it as it is."""
    return np.asarray(cv2.equalizeHist(_smooth(thumb)))


_DOWN, _RIGHT = (axis.ravel() for axis in np.mgrid[:WAVES, :WAVES])
_KEPT = (np.hypot(_DOWN, _RIGHT) < WAVES) & (_DOWN + _RIGHT > 0)  # all but the mean
_DOWN, _RIGHT = _DOWN[_KEPT], _RIGHT[_KEPT]
_WEIGHTS = np.hypot(_DOWN, _RIGHT).astype(np.float32)  # natural images have less of fast waves: this evens it out
_COSINES = dct(np.eye(SIDE), axis=0, norm="ortho")[:WAVES].astype(np.float32)
_STEPS = ((1, 1), (-1, 1), (1, -1), (-1, -1))  # of each flip, across and down
_FLIP_NAMES = ((), ("left-right",), ("up-down",), ("left-right", "up-down"))
_SIGNS = [  # of each flip: it turns the waves of odd number
    np.where((_RIGHT * (across < 0) + _DOWN * (down < 0)) % 2, -1, 1).astype(np.float32) for across, down in _STEPS
]


def _fingerprints(soft: Pixels) -> Floats:
    """(N, D) of unit length, of softened thumbnails (N, SIDE, SIDE)."""
    waves = (_COSINES @ soft.astype(np.float32) @ _COSINES.T).reshape(len(soft), -1)[:, _KEPT] * _WEIGHTS
    return np.asarray(waves / np.maximum(np.linalg.norm(waves, axis=1, keepdims=True), 1e-6))


@dataclass(frozen=True)
class _Crop:
    """Part of a test image: its sides and corner as shares of the frame, (across, down)."""

    sides: tuple[float, float]
    corner: tuple[float, float]

    def matrix(self) -> Floats:
        """(2, 3) from pixels of the crop's thumbnail to those of the whole image's."""
        (a, b), (x, y) = self.sides, self.corner
        return np.array([[a, 0, x * SIDE + (a - 1) / 2], [0, b, y * SIDE + (b - 1) / 2]], np.float32)


def _crops() -> tuple[_Crop, ...]:
    """Every crop that is tried, the whole frame first: of the frame's shape, or a little off one pair of sides."""
    steps = range(len(CROPS))
    return tuple(
        _Crop((CROPS[i], CROPS[j]), (float(x), float(y)))
        for i, j in itertools.product(steps, steps)
        if i == j or i + j == 1
        for x in np.linspace(0, 1 - CROPS[i], i + 1)
        for y in np.linspace(0, 1 - CROPS[j], j + 1)
    )


_CROPS = _crops()


def _expanded(thumbs: Pixels) -> Floats:
    """(N, flips x crops, D): fingerprints of every crop of the test images, and of every flip of those."""

    prints = np.stack(
        [_fingerprints(np.stack([_soft(_warped(thumb, crop.matrix())) for crop in _CROPS])) for thumb in thumbs]
    )
    return np.concatenate([prints * signs for signs in _SIGNS], axis=1)


def _warped(image: NDArray[Any], matrix: NDArray[np.float32]) -> NDArray[Any]:
    """(SIDE, SIDE): what `matrix` points at."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _similarities(prints: Floats, others: Floats) -> Floats:
    """(tests, others): the largest correlation of either sign over all changes of a test image."""

    def largest(chunk: Floats) -> Floats:
        found = (chunk.reshape(-1, chunk.shape[-1]) @ others.T).reshape(len(chunk), -1, len(others))
        return np.asarray(np.maximum(found.max(axis=1), -found.min(axis=1)))

    return np.concatenate([largest(prints[i : i + CHUNK]) for i in range(0, len(prints), CHUNK)])


# ---- the second look


Pair = tuple[int, str, Pixels]  # number of the test image, id and thumbnail of the other


class _Best:
    """The few images most like each test image so far. The order in which images come does not matter."""

    def __init__(self, tests: int) -> None:
        self.kept: list[list[tuple[float, str, Pixels]]] = [[] for _ in range(tests)]
        self.least = np.full(tests, -1.0)

    def add(self, similarities: Floats, thumbs: "_Thumbs") -> None:
        """similarities: (tests, images), of the images that `thumbs` holds."""
        of_block = np.sort(similarities, axis=1)[:, -LOOKS:][:, 0]
        for i, j in np.argwhere(similarities >= np.maximum(self.least, of_block - 1e-4)[:, None]).tolist():
            self.kept[i].append((round(-float(similarities[i, j]), 4), thumbs.ids[j], thumbs.thumbs[j].copy()))
        for i, kept in enumerate(self.kept):
            if len(kept) > LOOKS:
                kept.sort(key=lambda row: row[:2])
                del kept[LOOKS:]
                self.least[i] = -kept[-1][0] - 1e-4

    def pairs(self) -> list[Pair]:
        return [(i, name, thumb) for i, kept in enumerate(self.kept) for _, name, thumb in kept]


def _looks(pairs: Sequence[Pair], tests: _Thumbs, prints: Floats) -> list[Suspect]:
    """A second look at each pair."""

    def look(pair: Pair, fingerprint: Floats) -> Suspect:
        i, name, thumb = pair
        found = prints[i] @ fingerprint
        change = int(np.abs(found).argmax())
        flip, crop = divmod(change, len(_CROPS))
        similarity, matrix = _aligned(tests.thumbs[i], thumb, flip, _CROPS[crop], inverted=bool(found[change] < 0))
        return Suspect(tests.ids[i], name, similarity, _told(flip, matrix, inverted=bool(found[change] < 0)))

    fingerprints = [_fingerprints(_soft(thumb)[None])[0] for _, _, thumb in pairs]  # products thread themselves
    with ThreadPoolExecutor() as threads:
        return list(threads.map(look, pairs, fingerprints))


def _aligned(test: Pixels, other: Pixels, flip: int, crop: _Crop, inverted: bool) -> tuple[float, Floats]:
    """How alike the gradients are where both thumbnails show something, and the (2, 3) that leads from the other to the test."""
    here, there = _soft(test), _soft(np.ascontiguousarray(other[:: _STEPS[flip][1], :: _STEPS[flip][0]]))
    there = 255 - there if inverted else there
    smooth = [cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5) for image in (there, here)]
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-4)
    try:
        matrix = cv2.findTransformECC(smooth[0], smooth[1], crop.matrix(), cv2.MOTION_AFFINE, stop, None, 1)[1]
    except cv2.error:  # it found no better alignment than the one it was given
        matrix = crop.matrix()
    seen = cv2.warpAffine(
        np.ones((SIDE, SIDE), np.uint8), matrix, (SIDE, SIDE), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    seen[:1], seen[-1:], seen[:, :1], seen[:, -1:] = 0, 0, 0, 0
    inner = cv2.erode(seen, np.ones((5, 5), np.uint8)) > 0
    if inner.mean() < LEAST_SHARED:
        return 0.0, matrix
    a, b = (_gradients(image)[:, inner] for image in (_warped(here, matrix), there))
    return float((a * b).sum() / max(math.sqrt(float((a * a).sum() * (b * b).sum())), 1e-6)), matrix


def _gradients(image: Pixels) -> Floats:
    """(2, SIDE, SIDE) across and down."""
    return np.stack([cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)])


def _told(flip: int, matrix: Floats, inverted: bool) -> str:
    """What was done to the test image, in words."""
    across, down = np.hypot(matrix[0, 0], matrix[1, 0]), np.hypot(matrix[0, 1], matrix[1, 1])
    told = [f"cropped to {min(across, 1):.0%} x {min(down, 1):.0%}"] if min(across, down) < WHOLE else []
    told += ["flipped " + " and ".join(_FLIP_NAMES[flip])] if flip else []
    told += ["inverted"] if inverted else []
    return ", ".join(told) or "the whole frame"


# ---- how alike distinct images are by chance


@dataclass(frozen=True)
class _Chance:
    """Second looks at pairs that are known to be distinct, those that looked most alike of all `pairs`."""

    looked: tuple[Suspect, ...]
    pairs: int

    def threshold(self, pairs: int, expected: float = EXPECTED) -> tuple[float, float]:
        """(least similarity of a suspect, false alarms that it lets expect) among so many pairs.

        Beyond the upper tenth of the looks, Fisher's z of the similarity is taken to fall off exponentially. The rate is the
        median's, so that some images that are not so distinct do not spoil it, and made worse by two standard errors.
        """
        z = np.sort([_fisher(look.similarity) for look in self.looked])
        tail = z[-max(math.ceil(TAIL * len(z)), LEAST_TAIL) :]
        scale = float(np.median(tail) - tail[0]) / math.log(2)
        scale = max(scale * (1 + 2 / math.log(2) / math.sqrt(len(tail))), 1e-3)
        at_start = len(tail) * pairs / self.pairs
        least = math.tanh(tail[0] + scale * math.log(max(at_start / expected, 1)))
        least = min(max(least, FLOOR), CEILING)
        return least, at_start * math.exp(-(_fisher(least) - tail[0]) / scale)


def _fisher(similarity: float) -> float:
    return math.atanh(max(-MOST_ALIKE, min(similarity, MOST_ALIKE)))


def _chance(
    tests: _Thumbs,
    prints: Floats,
    distinct: Iterable[Frame],
    groups: Mapping[str, str] | None,
    notes: list[str],
) -> _Chance:
    others = _Thumbs.of(itertools.islice(distinct, MOST_DISTINCT))
    notes += _notes("distinct", others.refused)
    own = groups is not None and not others.ids and not others.refused
    if own:
        others = tests
        notes.append("no distinct images were given: the threshold comes from test images of different groups")
    if len(others.ids) < LEAST_DISTINCT:
        what = f"{len(others.ids)} {'test images' if own else 'usable distinct images'}"
        why = [
            f"no threshold can be had from {what}, only from {LEAST_DISTINCT} or more: give images that are known to "
            "show no test image, such as the target's train images of other dates, or the test images' groups",
            *_notes("distinct", others.refused),
        ]
        raise LeaksError("; ".join(why))
    similarities = _similarities(prints, _fingerprints(others.soft()))
    if own and groups is not None:
        of = np.array([groups.get(name, "") for name in tests.ids])
        similarities[of[:, None] == of] = -1
    allowed = similarities >= 0
    if own and int(allowed.any(axis=0).sum()) < LEAST_DISTINCT:
        raise LeaksError(
            f"no threshold can be had: fewer than {LEAST_DISTINCT} test images have another group to be held against; "
            "give images that are known to show no test image"
        )
    alike = np.zeros_like(allowed)
    np.put_along_axis(alike, np.argsort(similarities, axis=1)[:, -CHANCE_LOOKS:], True, axis=1)
    alike[similarities.argmax(axis=0), np.arange(len(others.ids))] = True
    pairs = [(i, others.ids[j], others.thumbs[j]) for i, j in np.argwhere(alike & allowed).tolist()]
    return _Chance(tuple(_looks(pairs, tests, prints)), int(allowed.sum()))
