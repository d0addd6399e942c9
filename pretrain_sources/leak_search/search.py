"""Searching for test images in a corpus: what is prepared once, and serves several corpora."""

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

HIGH = 0.85  # a threshold above would let altered copies through: measured on frames that were cropped and changed
BLOCK = 512  # corpus images that are compared at once


@dataclass(frozen=True)
class LeakReport:
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


@dataclass(frozen=True)
class LeakSearch:
    """Test images that can be looked for in one corpus after the other."""

    tests: Thumbnails
    prints: Floats
    chance: Chance
    notes: tuple[str, ...]

    def find(self, corpus: Iterable[Frame], report: Callable[[int], None] = lambda done: None) -> LeakReport:
        """The near-duplicates in a corpus of images (H, W) of any sizes, seen once, a block at a time.

        report: called with the number of corpus images seen so far.

        Raises:
            LeakSearchError: there is no corpus image, or one is no (H, W) of uint8.
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
            raise LeakSearchError("there is no corpus image: give the images that the source was made from")
        threshold, expected = self.chance.threshold(len(self.tests.ids) * seen)
        notes = [*self.notes, *notes_on("corpus", refused), *self._doubts(threshold)]
        suspects = [
            look for look in second_looks(best.pairs(), self.tests, self.prints) if look.similarity >= threshold
        ]
        suspects.sort(key=lambda suspect: (suspect.test_id, -suspect.similarity, suspect.corpus_id))
        total = len(self.tests.ids) + sum(map(len, self.tests.refused.values()))
        unreadable = tuple(refused.get(UNREADABLE, ()))
        return LeakReport(tuple(suspects), total, seen, threshold, expected, unreadable, tuple(notes))

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
            yield note_on("distinct", "not distinct, for it shows what a test image shows", alike)


def prepare(
    test: Iterable[Frame], distinct: Iterable[Frame] = (), groups: Mapping[str, str] | None = None
) -> LeakSearch:
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
        LeakSearchError: no test image can be compared, one cannot be read or is no (H, W) of uint8, two have one id, or there are
            fewer than 30 distinct images.
    """
    tests = Thumbnails.of(_checked(test))
    notes = notes_on("test", tests.refused)
    if not tests.ids:
        raise LeakSearchError(
            " ".join(["there is no test image to compare: give those that must not have been seen", *notes])
        )
    prints = expanded_fingerprints(tests.thumbs)
    chance, more = learn_chance(tests, prints, distinct, groups)
    return LeakSearch(tests, prints, chance, (*notes, *more))


def _checked(test: Iterable[Frame]) -> Iterator[Frame]:
    names = set()
    for name, pixels in test:
        if isinstance(pixels, Exception):
            raise LeakSearchError(f"test image {name} cannot be read ({pixels}): copy it again")
        if name in names:
            raise LeakSearchError(f"two test images have the id {name}; give each an id of its own")
        names.add(name)
        yield name, pixels
