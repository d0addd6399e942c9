"""Searching for test images in corpora. The test images are prepared once."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pretrain_sources.leak_search.chance import Chance, learn_chance
from pretrain_sources.leak_search.fingerprints import (
    UNREADABLE,
    Floats,
    Thumbnails,
    expanded_fingerprints,
    fingerprints_of,
    similarities_of,
)
from pretrain_sources.leak_search.frames import Frame, LeakSearchError, note_on, notes_on
from pretrain_sources.leak_search.second_look import BestCandidates, Suspect, second_looks

HIGH = 0.85  # higher thresholds miss altered copies: measured on cropped and changed images
BLOCK = 512  # corpus images compared at once


@dataclass(frozen=True)
class LeakReport:
    """Result of a search. `expected_false_alarms`: upper bound of pairs above the threshold if no test image had leaked."""

    suspects: tuple[Suspect, ...]  # at most four per test image, by test id and falling similarity
    test_images: int
    corpus_images: int
    threshold: float  # minimum similarity of a suspect
    expected_false_alarms: float
    unreadable: tuple[str, ...]  # corpus images that could not be read, hence not compared
    notes: tuple[str, ...]  # caveats of the result

    @property
    def touched(self) -> tuple[str, ...]:
        """Return the test images with a suspect."""
        return tuple(sorted({suspect.test_id for suspect in self.suspects}))


@dataclass(frozen=True)
class LeakSearch:
    """Prepared test images, to be searched in any number of corpora."""

    tests: Thumbnails
    prints: Floats
    chance: Chance
    notes: tuple[str, ...]

    def find(self, corpus: Iterable[Frame], report: Callable[[int], None] = lambda done: None) -> LeakReport:
        """Find near-duplicates in a corpus of images (H, W) of any sizes, read once, block by block.

        report: called with the number of corpus images read so far.

        Raises:
            LeakSearchError: the corpus is empty, or an image is not (H, W) of uint8.
        """
        best, seen, refused = BestCandidates(len(self.tests.ids)), 0, dict[str, list[str]]()
        rows = iter(corpus)
        while block := list(itertools.islice(rows, BLOCK)):
            seen += len(block)
            thumbs = Thumbnails.of(block)
            for why, names in thumbs.refused.items():
                refused.setdefault(why, []).extend(names)
            if thumbs.ids:
                best.add(similarities_of(self.prints, fingerprints_of(thumbs.soft())), thumbs)
            report(seen)
        if not seen:
            raise LeakSearchError("no corpus images: give the images that the source was trained on")
        threshold, expected = self.chance.threshold(len(self.tests.ids) * seen)
        notes = [*self.notes, *notes_on("corpus", refused), *self._warnings(threshold)]
        suspects = [
            look for look in second_looks(best.pairs(), self.tests, self.prints) if look.similarity >= threshold
        ]
        suspects.sort(key=lambda suspect: (suspect.test_id, -suspect.similarity, suspect.corpus_id))
        total = len(self.tests.ids) + sum(map(len, self.tests.refused.values()))
        unreadable = tuple(refused.get(UNREADABLE, ()))
        return LeakReport(tuple(suspects), total, seen, threshold, expected, unreadable, tuple(notes))

    def _warnings(self, threshold: float) -> Iterator[str]:
        """Yield reasons to doubt the threshold."""
        if threshold > HIGH:
            yield (
                f"the distinct images are too few or too similar to the test images (threshold {threshold:.2f}): altered "
                "copies may be missed; add distinct images of other places"
            )
        if alike := [
            f"{look.corpus_id} ({look.test_id})" for look in self.chance.looked if look.similarity >= threshold
        ]:
            yield note_on("distinct", "not distinct, matches a test image", alike)


def prepare(
    test: Iterable[Frame], distinct: Iterable[Frame] = (), groups: Mapping[str, str] | None = None
) -> LeakSearch:
    """Prepare the search for test images.

    Found are copies that were flipped, cropped to at least 80 % per side, rescaled, stretched, inverted, compressed, or changed in
    gain, gamma or noise; also neighbouring frames of a flight or film that show the same.

    Mostly missed are crops below 70 % per side, rotations by 90 degrees, added borders, and test images that are a part (below
    90 % per side) of a corpus image.

    Args:
        test: grey values (H, W), uint8. Takes about 150 KB of memory each.
        distinct: images similar to the test images that show none of them, such as the target's train images of other dates; the
            first 1,000 are used.
        groups: group of each test image. Without `distinct`, test images of different groups are assumed to be distinct.

    Raises:
        LeakSearchError: no test image can be compared, one cannot be read or is not (H, W) of uint8, ids are not unique, or there
            are fewer than 30 distinct images.
    """
    tests = Thumbnails.of(_checked(test))
    notes = notes_on("test", tests.refused)
    if not tests.ids:
        raise LeakSearchError(" ".join(["no test image to compare: give the test images of the target", *notes]))
    prints = expanded_fingerprints(tests.thumbs)
    chance, more = learn_chance(tests, prints, distinct, groups)
    return LeakSearch(tests, prints, chance, (*notes, *more))


def _checked(test: Iterable[Frame]) -> Iterator[Frame]:
    names = set()
    for name, pixels in test:
        if isinstance(pixels, Exception):
            raise LeakSearchError(f"cannot read test image {name} ({pixels}): copy it again")
        if name in names:
            raise LeakSearchError(f"duplicate id of test images: {name}; give each its own id")
        names.add(name)
        yield name, pixels
