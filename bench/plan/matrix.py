"""Matrix files: sources crossed with backbones, on a target, under a protocol."""

import fnmatch
import itertools
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import ValidationError

from backbones.spec import BackboneSpec
from bench import BenchError
from bench.plan.backbone_names import backbones_of, refuse_without_backbone
from bench.plan.matrix_file import Grid, MatrixFile
from bench.plan.unfit import refuse_unfit, refuse_whole_masks
from bench.shipped import find_file, load_protocol
from bench.spec import Cell, Protocol
from bench.targets import find_target
from bench.targets.card import TargetCard
from bench.targets.mapping import map_spec
from pretrain_sources.card import SourceCard
from pretrain_sources.catalog import STUDIES, UnknownSourceError, catalog, closure, collect, find_source, grid, own_card
from pretrain_sources.config_file import read_yaml, suggestion
from pretrain_sources.recipe import Recipe
from pretrain_sources.teachers import own

T = TypeVar("T")  # Python 3.11 has no def f[T]


MOST_RUNS = 100_000  # of one matrix; the board is designed for this many
OTHER_MATRIX = "write a matrix with a shipped protocol and one of the card's backbones (--backbone only filters)"
OTHER_BACKBONE = "choose one that the card lists"
CARD = "card.yaml"  # in the folder of a submission


@dataclass(frozen=True)
class Matrix:
    """A matrix with all names resolved."""

    name: str
    target_card: TargetCard
    protocol: Protocol
    cells: tuple[Cell, ...]
    cards: Mapping[str, SourceCard]  # of all cells, and of the sources they start from
    backbones: Mapping[str, BackboneSpec]
    pool: Path | None  # replaces the target's unlabelled images
    code: tuple[Path, ...] = ()  # folders of the user's own backbones

    @property
    def target(self) -> str:
        """Name of the target."""
        return self.target_card.name

    @property
    def needs_pool(self) -> bool:
        """Whether a source requires unlabelled images."""
        return any(card.needs_pool for card in self.cards.values())


def load_matrix(
    name: str,
    target: str | None = None,
    sources: Sequence[str] = (),
    backbones: Sequence[str] = (),
    smoke: bool = False,
    teacher: str | None = None,
    pool: Path | None = None,
) -> Matrix:
    """Load a matrix by name or from a file; `sources` and `backbones` are globs that select a part of it.

    A name in `sources` that is a card file or a folder with a card adds that source, unless the matrix lists it already.

    teacher: the source whose recipe replaces satir's: satir/points-16 becomes satir/felzenszwalb/points-16, for example.

    Raises:
        BenchError: a name is unknown or a duplicate, a glob matches nothing, a file is missing, or no backbone can be used.
        FileError: the file is wrong.
    """
    path = find_file("matrix", name, "matrices")
    written = read_yaml(path, MatrixFile)
    _refuse_missing_files(written, path)
    protocol = _protocol(written, path, smoke)
    added_by = {name: file for name in sources if (file := card_file(name)) is not None}
    added = tuple(str(file.absolute()) for file in added_by.values())
    _refuse_above(sum(map(_combinations, written.sources)), written, protocol, path)
    known = _known((*written.sources, *added), path, teacher)
    own = {card.name: card for file in added for card in _cards(file, known, path)}
    listed = [card for entry in written.sources for card in _cards(entry, known, path)]
    listed += [card for name, card in own.items() if name not in {each.name for each in listed}]
    # with another teacher, a source of the study may equal another one; they count as one
    cards = {card.name: card for card in (listed if teacher else _unique(listed, path))}
    specs, code = backbones_of(_unique(written.backbones, path), path)
    cards = _keep("source", cards, [name for name in sources if name not in added_by], always=own)
    _refuse_without_steps(cards.values(), protocol, path)
    everything = closure(cards.values(), known)
    refuse_whole_masks(everything.values(), protocol, path)
    refuse_without_backbone(everything.values(), specs, f"{path} has", OTHER_MATRIX)
    specs = _keep("backbone", specs, backbones)
    refuse_unfit(specs.values(), protocol, path)
    refuse_without_backbone(closure(own.values(), known).values(), specs, "--backbone leaves", OTHER_BACKBONE)
    data = find_target(target) if target else find_target(written.target, path.parent)
    _refuse_above(len(cards), written, protocol, path)
    map_spec(data.spec, protocol.class_map)  # raises if the map does not fit
    cells = _cells(written, data.name, protocol.name, (specs, cards), path)
    beside = None if pool else _pool_beside(path, written.pool, everything.values())
    return Matrix(path.stem, data, protocol, cells, everything, specs, pool or beside, code)


def _cells(
    written: MatrixFile, target: str, protocol: str, names: tuple[Iterable[str], Iterable[str]], path: Path
) -> tuple[Cell, ...]:
    """Cross backbones, sources (names), shares of the labels and schedules."""
    crossed = itertools.product(*names, _unique(written.train_fracs, path), _unique(written.schedules, path))
    return tuple(
        Cell(target=target, protocol=protocol, source=source, backbone=backbone, train_frac=frac, schedule=kind)
        for backbone, source, frac, kind in crossed
    )


def _protocol(written: MatrixFile, path: Path, smoke: bool) -> Protocol:
    """Return the protocol of a matrix, with the trials that it asks for."""
    protocol = load_protocol(written.protocol, beside=path.parent)
    try:
        protocol = protocol if written.trials is None else protocol.with_trials(written.trials)
    except ValueError as error:
        raise BenchError(f"{path}: `trials`: {error}") from error
    return protocol.smoke() if smoke else protocol


def _refuse_missing_files(written: MatrixFile, path: Path) -> None:
    listed = [("sources", entry) for entry in written.sources if isinstance(entry, str)]
    for key, name in (("protocol", written.protocol), *listed):
        if name.endswith((".yaml", ".yml")) and not os.path.lexists(path.parent / name):
            raise BenchError(
                f"{path}: cannot read '{name}' of `{key}`: there is no file {path.parent / name}; "
                "correct its path, which starts at the folder of the matrix"
            )


def _refuse_without_steps(cards: Iterable[SourceCard], protocol: Protocol, path: Path) -> None:
    if protocol.pretrain_steps is None and (long := [card.name for card in cards if card.long]):
        raise BenchError(
            f"{path}: '{long[0]}' needs a protocol with pretrain_steps; {protocol.name} sets pretrain_epochs"
        )
    if protocol.pretrain_steps == 0 and (idle := [card.name for card in cards if card.pretrains]):
        raise BenchError(f"{path}: '{idle[0]}' needs pretraining, but {protocol.name} has pretrain_steps: 0")


def _combinations(entry: str | Grid) -> int:
    """Return a lower bound of the number of sources of an entry."""
    if isinstance(entry, str):
        return 1
    return sum(math.prod(len(values) for values in settings.values()) for settings in entry.values())


def _refuse_above(sources: int, written: MatrixFile, protocol: Protocol, path: Path) -> None:
    """Raise a BenchError if this many sources exceed the maximum number of runs; called before they are built."""
    cells = sources * len(written.backbones) * len(written.train_fracs) * len(written.schedules)
    if cells * protocol.replicates > MOST_RUNS:
        raise BenchError(
            f"{path}: {cells:,} cells x {protocol.replicates:,} replicates = {cells * protocol.replicates:,} runs; "
            f"the maximum is {MOST_RUNS:,}: shorten the grid"
        )


def card_file(name: str) -> Path | None:
    """Return the card file that a name refers to (a folder with a card, or the file itself), or None."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and os.path.isfile(path):
        return path
    return path / CARD if os.path.isfile(path / CARD) else None


def _known(entries: Sequence[str | Grid], path: Path, teacher: str | None) -> Mapping[str, SourceCard]:
    """Return the shipped cards and those of the card files in a matrix."""
    files = [path.parent / entry for entry in entries if isinstance(entry, str) and entry.endswith((".yaml", ".yml"))]
    once: dict[str, Path] = {}  # a file may be listed in the matrix and given with --source
    for file in files:
        once.setdefault(os.path.realpath(file), file)
    known = collect(once.values(), catalog())
    if teacher is None:
        return known
    offered = {name.removeprefix("satir/"): card for name, card in known.items() if card.recipe and "/" in name}
    if teacher.endswith((".yaml", ".yml")):
        card = own_card(Path(teacher), catalog())
        if card.recipe is None or not card.name.startswith("satir/"):
            raise BenchError(f"--teacher {teacher}: the card must have a recipe and a name like satir/NAME")
    elif ":" in teacher:
        recipe = Recipe(teacher=own(teacher))
        try:
            card = SourceCard(
                name=f"satir/{teacher.replace(':', '.')}", description=f"Masks of {teacher}.", recipe=recipe
            )
        except ValidationError as error:
            raise BenchError(
                f"--teacher {teacher} cannot be part of a source's name: it is too long or not plain ASCII"
            ) from error
    else:
        card = lookup("teacher", teacher, offered)
    return MappingProxyType({**known, card.name: card, "satir": card})


def _cards(entry: str | Grid, known: Mapping[str, SourceCard], path: Path) -> list[SourceCard]:
    """Return the sources of an entry of a matrix."""
    try:
        if isinstance(entry, dict):
            return [card for base, settings in entry.items() for card in grid(base, settings, known)]
        if entry.endswith((".yaml", ".yml")):
            return [find_source(read_yaml(path.parent / entry, SourceCard).name, known)]
        if set(entry) & set("*?["):
            if not (names := fnmatch.filter([*known, *STUDIES], entry)):
                raise BenchError(f"{path}: '{entry}' matches no source{suggestion(entry, [*known, *STUDIES])}")
            return [find_source(name, known) for name in names]
        return [find_source(entry, known)]
    except UnknownSourceError as error:
        own = "list its card file"
        if isinstance(entry, str) and os.path.isfile(path.parent / entry / CARD):
            own = f"list its card as {Path(entry) / CARD}"
        raise BenchError(f"{path}: {error}; to use your own source, {own} in `sources`") from error


def _pool_beside(path: Path, folder: Path | None, cards: Iterable[SourceCard]) -> Path | None:
    """Return the pool that a matrix names. It must exist if a source needs a pool."""
    if folder is None:
        return None
    if any(card.needs_pool for card in cards) and not os.path.isdir(path.parent / folder):
        raise BenchError(
            f"{path}: `pool` is {folder}, but there is no folder {path.parent / folder}; "
            "correct its path, which starts at the folder of the matrix, or name a folder with --pool DIR"
        )
    return path.parent / folder


def lookup(kind: str, name: str, known: Mapping[str, T], where: Path | None = None) -> T:
    """Return `known[name]`, or raise a BenchError that suggests the closest name."""
    if name not in known:
        raise BenchError(f"{f'{where}: ' if where else ''}unknown {kind} '{name}'{suggestion(name, known)}")
    return known[name]


def _unique(entries: Sequence[T], path: Path) -> Sequence[T]:
    names = [entry.name if isinstance(entry, SourceCard) else entry for entry in entries]
    if duplicates := [name for name, count in Counter(names).items() if count > 1]:
        raise BenchError(f"{path}: duplicate name '{duplicates[0]}'")
    return entries


def _keep(kind: str, known: dict[str, T], globs: Sequence[str], always: Collection[str] = ()) -> dict[str, T]:
    for glob in globs:
        if not fnmatch.filter(known, glob):
            folder = f"; the folder {glob} has no {CARD}" if os.path.isdir(glob) else ""
            raise BenchError(f"--{kind} '{glob}' matches nothing in this matrix{folder}{suggestion(glob, known)}")
    return {
        name: value
        for name, value in known.items()
        if not globs or name in always or any(fnmatch.fnmatchcase(name, glob) for glob in globs)
    }
