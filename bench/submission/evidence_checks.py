"""Check the evidence of a run against its scores and the manifest of the test images."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bench.spec import Protocol
from bench.submission.bounds import weighted_f_bounds
from bench.submission.faults import Fault
from bench.targets.manifest import Manifests, Truth, truth
from results import metrics
from results.evidence import Evidence
from results.record import TEST, RunRecord
from results.scores import Scores

CLOSE = 1e-9  # another numpy version may differ in the last digits


def evidence_faults(
    record: RunRecord, evidence: Mapping[str, Evidence], protocol: Protocol, manifests: Manifests
) -> Iterator[Fault]:
    """Check the evidence of each test split in stages; a stage with faults is the last, because later stages build on it."""
    scores = record.by_split
    wrong = [fault for split, one in evidence.items() for fault in _own_faults(one, scores[split], split, record)]
    if wrong or (wrong := list(_split_faults(evidence))):
        yield from wrong
        return
    manifest = manifests.get((record.target, record.target_hash))
    hashes = [content_hash[:12] for target, content_hash in manifests if target == record.target]
    if manifest is None and not hashes:
        why = (
            f"no manifest of {record.target} is shipped: make one with `bench data manifest {record.target} --out FILE` (for a "
            "target of your own, its card file in place of the name) and pass it with --manifest"
        )
        yield Fault("images.no_manifest", why)
        return
    if manifest is None:
        why = (
            f"target_hash is {record.target_hash[:12]}, but manifests of {record.target} have "
            f"{' or '.join(hashes)}: the run was scored on other files"
        )
        yield Fault("images.target", why)
        return
    if odd := sorted(evidence.keys() ^ {TEST, *manifest.further}):
        why = f"has {'' if odd[0] in evidence else 'no '}scores on the test split '{odd[0]}', but {record.target} has "
        yield Fault("images.splits", why + ", ".join((TEST, *manifest.further)))
        return
    for split, one in evidence.items():
        known = truth(manifest, protocol, split)
        wrong = list(_image_faults(one, known)) or list(
            _bound_faults(one, known, record.classes, protocol.beta_squared)
        )
        yield from _on(split, wrong)


def _own_faults(evidence: Evidence, scores: Scores, split: str, record: RunRecord) -> Iterator[Fault]:
    """Check the evidence of a split on its own, and the scores recomputed from it."""
    yield from _on(split, list(_array_faults(evidence, len(record.classes))) or list(_score_faults(scores, evidence)))


def _on(split: str, faults: Iterable[Fault]) -> Iterator[Fault]:
    """Name the further test split that faults are of."""
    yield from faults if split == TEST else (fault.at(f"test split {split}") for fault in faults)


def _split_faults(evidence: Mapping[str, Evidence]) -> Iterator[Fault]:
    """Check that no image is in two test splits: evidence of one split cannot stand for another."""
    count = Counter(name for one in evidence.values() for name in one.image_ids.tolist())
    if twice := sorted(name for name, times in count.items() if times > 1):
        where = " and ".join(split for split, one in evidence.items() if twice[0] in one.image_ids)
        yield Fault("evidence.split", f"{len(twice)} images are in the evidence of {where}, the first is {twice[0]}")


def _array_faults(evidence: Evidence, classes: int) -> Iterator[Fault]:
    """Check that a prediction can give these arrays; yield the first fault."""
    values = evidence.weighted_f
    defined = values[~np.isnan(values)]
    if (evidence.confusion < 0).any() or (defined < -CLOSE).any() or (defined > 1 + CLOSE).any():
        yield Fault("evidence.range", "evidence has counts below 0 or weighted F-measures outside 0..1")
        return
    if evidence.confusion.ndim != 3 or evidence.confusion.shape[1] != classes:
        why = f"evidence has {evidence.confusion.shape[-1]} classes, but the record has {classes}"
        yield Fault("evidence.classes", why)
        return
    present = evidence.confusion.sum(2) > 0
    if (present == np.isnan(values)).any():
        why = "evidence has a weighted F-measure for an absent class, or none for a present class"
        yield Fault("evidence.absent_class", why)


def _score_faults(scores: Scores, evidence: Evidence) -> Iterator[Fault]:
    """Check the record's scores against those recomputed from the evidence."""
    values, present = evidence.weighted_f, evidence.confusion.sum(2) > 0
    hit = np.diagonal(evidence.confusion, axis1=1, axis2=2)
    perfect = (hit == evidence.confusion.sum(2)) & (hit == evidence.confusion.sum(1))
    if (perfect[present] != np.isclose(values[present], 1, atol=1e-12)).any():
        why = "confusion matrices and weighted F-measures are not of the same predictions: only one of them is perfect"
        yield Fault("evidence.perfect", why)
    try:
        ours = metrics.all_scores(evidence).model_dump()
    except ValueError as error:
        yield Fault("evidence.scores", str(error))
        return
    theirs = scores.model_dump()  # an older record has fewer
    if edited := [name for name in theirs if not _equal(ours[name], theirs[name])]:
        changes = [f"{name} is {_short(theirs[name])}, but its evidence gives {_short(ours[name])}" for name in edited]
        yield Fault("evidence.scores", "; ".join(changes))


def _image_faults(evidence: Evidence, known: Truth) -> Iterator[Fault]:
    """Check the evidence's images against those of the manifest."""
    ids = evidence.image_ids.tolist()
    if missing := sorted(set(known.ids) - set(ids)):
        why = f"{len(missing)} of {len(known.ids)} test images are missing, the first is {missing[0]}"
        yield Fault("images.missing", why)
    if unknown := sorted(set(ids) - set(known.ids)):
        yield Fault("images.unknown", f"{len(unknown)} images are not test images, the first is {unknown[0]}")
    if missing or unknown:
        return
    order = _order(evidence, known)
    if evidence.groups[order].tolist() != known.groups:
        yield Fault("images.groups", "image groups differ from those in the manifest")
    differing = (evidence.confusion[order].sum(2) != known.pixels).any(1)
    if differing.any():
        first = known.ids[int(differing.argmax())]
        why = f"pixel counts per class differ from the manifest in {differing.sum()} images, the first is {first}"
        yield Fault("images.pixels", why)


def _bound_faults(evidence: Evidence, known: Truth, classes: Sequence[str], beta_squared: float) -> Iterator[Fault]:
    """Check that the weighted F-measures are possible with these confusion matrices."""
    order = _order(evidence, known)
    values = evidence.weighted_f[order]
    bounds = weighted_f_bounds(evidence.confusion[order], known.edge, beta_squared)
    outside = (values < bounds.low - CLOSE) | (values > bounds.high + CLOSE)  # NaN is neither
    if outside.any():
        image, k = (int(place) for place in np.argwhere(outside)[0])
        why = (
            f"{outside.sum()} weighted F-measures are impossible with their confusion matrix, the first is {classes[k]} on "
            f"{known.ids[image]}: {values[image, k]:.4f}, possible are {bounds.low[image, k]:.4f} to "
            f"{bounds.high[image, k]:.4f}"
        )
        yield Fault("evidence.bounds", why)


def _order(evidence: Evidence, known: Truth) -> list[int]:
    """Rows of the evidence in the order of the manifest."""
    rows = {name: row for row, name in enumerate(evidence.image_ids.tolist())}
    return [rows[name] for name in known.ids]


def _equal(a: Any, b: Any) -> bool:  # noqa: ANN401 - numbers, None, or lists of them
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE)


def _short(value: Any) -> str:  # noqa: ANN401
    return "[...]" if isinstance(value, list) else f"{value:.6g}" if isinstance(value, float) else str(value)
