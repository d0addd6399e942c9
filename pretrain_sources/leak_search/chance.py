"""The similarity of distinct images by chance, and the threshold derived from it."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pretrain_sources.leak_search.fingerprints import Floats, Thumbnails, fingerprints_of, similarities_of
from pretrain_sources.leak_search.frames import Frame, LeakSearchError, notes_on
from pretrain_sources.leak_search.second_look import Suspect, second_looks

CHANCE_LOOKS = 2  # distinct images aligned per test image, besides one test image per distinct image
LEAST_DISTINCT = 30  # distinct images needed for a threshold
MOST_DISTINCT = 1000  # distinct images used
TAIL = 0.1  # share of the most similar distinct pairs to which the distribution is fitted
LEAST_TAIL = 20  # pairs in the tail, at least
EXPECTED = 0.1  # expected false alarms in the whole run at the threshold
FLOOR = 0.5  # lowest threshold: half of the gradients agree
CEILING = 0.99  # highest threshold: an exact copy is always found
MOST_ALIKE = 0.9999  # larger similarities are clipped to this


@dataclass(frozen=True)
class Chance:
    """Similarities of the most similar among `pairs` pairs that are known to be distinct."""

    looked: tuple[Suspect, ...]
    pairs: int

    def threshold(self, pairs: int, expected: float = EXPECTED) -> tuple[float, float]:
        """Return (minimum similarity of a suspect, expected false alarms) for so many pairs.

        Fisher's z of the similarity is assumed to fall off exponentially in the upper tenth. The rate is estimated from the
        median, robust to some images that are not distinct, and lowered by two standard errors.
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


def learn_chance(
    tests: Thumbnails, prints: Floats, distinct: Iterable[Frame], groups: Mapping[str, str] | None
) -> tuple[Chance, list[str]]:
    """Estimate the chance similarity; return it with notes. prints: (N, changes, D) of the test images.

    Raises:
        LeakSearchError: there are fewer than 30 distinct images.
    """
    others = Thumbnails.of(itertools.islice(distinct, MOST_DISTINCT))
    notes = notes_on("distinct", others.refused)
    own = groups is not None and not others.ids and not others.refused
    if own:
        others = tests
        notes.append("no distinct images given: the threshold comes from test images of different groups")
    if len(others.ids) < LEAST_DISTINCT:
        what = f"{len(others.ids)} {'test images' if own else 'usable distinct images'}"
        why = [
            f"cannot set a threshold from {what}, need at least {LEAST_DISTINCT}: add images that are known to "
            "differ from the test images, such as the target's train images of other dates, or the test images' groups",
            *notes_on("distinct", others.refused),
        ]
        raise LeakSearchError("; ".join(why))
    similarities = similarities_of(prints, fingerprints_of(others.soft()))
    if own and groups is not None:
        of = np.array([groups.get(name, "") for name in tests.ids])
        similarities[of[:, None] == of] = -1
    allowed = similarities >= 0
    if own and int(allowed.any(axis=0).sum()) < LEAST_DISTINCT:
        raise LeakSearchError(
            f"cannot set a threshold: fewer than {LEAST_DISTINCT} test images can be compared with another group; "
            "add images that are known to differ from the test images"
        )
    alike = np.zeros_like(allowed)
    np.put_along_axis(alike, np.argsort(similarities, axis=1)[:, -CHANCE_LOOKS:], True, axis=1)
    alike[similarities.argmax(axis=0), np.arange(len(others.ids))] = True
    pairs = [(i, others.ids[j], others.thumbs[j]) for i, j in np.argwhere(alike & allowed).tolist()]
    return Chance(tuple(second_looks(pairs, tests, prints)), int(allowed.sum())), notes
