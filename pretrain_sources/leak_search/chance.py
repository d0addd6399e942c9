"""How alike distinct images are by chance, and the threshold that follows."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pretrain_sources.leak_search.fingerprints import Floats, Thumbnails, fingerprints_of, similarities_of
from pretrain_sources.leak_search.frames import Frame, LeakSearchError, notes_on
from pretrain_sources.leak_search.second_look import Suspect, second_looks

CHANCE_LOOKS = 2  # distinct images a test image that get one, and one test image for each distinct image
LEAST_DISTINCT = 30  # images without which no threshold can be had
MOST_DISTINCT = 1000  # of them that are used
TAIL = 0.1  # share of the looks at distinct images that the chance likeness is fitted to
LEAST_TAIL = 20  # of those, at least
EXPECTED = 0.1  # false alarms that the threshold is set for, in the whole run
FLOOR = 0.5  # no threshold lies below; half of what the gradients show is shared
CEILING = 0.99  # nor above, so that an exact copy is found whatever the distinct images are like
MOST_ALIKE = 0.9999  # similarities above count as this one


@dataclass(frozen=True)
class Chance:
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


def learn_chance(
    tests: Thumbnails, prints: Floats, distinct: Iterable[Frame], groups: Mapping[str, str] | None
) -> tuple[Chance, list[str]]:
    """(what distinct images look like, notes on them). prints: (N, changes, D) of the test images.

    Raises:
        LeakSearchError: there are fewer than 30 distinct images.
    """
    others = Thumbnails.of(itertools.islice(distinct, MOST_DISTINCT))
    notes = notes_on("distinct", others.refused)
    own = groups is not None and not others.ids and not others.refused
    if own:
        others = tests
        notes.append("no distinct images were given: the threshold comes from test images of different groups")
    if len(others.ids) < LEAST_DISTINCT:
        what = f"{len(others.ids)} {'test images' if own else 'usable distinct images'}"
        why = [
            f"no threshold can be had from {what}, only from {LEAST_DISTINCT} or more: give images that are known to "
            "show no test image, such as the target's train images of other dates, or the test images' groups",
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
            f"no threshold can be had: fewer than {LEAST_DISTINCT} test images have another group to be held against; "
            "give images that are known to show no test image"
        )
    alike = np.zeros_like(allowed)
    np.put_along_axis(alike, np.argsort(similarities, axis=1)[:, -CHANCE_LOOKS:], True, axis=1)
    alike[similarities.argmax(axis=0), np.arange(len(others.ids))] = True
    pairs = [(i, others.ids[j], others.thumbs[j]) for i, j in np.argwhere(alike & allowed).tolist()]
    return Chance(tuple(second_looks(pairs, tests, prints)), int(allowed.sum())), notes
