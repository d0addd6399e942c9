"""Checks of a bundle beyond its single runs: card, cells and leak findings."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.submission.faults import Fault
from bench.submission.judged import Judged
from bench.targets.manifest import Manifests
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog
from pretrain_sources.config_file import FileError, read_yaml
from results import bundle
from results import known_leaks as findings
from results.known_leaks import LeakFinding
from results.marks import schedule_words
from results.record import RunRecord
from results.store import LEAKS, Store, slug

MOST_CARD_BYTES = 2**16


def card_faults(judged: Judged, name: str) -> Iterator[Fault]:
    """Check the card of a bundle."""
    if judged.folder.name != slug(name):
        judged.notes.append(f"its folder is named {judged.folder.name}; for a board it must be {slug(name)}")
    try:
        if (judged.folder / bundle.CARD).stat().st_size > MOST_CARD_BYTES:
            yield Fault("card.unusable", f"{bundle.CARD} is larger than {MOST_CARD_BYTES} bytes")
            return
        if name not in judged.cards or name in catalog():
            yield Fault("card.unusable", f"{bundle.CARD} is not the card of '{name}'")
            return
        yield from _path_faults(read_yaml(judged.folder / bundle.CARD, SourceCard))
    except FileError as error:
        yield Fault("card.unusable", str(error).replace(f"{judged.folder}/", ""))
    except Exception as error:  # untrusted files can fail in unforeseen ways
        why = f"{bundle.CARD} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        yield Fault("card.unusable", why)


def _path_faults(card: SourceCard) -> Iterator[Fault]:
    """Check that the paths in a packed card are plain file names."""
    teacher = card.recipe.teacher if card.recipe else None
    paths = [one.path for one in card.checkpoints] + [card.corpus.path if card.corpus else None]
    paths += [Path(given) for key in ("checkpoint", "path") if (given := getattr(teacher, key, None))]
    for path in paths:
        if path is not None and (path.name != str(path) or str(path) in (".", "..")):
            why = f"{bundle.CARD}: path {path} must be a plain file name"
            yield Fault("card.path", why)


def finding_faults(judged: Judged, manifests: Manifests) -> Iterator[Fault]:
    """Check the leak findings of a bundle; note if there are none."""
    checked: set[tuple[str, str]] = set()
    for path in sorted((judged.runs / LEAKS).glob("*/*.json")):
        where = path.relative_to(judged.folder).as_posix()
        finding = findings.read_one(path)
        if finding is None:
            yield Fault("finding.unreadable", f"{where} cannot be read")
        elif path != findings.path_of(Store(judged.runs), finding.target, finding.source):
            yield Fault("finding.misplaced", f"{where} is the finding of {finding.source} on {finding.target}")
        elif judged.name is not None and not bundle.is_of(finding.source, judged.name):
            yield Fault("finding.misplaced", f"{where} is of '{finding.source}', but the bundle is of '{judged.name}'")
        elif (why := _mismatch(finding, manifests)) is not None:
            yield Fault("finding.unlike", f"{where}: {why}")
        else:
            checked.add((finding.source, finding.target_hash))
            judged.notes.append(
                f"it declares that {finding.source} has seen {finding.share:.1%} of the test images of {finding.target}; "
                f"this counts once `bench leaks --source {finding.source}` confirms it here"
            )
    if judged.name is not None and not checked:
        judged.notes.append("not checked for test images that it has seen: run `bench leaks`")


def _mismatch(finding: LeakFinding, manifests: Manifests) -> str | None:
    """Why a finding does not match the manifest of its target, or None."""
    manifest = manifests.get((finding.target, finding.target_hash))
    if manifest is None:
        return f"its target_hash is not that of a manifest of {finding.target}"
    ids = {image.id for image in manifest.test}
    if finding.test_images != len(ids):
        return f"it has {finding.test_images} test images, but {finding.target} has {len(ids)}"
    unknown = sorted(set(finding.touched) - ids)
    return f"{unknown[0]} is not a test image" if unknown else None


def cell_faults(judged: Judged) -> Iterator[Fault]:
    """Check replicates and schedules of each cell. Only a bundle must be complete: incomplete cells are not ranked."""
    cells: dict[tuple[Any, ...], list[RunRecord]] = defaultdict(list)
    for record in judged.records:
        names = (record.target, record.protocol, record.source, record.backbone, record.train_frac)
        cells[*names, record.schedule_kind].append(record)
    for key, records in cells.items():
        where = f"{key[2]} x {key[3]}{schedule_words(key[-1])}"
        if len({record.cell for record in records}) > 1:
            yield Fault("cell.identities", f"{where}: its runs have two cell identities; pack only the newer one")
        numbers = sorted(record.replicate for record in records)
        wanted = list(range(max(record.replicates for record in records)))
        if doubles := sorted({number for number in numbers if numbers.count(number) > 1}):
            yield Fault("cell.replicates", f"{where}: duplicate replicate {doubles[0]}")
        if missing := sorted(set(wanted) - set(numbers)):
            why = f"{where}: replicates {', '.join(map(str, missing))} of {len(wanted)} are missing"
            if judged.name is not None:
                yield Fault("cell.replicates", why)
            else:
                judged.notes.append(f"{why}, so it is not ranked")
        if extra := sorted(set(numbers) - set(wanted)):
            yield Fault("cell.replicates", f"{where}: unexpected replicate {extra[0]} of {len(wanted)}")
        tuned = {json.dumps(record.tuning.schedule, sort_keys=True) for record in records if record.tuning}
        if len(tuned) > 1:
            why = f"{where}: its replicates must use the same schedule"
            yield Fault("cell.schedules", why)
