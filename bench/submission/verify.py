"""Judging a bundle: every number recomputed from its evidence, and everything that it says held against what is known here.

What passes is `recomputed`: the scores follow from the evidence, and the evidence is of the right images under the right protocol.
That the evidence was not made up shows only by predicting anew (`spot`) or training anew (`reproduce`), in `repeat`.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.submission.runs import run_faults
from bench.targets.manifest import read_manifest
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog, collect
from pretrain_sources.yamlfile import FileError
from results import bundle
from results import leaks as findings
from results.evidence import Evidence, sha256
from results.record import RunRecord
from results.store import LEAKS, RUNS, Store, StoreError, slug


@dataclass
class Judged:
    """A bundle, or a plain store of shipped sources (`name` is None), and what was found of it. No `faults`: it passed."""

    folder: Path
    runs: Path
    name: str | None
    faults: list[str]
    records: list[RunRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    @cached_property
    def cards(self) -> Mapping[str, SourceCard]:
        """The shipped cards and the bundle's own.

        Raises:
            FileError: its card is wrong, or takes another's name.
        """
        return catalog() if self.name is None else collect([self.folder / bundle.CARD], catalog())


def judge(folder: Path, manifests: Sequence[Path] = (), others: Path | None = None) -> Judged:
    """Judges the bundle, or the store, in this folder; nothing of it is executed or trusted for a path.

    manifests: files for targets whose manifest does not ship. others: a store whose runs, and whose submissions, this bundle
    must not copy.

    Raises:
        BundleError: it cannot be opened at all. BenchError: a manifest cannot be read.
    """
    store = Store(folder)
    if not (folder / bundle.BUNDLE).is_file() and store.runs():
        judged = Judged(folder, folder, None, [])
    else:
        listing, faults = bundle.listed(folder)
        judged = Judged(folder, folder / RUNS, listing.name, faults)
        if faults:
            return judged  # of files that are not what was packed nothing can be said
        judged.done.append(f"{len(listing.files)} files are what {bundle.BUNDLE} lists")
        faults += _card_faults(judged, listing.name)
        store = Store(judged.runs)
    faults = judged.faults
    try:
        judged.records, unreadable = store.read_records()
    except StoreError as error:
        faults.append(str(error))
        return judged
    faults += [f"{one.path.relative_to(folder).as_posix()}: {one.why}" for one in unreadable]
    faults += _leak_faults(judged)
    if not [record for record in judged.records if record.status == "ok"]:
        faults.append("it holds no run that ended well")
    if faults:
        return judged
    known = {manifest.target: manifest for manifest in map(read_manifest, manifests)}
    proofs: dict[str, Evidence] = {}
    for record in judged.records:
        where = store.folder_of(record).relative_to(store.root).as_posix()
        faults += [f"{where}: {fault}" for fault in run_faults(record, store, judged.name, judged.cards, known, proofs)]
    faults += list(_cell_faults(judged))
    faults += list(_copy_faults(judged, proofs, others))
    count = Counter(record.status for record in judged.records)
    judged.notes += [f"{n} runs ended as {status}" for status, n in count.items() if status != "ok"]
    told = f"{count['ok']} runs recomputed from their evidence: scores, replicates, budgets, images, identity"
    judged.done += [] if faults else [told]
    return judged


def _card_faults(judged: Judged, name: str) -> Iterator[str]:
    if judged.folder.name != slug(name):
        judged.notes.append(f"its folder is {judged.folder.name}; on a board it must be {slug(name)}")
    try:
        if name not in judged.cards or name in catalog():
            yield f"{bundle.CARD} is not the card of '{name}'"
    except FileError as error:
        yield str(error).replace(f"{judged.folder}/", "")


def _leak_faults(judged: Judged) -> Iterator[str]:
    """What it tells of test images that its sources have seen; that nobody has looked is worth knowing."""
    told: set[tuple[str, str]] = set()
    for path in sorted((judged.runs / LEAKS).glob("*/*.json")):
        where = path.relative_to(judged.folder).as_posix()
        found = findings.read_one(path)
        if found is None:
            yield f"{where} cannot be read"
        elif path != findings.path_of(Store(judged.runs), found.target, found.source):
            yield f"{where} is of {found.source} on {found.target}"
        elif judged.name is not None and not bundle.is_of(found.source, judged.name):
            yield f"{where} is of '{found.source}', and the bundle is of '{judged.name}'"
        else:
            told.add((found.source, found.target_hash))
            judged.notes.append(f"{found.source} has seen {found.share:.1%} of the test images of {found.target}")
    if judged.name is not None and not told:
        judged.notes.append("nobody has looked whether it has seen test images: `bench leaks`")


def _cell_faults(judged: Judged) -> Iterator[str]:
    """Nothing double, nothing missing."""
    cells: dict[tuple[Any, ...], list[RunRecord]] = defaultdict(list)
    for record in judged.records:
        cells[record.target, record.protocol, record.source, record.backbone, record.train_frac].append(record)
    for key, records in cells.items():
        where = " x ".join(map(str, key[2:4]))
        if len({record.cell for record in records}) > 1:
            yield f"{where}: runs of two identities of one cell; pack the newer one"
        numbers = sorted(record.replicate for record in records)
        wanted = list(range(max(record.replicates for record in records)))
        if doubles := sorted({number for number in numbers if numbers.count(number) > 1}):
            yield f"{where}: replicate {doubles[0]} stands twice"
        if missing := sorted(set(wanted) - set(numbers)):
            yield f"{where}: replicates {', '.join(map(str, missing))} of {len(wanted)} are missing"
        if extra := sorted(set(numbers) - set(wanted)):
            yield f"{where}: there is no replicate {extra[0]} of {len(wanted)}"
        tuned = {json.dumps(record.tuning.schedule, sort_keys=True) for record in records if record.tuning}
        if len(tuned) > 1:
            yield f"{where}: its replicates used different schedules, and a cell has one"


def _copy_faults(judged: Judged, proofs: Mapping[str, Evidence], others: Path | None) -> Iterator[str]:
    """Evidence that another run has too, predictions and all."""
    seen: dict[str, str] = {}
    for record, evidence in [
        *_elsewhere(judged, others),
        *((r, proofs[r.run]) for r in judged.records if r.run in proofs),
    ]:
        if len(np.flatnonzero(evidence.confusion.sum((0, 1)))) < 2:
            continue  # nothing but one class was predicted: that happens to more than one run
        digest = sha256(evidence.confusion.astype(np.int64).tobytes() + evidence.weighted_f.tobytes())
        other = seen.setdefault(digest, record.run)
        if other != record.run:
            yield f"{record.source} x {record.backbone} r{record.replicate}: its evidence is that of the run {other[:12]}"


def _elsewhere(judged: Judged, others: Path | None) -> Iterable[tuple[RunRecord, Evidence]]:
    if others is None or not others.is_dir():
        return
    stores = [
        Store(others),
        *(Store(one.folder / RUNS) for one in bundle.submissions(others)[0] if one.name != judged.name),
    ]
    targets = {(record.target, record.protocol) for record in judged.records}
    for store in stores:
        for record in store.read_records()[0]:
            if record.status == "ok" and (record.target, record.protocol) in targets:
                try:
                    yield record, store.read_evidence(record)
                except (StoreError, ValueError):
                    continue
