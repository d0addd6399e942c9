"""Judging a bundle: every number recomputed from its evidence, and everything that it says held against what is known here.

What passes is `recomputed`: the scores follow from the evidence, and the evidence is of the right images under the right protocol.
That the evidence was not made up shows only by predicting anew (`spot`) or training anew (`reproduce`), in `repeat`.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.submission.copies import Comparison, Place, places, read_known
from bench.submission.runs import run_faults, shipped
from bench.targets.manifest import Manifest, read_manifest
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog, collect
from pretrain_sources.yamlfile import FileError, read_yaml
from results import bundle
from results import known_leaks as findings
from results.known_leaks import LeakFinding
from results.record import RunRecord
from results.record_files import read_records, run_folders
from results.store import LEAKS, RUNS, Store, StoreError, slug

MOST_CARD_BYTES = 2**16


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
    places: list[Place] = field(default_factory=list)  # where other runs are at hand

    @cached_property
    def cards(self) -> Mapping[str, SourceCard]:
        """The shipped cards and the bundle's own.

        Raises:
            FileError: its card is wrong, or takes another's name.
        """
        return catalog() if self.name is None else collect([self.folder / bundle.CARD], catalog())

    @property
    def brings_checkpoints(self) -> bool:
        """Whether its card names files of weights."""
        return self.name is not None and not self.faults and bool(self.cards[self.name].checkpoints)


def judge(folder: Path, manifests: Sequence[Path] = (), others: Path | None = None) -> Judged:
    """Judges the bundle, or the store, in this folder; nothing of it is executed or trusted for a path.

    manifests: files for targets whose manifest does not ship. others: a store whose runs, and whose submissions, this bundle
    must not copy, besides those that ship or lie beside it.

    Raises:
        BundleError: it cannot be opened at all. BenchError: a manifest cannot be read.
    """
    store = Store(folder)
    if not (folder / bundle.BUNDLE).is_file() and run_folders(store):
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
        judged.records, unreadable = read_records(store)
    except StoreError as error:
        faults.append(str(error))
        return judged
    faults += [f"{one.path.relative_to(folder).as_posix()}: {one.why}" for one in unreadable]
    if not [record for record in judged.records if record.status == "ok"]:
        faults.append("it holds no run that ended well")
    if faults:
        return judged
    known = {manifest.target: manifest for manifest in map(read_manifest, manifests)}
    for record in judged.records:
        where = store.folder_of(record).relative_to(store.root).as_posix()
        try:
            found = list(run_faults(record, store, judged.name, judged.cards, known))
        except Exception as error:  # nobody foresees all that a file can hold
            found = [f"it cannot be judged ({type(error).__name__}: {' '.join(str(error).split())[:200]})"]
        faults += [f"{where}: {fault}" for fault in found]
    if not faults:
        faults += list(_cell_faults(judged))
        faults += list(_leak_faults(judged, known))
        judged.places = places(folder, judged.name, others)
        faults += list(_copy_faults(judged))
    count = Counter(record.status for record in judged.records)
    if any(record.train_frac < 1 for record in judged.records):
        judged.notes.append(
            "some runs are of a part of the labels, as told: only --reproduce would show that all were used"
        )
    judged.notes += [f"{n} runs ended as {status}" for status, n in count.items() if status != "ok"]
    told = f"{count['ok']} runs recomputed from their evidence: scores, replicates, budgets, images, identity"
    judged.done += [] if faults else [told]
    return judged


def _card_faults(judged: Judged, name: str) -> Iterator[str]:
    if judged.folder.name != slug(name):
        judged.notes.append(f"its folder is {judged.folder.name}; on a board it must be {slug(name)}")
    try:
        if (judged.folder / bundle.CARD).stat().st_size > MOST_CARD_BYTES:
            yield f"{bundle.CARD} is larger than any card"
            return
        if name not in judged.cards or name in catalog():
            yield f"{bundle.CARD} is not the card of '{name}'"
            return
        yield from _path_faults(read_yaml(judged.folder / bundle.CARD, SourceCard))
    except FileError as error:
        yield str(error).replace(f"{judged.folder}/", "")
    except Exception as error:  # nobody foresees all that a file can hold
        yield f"{bundle.CARD} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def _path_faults(card: SourceCard) -> Iterator[str]:
    """Paths that lead anywhere: a packed card has file names alone."""
    teacher = card.recipe.teacher if card.recipe else None
    paths = [one.path for one in card.checkpoints] + [card.corpus.path if card.corpus else None]
    paths += [Path(given) if (given := getattr(teacher, "checkpoint", None)) else None]
    for path in paths:
        if path is not None and (path.name != str(path) or str(path) in (".", "..")):
            yield f"{bundle.CARD}: the path {path} leads elsewhere, and a packed card has file names alone"


def _leak_faults(judged: Judged, manifests: Mapping[str, Manifest]) -> Iterator[str]:
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
        elif (why := _unlike(found, manifests.get(found.target) or shipped(found.target))) is not None:
            yield f"{where}: {why}"
        else:
            told.add((found.source, found.target_hash))
            judged.notes.append(
                f"it says that {found.source} has seen {found.share:.1%} of the test images of {found.target}; "
                f"that counts once `bench leaks --source {found.source}` has found it here"
            )
    if judged.name is not None and not told:
        judged.notes.append("nobody has looked whether it has seen test images: `bench leaks`")


def _unlike(found: LeakFinding, manifest: Manifest | None) -> str | None:
    """Why a finding is not of the target that is known here."""
    if manifest is None or manifest.target_hash != found.target_hash:
        return f"it is on another {found.target} than the one whose manifest is known here"
    ids = {image.id for image in manifest.test}
    if found.test_images != len(ids):
        return f"it tells of {found.test_images} test images, and {found.target} has {len(ids)}"
    strange = sorted(set(found.touched) - ids)
    return f"{strange[0]} is none of the test images" if strange else None


def _cell_faults(judged: Judged) -> Iterator[str]:
    """Nothing double, and in a bundle nothing missing; a store may be under way, and a board ranks no cell that is not whole."""
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
            told = f"{where}: replicates {', '.join(map(str, missing))} of {len(wanted)} are missing"
            if judged.name is not None:
                yield told
            else:
                judged.notes.append(f"{told}, so it is not ranked")
        if extra := sorted(set(numbers) - set(wanted)):
            yield f"{where}: there is no replicate {extra[0]} of {len(wanted)}"
        tuned = {json.dumps(record.tuning.schedule, sort_keys=True) for record in records if record.tuning}
        if len(tuned) > 1:
            yield f"{where}: its replicates used different schedules, and a cell has one"


def _copy_faults(judged: Judged) -> Iterator[str]:
    """Runs whose predictions, network or first weights are another run's, and that two names of one source do not explain."""
    targets = {record.target for record in judged.records}
    own = list(read_known(Store(judged.runs), str(judged.folder), targets))
    comparison = Comparison(own, judged.places, judged.notes)
    yield from comparison.faults()
    judged.done.append(comparison.told())
