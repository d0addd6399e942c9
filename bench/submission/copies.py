"""Detect copied runs by comparing evidence and networks rather than checksums.

Two trainings with different seeds differ in most of their errors. A run with nearly the same errors as another was not trained
independently: it was copied, perhaps with a few pixels changed so that checksums differ.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import results
from bench.submission.faults import Fault
from results import bundle
from results.evidence import Evidence, joined
from results.evidence_files import read_evidence
from results.record import RunRecord
from results.record_files import read_records, run_folders
from results.store import RUNS, SUBMISSIONS, Store, StoreError, slug

SHIPPED = Path(results.__file__).parent / RUNS
BESIDE = (RUNS, "bench-store")  # stores that may lie beside a folder `submissions`

# Honest trainings, nearest pair: 0.066 of 2415 on buffalo-udder (udder-v1, two classes), 0.184 of 780 on hit-uav (hit-uav-v2, four)
NEAR = 0.02  # distance of errors below which a run is a copy, if there are too few honest pairs
NEAR_MOST = 0.08  # upper limit of the threshold from honest pairs of the target
HONEST_PAIRS = 10  # pairs of trusted runs needed to calibrate
HONEST_RUNS = 40  # most trusted runs to calibrate on
NEAR_IMAGE = 0.003  # distance of errors below which an image counts as copied
COPIED_SHARE = 0.05  # share of errors on copied images above which a run is a copy; honest pairs: at most 0.015
FEW_PX = 500  # error pixels below which runs cannot be compared


@dataclass(frozen=True)
class Known:
    """A run to compare, and where it is stored."""

    record: RunRecord
    errors: "Errors"
    place: str

    def __str__(self) -> str:
        record = self.record
        return f"{record.source} x {record.backbone} r{record.replicate} ({record.run[:12]}) in {self.place}"


def read_known(store: Store, place: str, targets: Iterable[str]) -> Iterator[Known]:
    """Yield the measured runs of a store on these targets; unreadable ones are skipped."""
    folders = {slug(target) for target in targets}
    for record in read_records(store, (folder for folder in run_folders(store) if folder.split("/")[0] in folders))[0]:
        if record.status == "ok":
            try:
                evidence = joined([read_evidence(store, record, split) for split in record.by_split])
                yield Known(record, errors_of(evidence), place)
            except (StoreError, ValueError):
                continue


@dataclass(frozen=True)
class Place:
    """A store whose runs a bundle must not copy. trusted: measured here or shipped, so usable to calibrate the threshold."""

    store: Store
    name: str
    trusted: bool


def places(folder: Path, own_name: str | None, store: Path | None) -> list[Place]:
    """Stores of other runs: the given one, those beside the bundle, the shipped one, and the submissions beside them."""
    parent = folder.parent
    beside = [parent.parent / name for name in BESIDE] if parent.name == SUBMISSIONS else []
    known: dict[Path, Place] = {}
    for root in [*([] if store is None else [store]), *beside, SHIPPED]:
        if root.is_dir() and root.resolve() != folder.resolve():
            name = "results/runs (shipped)" if root.resolve() == SHIPPED.resolve() else str(root)
            known.setdefault(root.resolve(), Place(Store(root), name, trusted=True))
        for one in bundle.submissions(root)[0]:
            if one.name != own_name and one.folder.resolve() != folder.resolve():
                known.setdefault(one.runs.resolve(), Place(Store(one.runs), str(one.folder), trusted=False))
    return list(known.values())


@dataclass(frozen=True)
class Errors:
    """Wrong pixels of a run per image. N images, K classes.

    Attributes:
        ids: image id -> row. wrong: (N, K * K) pixels by (truth, prediction), without hits.
        departures: (N,) pixels not predicted as the run's most frequent class. Networks that predict one class nearly everywhere
            share their errors and differ only in these.
    """

    ids: Mapping[str, int]
    wrong: NDArray[np.int32]
    departures: NDArray[np.int64]


def errors_of(evidence: Evidence) -> Errors:
    """Count the wrong pixels of a run."""
    n, k = evidence.weighted_f.shape
    predicted = evidence.confusion.sum(1)  # (N, K)
    wrong = evidence.confusion.astype(np.int64)
    wrong[:, range(k), range(k)] = 0
    most = int(predicted.sum(0).argmax())
    return Errors(
        {name: row for row, name in enumerate(evidence.image_ids.tolist())},
        wrong.reshape(n, -1).astype(np.int32),
        predicted.sum(1) - predicted[:, most],
    )


@dataclass(frozen=True)
class Nearness:
    """Similarity of the errors of two runs. distance: 0 equal, about 1 disjoint. copied: share of errors on copied images."""

    distance: float
    copied: float


def nearness(a: Errors, b: Errors) -> Nearness | None:
    """Compare errors on the images that both runs were scored on; None if they differ but are too few.

    distance = sum |a - b| / scale over (image, truth, prediction) off the diagonal. scale: the errors of both, or their
    departures if those are fewer.
    """
    if a.wrong.shape[1] != b.wrong.shape[1]:
        return None
    shared = sorted(a.ids.keys() & b.ids.keys())
    mine, theirs = [a.ids[name] for name in shared], [b.ids[name] for name in shared]
    apart = np.abs(a.wrong[mine] - b.wrong[theirs]).sum(1)
    errors = a.wrong[mine].sum(1) + b.wrong[theirs].sum(1)
    departures = a.departures[mine] + b.departures[theirs]
    scale = min(errors.sum(), departures.sum())
    if scale < 2 * FEW_PX and (apart.any() or scale == 0):
        return None
    of_image = np.minimum(errors, departures)
    near = (apart <= NEAR_IMAGE * of_image) & (of_image > 0)
    return Nearness(float(apart.sum() / scale), float(of_image[near].sum() / max(of_image.sum(), 1)))


@dataclass
class Comparison:
    """Compare own runs with each other and with all known runs on the same images."""

    own: Sequence[Known]
    places: Sequence[Place] = ()
    notes: list[str] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)  # place -> runs

    def faults(self) -> Iterator[Fault]:
        """Yield a fault for each own run that is a copy, naming both runs and where they are."""
        for a, b in itertools.combinations(self.own, 2):
            yield from self._pair_faults(a, b)
        for place in self.places:
            self.compared[place.name] = 0
            for other in read_known(place.store, place.name, self._targets):
                if any(_comparable(mine, other) for mine in self.own):
                    self.compared[place.name] += 1
                for mine in self.own:
                    yield from self._pair_faults(mine, other)

    def summary(self) -> str:
        """Say what was compared; call after `faults`."""
        names = [f"{count} in {name}" for name, count in self.compared.items() if count]
        return (
            f"runs compared with each other, and with others on the same images: {', '.join(names) or 'none available'}"
        )

    @cached_property
    def threshold(self) -> float:
        """The distance below which a run is a copy: half that of the nearest honest pair, if there are enough pairs."""
        trusted = itertools.chain.from_iterable(
            read_known(place.store, place.name, self._targets) for place in self.places if place.trusted
        )
        some = list(itertools.islice(trusted, HONEST_RUNS))
        distances = [
            near.distance
            for a, b in itertools.combinations(some, 2)
            if _comparable(a, b)
            and a.record.run != b.record.run
            and not explained(a.record, b.record)
            and (near := nearness(a.errors, b.errors)) is not None
        ]
        return min(NEAR_MOST, min(distances) / 2) if len(distances) >= HONEST_PAIRS else NEAR

    @property
    def _targets(self) -> list[str]:
        return sorted({known.record.target for known in self.own})

    def _pair_faults(self, a: Known, b: Known) -> Iterator[Fault]:
        if a.record.run == b.record.run or not _comparable(a, b):
            return
        yield from _weight_faults(a, b)
        found = self._copied(a, b)
        if found is None:
            return
        fault, equal = found
        if explained(a.record, b.record, equal=equal):
            self.notes.append(f"{a}: {fault} {b}, as expected from the same weights")
        else:
            yield Fault(fault.code, f"{a}: {fault} {b}")

    def _copied(self, a: Known, b: Known) -> tuple[Fault, bool] | None:
        """How `a` copies `b`, and whether they are equal, or None; the text is completed with the name of `b`."""
        if a.record.network_sha256 is not None and a.record.network_sha256 == b.record.network_sha256:
            return Fault("copy.network", "same network as"), True
        near = nearness(a.errors, b.errors)
        if near is None:
            return None
        if near.distance == 0:
            return Fault("copy.errors", "same errors, pixel for pixel, as"), True
        if near.distance < self.threshold:
            why = f"errors differ by {near.distance:.2%} (independent trainings: more than {self.threshold:.1%}) from"
            return Fault("copy.errors", why), False
        if near.copied > COPIED_SHARE:
            why = f"{near.copied:.0%} of its errors are on images with nearly the same predictions as"
            return Fault("copy.errors", why), False
        return None


def _weight_faults(a: Known, b: Known) -> Iterator[Fault]:
    """Check that the hashes of two runs' encoder weights agree with their identities."""
    mine, theirs = weights_of(a.record), weights_of(b.record)
    same = a.record.weights_sha256 == b.record.weights_sha256
    if not mine or not theirs or None in (a.record.weights_sha256, b.record.weights_sha256):
        return
    if mine == theirs and all(unit.get("replicate") is None for unit in mine) and not same:
        why = f"{a}: weights_sha256 differs from that of {b}, whose weights have the same identity"
        yield Fault("copy.weights", why)
    if same and a.record.cell == b.record.cell and any(unit.get("replicate") is not None for unit in mine):
        why = f"{a}: same encoder weights as {b}, but each replicate must be pretrained separately"
        yield Fault("copy.weights", why)


def _comparable(a: Known, b: Known) -> bool:
    """Whether both were scored on the same data, whatever their protocol, source, backbone or label share."""
    return (a.record.target_hash, a.record.classes) == (b.record.target_hash, b.record.classes)


def explained(a: RunRecord, b: RunRecord, *, equal: bool = False) -> bool:
    """Whether like predictions are legitimate: the same weights, by identity, in the same replicate.

    They have two names, or the run has two schedules, the tuned and the default one, which share their seeds. Then predictions may
    be alike, but equal ones (equal: True) follow only from equal schedules. A weights_sha256 alone explains nothing: a copy would
    declare it as well.
    """
    same = ("target_hash", "backbone", "replicate", "train_frac", "finetune_steps", "weights_sha256")
    if not all(getattr(a, name) == getattr(b, name) for name in same) or weights_of(a) != weights_of(b):
        return False
    if (a.source, a.protocol) != (b.source, b.protocol):
        return True
    return a.schedule_kind != b.schedule_kind and (not equal or _schedule_of(a) == _schedule_of(b))


def _schedule_of(record: RunRecord) -> Mapping[str, Any] | None:
    return record.tuning.schedule if record.tuning else None


def weights_of(record: RunRecord) -> list[Mapping[str, Any]] | None:
    """The pretraining units in a run's identity, or None if unreadable; [] for random weights."""
    tree = record.settings.get("identity")
    if not isinstance(tree, dict):
        return None
    return [unit for unit in tree.get("needs", ()) if isinstance(unit, dict) and unit.get("kind") == "pretrain"]
