"""What can be wrong with a bundle beside its single runs: its card, its cells, and what it says of leaks."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.submission.faults import Fault
from bench.submission.judged import Judged
from bench.submission.record_checks import shipped
from bench.targets.manifest import Manifest
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import catalog
from pretrain_sources.config_file import FileError, read_yaml
from results import bundle
from results import known_leaks as findings
from results.known_leaks import LeakFinding
from results.record import RunRecord
from results.store import LEAKS, Store, slug

MOST_CARD_BYTES = 2**16


def card_faults(judged: Judged, name: str) -> Iterator[Fault]:
    """What is wrong with a bundle's card."""
    if judged.folder.name != slug(name):
        judged.notes.append(f"its folder is {judged.folder.name}; on a board it must be {slug(name)}")
    try:
        if (judged.folder / bundle.CARD).stat().st_size > MOST_CARD_BYTES:
            yield Fault("card.unusable", f"{bundle.CARD} is larger than any card")
            return
        if name not in judged.cards or name in catalog():
            yield Fault("card.unusable", f"{bundle.CARD} is not the card of '{name}'")
            return
        yield from _path_faults(read_yaml(judged.folder / bundle.CARD, SourceCard))
    except FileError as error:
        yield Fault("card.unusable", str(error).replace(f"{judged.folder}/", ""))
    except Exception as error:  # nobody foresees all that a file can hold
        why = f"{bundle.CARD} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        yield Fault("card.unusable", why)


def _path_faults(card: SourceCard) -> Iterator[Fault]:
    """Paths that lead anywhere: a packed card has file names alone."""
    teacher = card.recipe.teacher if card.recipe else None
    paths = [one.path for one in card.checkpoints] + [card.corpus.path if card.corpus else None]
    paths += [Path(given) if (given := getattr(teacher, "checkpoint", None)) else None]
    for path in paths:
        if path is not None and (path.name != str(path) or str(path) in (".", "..")):
            why = f"{bundle.CARD}: the path {path} leads elsewhere, and a packed card has file names alone"
            yield Fault("card.path", why)


def finding_faults(judged: Judged, manifests: Mapping[str, Manifest]) -> Iterator[Fault]:
    """What it tells of test images that its sources have seen; that nobody has looked is worth knowing."""
    told: set[tuple[str, str]] = set()
    for path in sorted((judged.runs / LEAKS).glob("*/*.json")):
        where = path.relative_to(judged.folder).as_posix()
        found = findings.read_one(path)
        if found is None:
            yield Fault("finding.unreadable", f"{where} cannot be read")
        elif path != findings.path_of(Store(judged.runs), found.target, found.source):
            yield Fault("finding.misplaced", f"{where} is of {found.source} on {found.target}")
        elif judged.name is not None and not bundle.is_of(found.source, judged.name):
            yield Fault("finding.misplaced", f"{where} is of '{found.source}', and the bundle is of '{judged.name}'")
        elif (why := _unlike(found, manifests.get(found.target) or shipped(found.target))) is not None:
            yield Fault("finding.unlike", f"{where}: {why}")
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


def cell_faults(judged: Judged) -> Iterator[Fault]:
    """Nothing double, and in a bundle nothing missing; a store may be under way, and a board ranks no cell that is not whole."""
    cells: dict[tuple[Any, ...], list[RunRecord]] = defaultdict(list)
    for record in judged.records:
        cells[record.target, record.protocol, record.source, record.backbone, record.train_frac].append(record)
    for key, records in cells.items():
        where = " x ".join(map(str, key[2:4]))
        if len({record.cell for record in records}) > 1:
            yield Fault("cell.identities", f"{where}: runs of two identities of one cell; pack the newer one")
        numbers = sorted(record.replicate for record in records)
        wanted = list(range(max(record.replicates for record in records)))
        if doubles := sorted({number for number in numbers if numbers.count(number) > 1}):
            yield Fault("cell.replicates", f"{where}: replicate {doubles[0]} stands twice")
        if missing := sorted(set(wanted) - set(numbers)):
            told = f"{where}: replicates {', '.join(map(str, missing))} of {len(wanted)} are missing"
            if judged.name is not None:
                yield Fault("cell.replicates", told)
            else:
                judged.notes.append(f"{told}, so it is not ranked")
        if extra := sorted(set(numbers) - set(wanted)):
            yield Fault("cell.replicates", f"{where}: there is no replicate {extra[0]} of {len(wanted)}")
        tuned = {json.dumps(record.tuning.schedule, sort_keys=True) for record in records if record.tuning}
        if len(tuned) > 1:
            why = f"{where}: its replicates used different schedules, and a cell has one"
            yield Fault("cell.schedules", why)
