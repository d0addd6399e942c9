"""Runs that are another run's, or nearly: evidence and networks compared, whatever their checksums say.

Two trainings that differ in a seed differ in most of their errors. A run whose errors are nearly those of another was not trained
on its own: it was copied, and perhaps changed by a pixel so that no digest tells.
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
from results.evidence import Evidence
from results.evidence_files import read_evidence
from results.record import RunRecord
from results.record_files import read_records, run_folders
from results.store import RUNS, SUBMISSIONS, Store, StoreError, slug

SHIPPED = Path(results.__file__).parent / RUNS
BESIDE = (RUNS, "bench-store")  # stores that a folder `submissions` may stand beside

# Honest trainings, nearest pair: 0.175 of 435 on hit-uav (30 runs of hit-uav-v1), 0.115 of 6 on an easy target of two classes.
NEAR = 0.02  # distance of errors below which one run is a copy of another, where too few honest pairs are at hand
NEAR_MOST = 0.08  # the most that honest pairs of the target may raise it to
HONEST_PAIRS = 10  # pairs of trusted runs that are enough to calibrate by
HONEST_RUNS = 40  # trusted runs that are taken to calibrate by, at most
NEAR_IMAGE = 0.003  # distance of errors on one image below which it counts as copied
COPIED_SHARE = 0.05  # of a run's errors, on images that count as copied; honest pairs: 0.007 at most
FEW_PX = 500  # pixels of errors below which nothing can be said


@dataclass(frozen=True)
class Known:
    """A run to compare with, and where it lies."""

    record: RunRecord
    errors: "Errors"
    place: str

    def __str__(self) -> str:
        record = self.record
        return f"{record.source} x {record.backbone} r{record.replicate} ({record.run[:12]}) in {self.place}"


def read_known(store: Store, place: str, targets: Iterable[str]) -> Iterator[Known]:
    """The measured runs of a store on these targets; one that cannot be read is left out."""
    folders = {slug(target) for target in targets}
    for record in read_records(store, (folder for folder in run_folders(store) if folder.split("/")[0] in folders))[0]:
        if record.status == "ok":
            try:
                yield Known(record, errors_of(read_evidence(store, record)), place)
            except (StoreError, ValueError):
                continue


@dataclass(frozen=True)
class Place:
    """A store whose runs a bundle must not copy. trusted: measured here, or shipped; its runs show what honest pairs look like."""

    store: Store
    name: str
    trusted: bool


def places(folder: Path, own_name: str | None, store: Path | None) -> list[Place]:
    """Where other runs are at hand: the given store, those beside the bundle, what ships, and the submissions beside these."""
    parent = folder.parent
    beside = [parent.parent / name for name in BESIDE] if parent.name == SUBMISSIONS else []
    found: dict[Path, Place] = {}
    for root in [*([] if store is None else [store]), *beside, SHIPPED]:
        if root.is_dir() and root.resolve() != folder.resolve():
            name = "results/runs, which ships" if root.resolve() == SHIPPED.resolve() else str(root)
            found.setdefault(root.resolve(), Place(Store(root), name, trusted=True))
        for one in bundle.submissions(root)[0]:
            if one.name != own_name and one.folder.resolve() != folder.resolve():
                found.setdefault(one.runs.resolve(), Place(Store(one.runs), str(one.folder), trusted=False))
    return list(found.values())


@dataclass(frozen=True)
class Errors:
    """Wrong pixels of a run, image by image. N images, K classes.

    Attributes:
        ids: image id -> row. wrong: (N, K * K) pixels by (truth, prediction), hits left out.
        departures: (N,) pixels predicted as another class than the one that is predicted most. A network that predicts one class
            nearly everywhere shares its errors with every other such network: what tells them apart are these.
    """

    ids: Mapping[str, int]
    wrong: NDArray[np.int32]
    departures: NDArray[np.int64]


def errors_of(evidence: Evidence) -> Errors:
    """The wrong pixels of a run."""
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
    """How near the errors of two runs are. distance: 0 equal, 1 about disjoint. copied: share of them on copied images."""

    distance: float
    copied: float


def nearness(a: Errors, b: Errors) -> Nearness | None:
    """Of the errors on the images that both were scored on; None where these differ and are too few to tell by.

    distance = sum |a - b| / scale over (image, truth, prediction) off the diagonal. scale: the errors of both, or the pixels on
    which they depart from predicting one class, whichever are fewer.
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
    """Own runs held against each other and against every other run on the same images that is at hand."""

    own: Sequence[Known]
    places: Sequence[Place] = ()
    notes: list[str] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)  # place -> runs

    def faults(self) -> Iterator[Fault]:
        """Every own run that is another, or nearly; both are named, and where they are."""
        for a, b in itertools.combinations(self.own, 2):
            yield from self._pair_faults(a, b)
        for place in self.places:
            self.compared[place.name] = 0
            for other in read_known(place.store, place.name, self._targets):
                if any(_comparable(mine, other) for mine in self.own):
                    self.compared[place.name] += 1
                for mine in self.own:
                    yield from self._pair_faults(mine, other)

    def told(self) -> str:
        """What it was compared with, after `faults`."""
        names = [f"{count} in {name}" for name, count in self.compared.items() if count]
        return f"runs compared with each other, and with others on the same images: {', '.join(names) or 'none is at hand'}"

    @cached_property
    def threshold(self) -> float:
        """The distance below which a run is a copy: half of the nearest honest pair's, where there are enough pairs."""
        trusted = itertools.chain.from_iterable(
            read_known(place.store, place.name, self._targets) for place in self.places if place.trusted
        )
        some = list(itertools.islice(trusted, HONEST_RUNS))
        distances = [
            found.distance
            for a, b in itertools.combinations(some, 2)
            if _comparable(a, b)
            and a.record.run != b.record.run
            and not explained(a.record, b.record)
            and (found := nearness(a.errors, b.errors)) is not None
        ]
        return min(NEAR_MOST, min(distances) / 2) if len(distances) >= HONEST_PAIRS else NEAR

    @property
    def _targets(self) -> list[str]:
        return sorted({known.record.target for known in self.own})

    def _pair_faults(self, a: Known, b: Known) -> Iterator[Fault]:
        if a.record.run == b.record.run or not _comparable(a, b):
            return
        yield from _weight_faults(a, b)
        if (found := self._copied(a, b)) is None:
            return
        if explained(a.record, b.record):
            self.notes.append(f"{a}: {found} {b}, as the same weights give it")
        else:
            yield Fault(found.code, f"{a}: {found} {b}")

    def _copied(self, a: Known, b: Known) -> Fault | None:
        """In what `a` is `b`; its text goes on with whose it is."""
        if a.record.network_sha256 is not None and a.record.network_sha256 == b.record.network_sha256:
            return Fault("copy.network", "its network is that of")
        found = nearness(a.errors, b.errors)
        if found is None:
            return None
        if found.distance == 0:
            return Fault("copy.errors", "its errors are, pixel for pixel, those of")
        if found.distance < self.threshold:
            told = f"its errors are {found.distance:.2%} away from"
            return Fault("copy.errors", f"{told} (honest trainings are more than {self.threshold:.1%} apart) those of")
        if found.copied > COPIED_SHARE:
            return Fault(
                "copy.errors", f"{found.copied:.0%} of its errors lie on images that are predicted nearly as by"
            )
        return None


def _weight_faults(a: Known, b: Known) -> Iterator[Fault]:
    """Encoder weights of two runs whose hashes contradict what the runs say that these are made of."""
    mine, theirs = weights_of(a.record), weights_of(b.record)
    same = a.record.weights_sha256 == b.record.weights_sha256
    if not mine or not theirs or None in (a.record.weights_sha256, b.record.weights_sha256):
        return
    if mine == theirs and all(unit.get("replicate") is None for unit in mine) and not same:
        why = f"{a}: weights_sha256 is not that of {b}, whose weights are the same by their identity"
        yield Fault("copy.weights", why)
    if same and a.record.cell == b.record.cell and any(unit.get("replicate") is not None for unit in mine):
        why = f"{a}: its encoder weights are those of {b}, and each replicate is to be pretrained anew"
        yield Fault("copy.weights", why)


def _comparable(a: Known, b: Known) -> bool:
    """Whether both were scored on the same data; under which protocol, source, backbone or label share does not matter."""
    return (a.record.target_hash, a.record.classes) == (b.record.target_hash, b.record.classes)


def explained(a: RunRecord, b: RunRecord) -> bool:
    """Whether equal predictions are no wonder: two names of the same weights, by their identity, in the same replicate.

    Weights that a record merely says are the same explain nothing: that is what a copy would say.
    """
    same = ("target_hash", "backbone", "replicate", "train_frac", "finetune_steps", "weights_sha256")
    return (
        (a.source, a.protocol) != (b.source, b.protocol)
        and all(getattr(a, name) == getattr(b, name) for name in same)
        and weights_of(a) == weights_of(b)
    )


def weights_of(record: RunRecord) -> list[Mapping[str, Any]] | None:
    """What a run's first weights are made of, as its identity spells it out; [] for random ones."""
    tree = record.settings.get("identity")
    if not isinstance(tree, dict):
        return None
    return [unit for unit in tree.get("needs", ()) if isinstance(unit, dict) and unit.get("kind") == "pretrain"]
